//! Why a lab could not be made.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a lab could not be made, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The caller may not make namespaces.
    #[error("the lab needs root (CAP_SYS_ADMIN) to make its {what}: {source}; run it with sudo")]
    NotPermitted {
        /// The namespace that was wanted.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace could not be made for another reason.
    #[error("the lab could not {what}: {source}")]
    Namespace {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused an address, a route or `lo` itself.
    #[error("the lab could not configure {what} on its loopback device: {source}")]
    Network {
        /// The address or route.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the lab could not be written or mounted.
    #[error("the lab could not {what} {path}: {source}")]
    File {
        /// "write", "mount over", ...
        what: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A server could not listen on its address.
    #[error("the lab's {what} server could not listen on {address}: {source}")]
    Listen {
        /// Which server.
        what: &'static str,
        /// The address and port.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The lab's own certificate authority could not be made.
    #[error("the lab could not make its certificates: {reason}")]
    Certificates {
        /// What rcgen or rustls said.
        reason: String,
    },
    /// A helper program (git) failed.
    #[error("`{command}` failed in the lab: {reason}")]
    Program {
        /// The command line.
        command: String,
        /// Its standard error, or why it could not be started.
        reason: String,
    },
}

impl LabError {
    /// True when more privileges would help: a test then skips itself, loudly.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }
}
