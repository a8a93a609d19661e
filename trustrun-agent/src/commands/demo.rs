//! `trustrun demo` (being built)
use std::process::ExitCode;

/// See it work, offline, in a network of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

/// Runs the demo.
pub(crate) fn run(_: &DemoArgs) -> Result<ExitCode, std::io::Error> {
    Ok(ExitCode::SUCCESS)
}
