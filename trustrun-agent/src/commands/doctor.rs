//! `trustrun doctor`: what this host lets trustrun do, tried for real, and what to do about the rest.
//!
//! `host` reads what is there, `checks` judges it, `tried` tries the hooks and the locks as `run` would, `diagnosis`
//! puts all of it together, and `show` prints it.

mod checks;
mod diagnosis;
mod host;
mod show;
mod tried;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use self::{diagnosis::Diagnosis, host::Host, tried::Tried};

/// Try what this host lets trustrun do, and say what is missing.
///
/// Attaches every hook to a cgroup of its own, has a process in it connect to loopback ports where nobody accepts, and
/// takes the locks of an enforced command on; then takes all of it back. Nothing leaves this machine.
///
/// Exits with 0 if policies can be enforced here, with 1 if not, with 125 if trustrun itself failed.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Policies cannot be enforced on this host.
const NOT_ENFORCED: u8 = 1;
/// Our own failure.
const FAILED: u8 = 125;

/// Looks, tries, and says what came of it.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let host = Host::read();
    let diagnosis = Diagnosis::new(&host, Tried::here(&host));
    let text = match args.format {
        Format::Text => show::text(&diagnosis),
        Format::Json => show::json(&diagnosis),
    };
    let mut out = io::stdout().lock();
    if let Err(e) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        eprintln!("trustrun: writing what was found: {e}");
        return ExitCode::from(FAILED);
    }
    if diagnosis.enforces() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ENFORCED) }
}
