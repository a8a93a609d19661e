//! The privileged part: small, without an async runtime, and parsing nothing but its own fixed messages.
//!
//! [`start`] forks the *guard* (root, its own terminal session), which makes the cgroup, loads and attaches the
//! kernel programs, proves with a canary connection that they see, forks the *engine* (unprivileged) and then answers
//! both. The caller stays the *foreground process*: it starts the child in the cgroup and waits for it as a shell
//! would. What the engine does is handed in as a function; nothing here judges.

// Without the kernel programs nothing is guarded, so part of what is here has no use.
#![cfg_attr(not(feature = "ebpf"), allow(dead_code))]

#[cfg(feature = "ebpf")]
mod btf;
mod cgroup;
mod channel;
mod child;
mod classes;
#[cfg(feature = "ebpf")]
mod destroy;
mod error;
mod guard;
mod kernel;
#[cfg(feature = "ebpf")]
mod links;
#[cfg(feature = "ebpf")]
mod load;
pub mod locks;
mod message;
mod places;
pub mod probe;
#[cfg(feature = "ebpf")]
mod selftest;
#[cfg(feature = "ebpf")]
mod session;
#[cfg(not(feature = "ebpf"))]
#[path = "session_none.rs"]
mod session;
#[cfg(test)]
#[path = "../tests/skip/mod.rs"]
mod skip;
mod sys;

pub use cgroup::{Cgroup, Hierarchy};
pub use channel::Channel;
pub use child::{Child, Ended, Identity, Launch};
pub use classes::{ConditionError, Conditions};
pub use error::GuardError;
pub use guard::{Engine, EngineLink, Guard, Outcome, Plan, Sizes, TABLES, start};
pub use kernel::{MINIMUM, OPTIONAL, Release};
#[cfg(feature = "ebpf")]
pub use load::{Loaded, verified_instructions};
pub use message::{CGROUP_GONE, FinalFlow, Name, Note, Order};
pub use places::{Changed, PLACES, Place};

/// Whether this build has the kernel programs.
#[must_use]
pub const fn has_kernel_programs() -> bool {
    cfg!(feature = "ebpf")
}
