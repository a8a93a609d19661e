//! Why the demo could not be shown.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use trustrun_lab::LabError;
use trustrun_model::Untrusted;

/// Why the demo could not be shown, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// Not root.
    #[error(
        "the demo makes a network of its own and loads programs into the kernel, and both need root: \
         type `sudo {program} demo`, or `cargo xtask demo` in a checkout"
    )]
    NotRoot {
        /// How to call this program.
        program: String,
    },
    /// Built without the `ebpf` feature.
    #[error(
        "this trustrun was built without kernel programs, and the demo shows what they do: \
         build it with the default features (`cargo xtask build`)"
    )]
    NoKernelPrograms,
    /// Root, and still not allowed.
    #[error(
        "the demo's own network cannot be made, as this system lets not even root make a {what} ({source}): \
         in a container give it the capability SYS_ADMIN (`docker run --privileged`), or use a machine or VM"
    )]
    NotPermitted {
        /// Which namespace.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else about the lab.
    #[error("the demo's own network cannot be made: {0}")]
    Lab(#[source] LabError),
    /// A file.
    #[error("cannot {what} {}: {source}", Untrusted::new(path.to_string_lossy()))]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// `trustrun run` could not be started.
    #[error("cannot start `trustrun run`: {0}")]
    Start(#[source] io::Error),
    /// `trustrun run` made no report.
    #[error("command {number} could not be run under TrustRun: it says why above (exit code {code})")]
    NotRun {
        /// Which.
        number: u8,
        /// The exit code; -1 where a signal ended it.
        code: i32,
    },
    /// `trustrun run` did not end.
    #[error("command {number} did not end within {} s and was stopped", limit.as_secs())]
    TooSlow {
        /// Which.
        number: u8,
        /// How long it had.
        limit: Duration,
    },
    /// A verdict, a reason or an arrival that was not announced.
    #[error("not as announced in command {why}. Please report this with the output above")]
    Broken {
        /// What.
        why: String,
    },
}

impl DemoError {
    /// A file's error.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

impl From<LabError> for DemoError {
    fn from(e: LabError) -> Self {
        match e {
            LabError::NotPermitted { what, source } => Self::NotPermitted { what, source },
            other => Self::Lab(other),
        }
    }
}
