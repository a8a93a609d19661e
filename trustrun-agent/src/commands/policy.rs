//! `trustrun policy check`: is this policy well-formed, and what does it say?

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use trustrun_policy::{Named, PolicyError};

use crate::{policies::PolicyOptions, trusted::Looking};

/// Look at policies.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check that policies are well-formed.
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// The first file that is no policy.
pub(crate) fn run(args: &PolicyArgs) -> Result<ExitCode, PolicyError> {
    let PolicyCommand::Check { files } = &args.command;
    for file in files {
        let mut opener = Looking;
        let p = PolicyOptions::default().composer(&mut opener).compose(&[Named::new(file)])?;
        let mode = if p.enforcing() { "enforcing" } else { "observing" };
        println!(
            "{}: policy {}, {} rules, default {}, {mode}",
            trustrun_model::Untrusted::new(file.to_string_lossy()),
            trustrun_model::Untrusted::new(p.name.as_str()),
            p.rules.len(),
            p.default
        );
    }
    Ok(ExitCode::SUCCESS)
}
