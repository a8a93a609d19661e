//! The ways around, by family: data, one entry each.

pub(crate) mod doors;
pub(crate) mod escape;
pub(crate) mod identity;
pub(crate) mod names;
pub(crate) mod others;
pub(crate) mod sockets;
