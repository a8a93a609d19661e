//! The ways around, by family: data, one entry each.

pub(crate) mod sockets;
