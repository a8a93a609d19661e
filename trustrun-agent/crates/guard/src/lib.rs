//! The privileged part: small, without an async runtime, and parsing nothing but its own fixed messages.
//!
//! [`start`] forks the *guard* (root, its own terminal session), which makes the cgroup, loads and attaches the
//! kernel programs, proves with a canary connection that they see, forks the *engine* (unprivileged) and then answers
//! both. The caller stays the *foreground process*: it starts the child in the cgroup and waits for it as a shell
//! would. What the engine does is handed in as a function; nothing here judges.

mod btf;
mod cgroup;
mod child;
mod destroy;
mod error;
mod guard;
#[cfg(feature = "ebpf")]
mod load;
mod locks;
mod message;
#[cfg(feature = "ebpf")]
mod selftest;
mod sys;

pub use cgroup::{Cgroup, Hierarchy};
pub use child::{Child, Ended, Identity, Launch};
pub use error::GuardError;
pub use guard::{Channel, Engine, EngineLink, Guard, Outcome, Plan, start};
#[cfg(feature = "ebpf")]
pub use load::{Loaded, verified_instructions};
pub use message::{FinalFlow, Name, Note, Order};

/// Whether this build has the kernel programs.
#[must_use]
pub const fn has_kernel_programs() -> bool {
    cfg!(feature = "ebpf")
}
