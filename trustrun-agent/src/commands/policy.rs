//! `trustrun policy …`: what policies say, before anything runs under them.
//!
//! Each subcommand parses, asks the policy crate, and prints: for people, or as JSON. Exit codes: 0, 1 where an answer is
//! no (a mistake in a policy, an expectation that does not hold), 2 where there is none.

mod check;
mod diff;
mod expect;
mod explain;
mod learn;
mod output;
mod presets;
mod replay;
mod review;
mod schema;
mod sessions;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use trustrun_model::Untrusted;
use trustrun_policy::{DestinationError, Named, Policy, PolicyError, WhoError};
use trustrun_store::StoreError;

pub(crate) use self::learn::write as write_learned;
use self::output::Format;
use crate::{policies::PolicyOptions, trusted::Looking};

/// Look at policies.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check that policies are well-formed, and say what in them was hardly meant.
    Check(check::CheckArgs),
    /// Say why a policy lets a destination through or not.
    Explain(explain::ExplainArgs),
    /// Say what a second policy lets through or refuses that a first does not.
    Diff(diff::DiffArgs),
    /// Check that a policy does what a file of expectations says.
    Test(expect::TestArgs),
    /// Say what a policy would have done in an earlier session.
    Replay(replay::ReplayArgs),
    /// List the presets that come with trustrun, or show one.
    Presets(presets::PresetsArgs),
    /// Print the JSON Schema of policies, for editors.
    Schema,
    /// Propose a policy from what sessions reached.
    Learn(learn::LearnArgs),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// A policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A destination.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A process.
    #[error(transparent)]
    Who(#[from] WhoError),
    /// The events database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A session without a report.
    #[error("session {id} has no report: {why}")]
    NoReport {
        /// Which.
        id: String,
        /// Why it has none.
        why: &'static str,
    },
    /// Something that is no report.
    #[error("{what} is no report of trustrun: {source}")]
    NotAReport {
        /// The file or session.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A preset that is not there.
    #[error("there is no preset `{found}`: `trustrun policy presets` lists them")]
    NoPreset {
        /// What was asked for.
        found: String,
    },
    /// A review that nobody can answer.
    #[error("standard input is no terminal, so nobody can review: say --accept-all to take every line")]
    NoTerminal,
    /// No policy at all.
    #[error(
        "no policy is named, and no settings name one: say --policy FILE, or write `policy: FILE` into /etc/trustrun/trustrun.yaml"
    )]
    NoPolicy,
    /// A format that a subcommand does not have.
    #[error("`--format yaml` is for `policy learn` alone: wanted text or json")]
    Format,
    /// A file.
    #[error("{what} {}: {source}", Untrusted::new(path.to_string_lossy()))]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// Where there is no answer.
pub(crate) fn run(args: &PolicyArgs) -> Result<ExitCode, ToolError> {
    if args.format == Format::Yaml && !matches!(args.command, PolicyCommand::Learn(_)) {
        return Err(ToolError::Format);
    }
    match &args.command {
        PolicyCommand::Check(check) => check::run(check, args.format),
        PolicyCommand::Explain(explain) => explain::run(explain, args.format),
        PolicyCommand::Diff(diff) => diff::run(diff, args.format),
        PolicyCommand::Test(test) => expect::run(test, args.format),
        PolicyCommand::Replay(replay) => replay::run(replay, args.format),
        PolicyCommand::Presets(presets) => presets::run(presets, args.format),
        PolicyCommand::Schema => schema::run(),
        PolicyCommand::Learn(learn) => learn::run(learn, args.format),
    }
}

/// The policy that options name, read with the rights of who asks; where they name none, the active one.
fn compose(options: &PolicyOptions) -> Result<Policy, ToolError> {
    if options.named.is_empty() {
        let chosen = options.for_session(false)?;
        chosen.said.iter().for_each(|said| eprintln!("trustrun: {said}"));
        return chosen.policy.ok_or(ToolError::NoPolicy);
    }
    let named: Vec<Named> = options.named.iter().map(|path| Named::new(path)).collect();
    let mut opener = Looking;
    Ok(options.composer(&mut opener).compose(&named)?)
}
