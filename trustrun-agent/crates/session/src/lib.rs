//! The session: observations in, verdicts out, and the report that a person reads.
//!
//! [`Engine`] is plain state without a system call that matters; [`run`] is the loop around it in the unprivileged
//! engine process. Nothing here holds privileges, and nothing here refuses anything: the kernel did, by the same
//! policy.

// Without the kernel programs nothing is guarded, so part of what is here has no use.
#![cfg_attr(not(feature = "ebpf"), allow(dead_code))]

mod engine;
mod events;
mod host;
mod ledger;
mod names;
mod negative;
mod processes;
mod record;
pub mod redact;
mod report;
#[cfg(feature = "ebpf")]
mod runner;
mod sampled;
mod settle;
mod suggest;
pub mod summary;
#[cfg(feature = "ebpf")]
mod tcp_resolver;
mod tunnel;

pub use engine::{Doors, Engine, Judge, Reaction};
pub use host::{Resolvers, about_host, operator};
pub use record::Outputs;
pub use report::{Facts, Final, LostHook, unwatched};
#[cfg(feature = "ebpf")]
pub use runner::{RunError, run};
pub use sampled::{News, Sampling, Source};
