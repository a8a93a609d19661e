//! The namespaces: making them, putting addresses on `lo`, entering them, and starting programs in them.
//!
//! `namespace` and `mounts` make them, `rtnetlink` speaks to the kernel about addresses and routes, `nat` rewrites them, `spawn` holds the
//! crate's only unsafe code. Nothing here knows what runs in the lab.

mod mounts;
mod namespace;
mod nat;
mod rtnetlink;
mod spawn;

pub(crate) use mounts::{EtcFiles, MountNs};
pub(crate) use namespace::{NetNs, Plan};
pub(crate) use nat::{Rewrite, rewrite};
pub(crate) use spawn::{Identity, enter_before_exec};
