//! What can go wrong before the child starts.

use std::{io, path::PathBuf};

/// Why a session could not be set up. `run` prints it and exits with 125; the child was never started.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Not root.
    #[error("loading kernel programs needs root; found uid {uid}: run it through sudo")]
    NotRoot {
        /// The effective user id.
        uid: u32,
    },
    /// Built without the `ebpf` feature.
    #[error(
        "this trustrun was built without kernel programs: build it with the default features (`cargo xtask build`)"
    )]
    NoKernelPrograms,
    /// A kernel older than any that this was tried on.
    #[error("this is Linux {found}; the kernel programs need {wanted} or newer: run it on a machine that has one")]
    OldKernel {
        /// The oldest that will do.
        wanted: crate::Release,
        /// What this one calls itself.
        found: String,
    },
    /// No cgroup v2.
    #[error(
        "no cgroup v2 hierarchy in /proc/self/mountinfo: mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`)"
    )]
    NoCgroup2,
    /// A file of the system.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's type information lacks something.
    #[error("{what} not found in /sys/kernel/btf/vmlinux: the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Btf {
        /// Structure and member.
        what: String,
    },
    /// The embedded object is not the one that this agent was built for.
    #[error("the kernel programs have ABI {found:?}, wanted {wanted}: build again (`cargo xtask build`)")]
    Abi {
        /// The agent's.
        wanted: u32,
        /// The object's.
        found: Option<u32>,
    },
    /// A program or map is missing in the object.
    #[error("the kernel object has no {what} named {name}")]
    Missing {
        /// `program` or `map`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// The kernel refused a program.
    #[error("the kernel did not {step} the program {name}: {reason}")]
    Program {
        /// `load` or `attach`.
        step: &'static str,
        /// Which.
        name: String,
        /// What the kernel said, the end of the verifier's log.
        reason: String,
    },
    /// The kernel refused a map or an element.
    #[error("filling the kernel map {name}: {reason}")]
    Map {
        /// Which.
        name: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The canary was not seen.
    #[error("the self-test connection was made but these hooks did not see it: {}", missing.join(", "))]
    SelfTest {
        /// The hooks.
        missing: Vec<String>,
    },
    /// The guard process ended or said so.
    #[error("the guard could not set the session up: {reason}")]
    Guard {
        /// What it said.
        reason: String,
    },
    /// The user to run as does not exist.
    #[error("there is no user {}", trustrun_model::Untrusted::new(name))]
    NoUser {
        /// Name or number.
        name: String,
    },
}

impl GuardError {
    /// A system call's error.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |e| Self::System { what, source: e.into() }
    }

    /// A file's error.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.into(), source }
    }
}
