//! `trustrun run -- CMD`: see, judge and refuse a command's connections.

mod act;
mod doors;
mod inherited;
pub(super) mod plan;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Args;
use trustrun_guard::TABLES;

use crate::policies::PolicyOptions;

/// Run a command and see, judge and refuse its connections.
///
/// Exits as the command does; 125 if trustrun itself failed, 126 and 127 as a shell does.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Refuse whatever no rule allows, whatever the policy's default, and start nothing unless every lock holds.
    #[arg(long, conflicts_with_all = ["observe", "best_effort"])]
    pub(crate) strict: bool,
    /// Judge, but refuse nothing.
    #[arg(long)]
    pub(crate) observe: bool,
    /// Run the command even if it cannot be watched; the verdict is then never a pass.
    #[arg(long)]
    pub(crate) best_effort: bool,
    /// Run the command as this user.
    #[arg(long, value_name = "USER")]
    pub(crate) run_as: Option<String>,
    /// Write a policy that allows what was seen.
    #[arg(long, value_name = "FILE")]
    pub(crate) learn: Option<PathBuf>,
    /// Wait for every process that the command started.
    #[arg(long)]
    pub(crate) wait_all: bool,
    /// Write the report (JSON).
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write every event as it happens (NDJSON); `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// The events database.
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Option<PathBuf>,
    /// Exit with 121 (fail) or 122 (incomplete) where the command exited with 0.
    #[arg(long)]
    pub(crate) exit_verdict: bool,
    /// Entries of a kernel table, for a session that needs other than usual, such as SOCKETS=262144 for more than 65536
    /// sockets that are open at once.
    #[arg(long, value_name = "NAME=ENTRIES", value_parser = table)]
    pub(crate) table: Vec<(&'static str, u32)>,
    /// Bytes of the kernel's event buffer, a power of two. For tests of what happens when it is full.
    #[arg(long, hide = true, value_name = "BYTES")]
    pub(crate) ring_bytes: Option<u32>,
    /// The command and its arguments.
    // Not `allow_hyphen_values`: a mistyped option of ours would be taken for the command.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Most entries of a table: 16 bytes of kernel memory are taken for each, before anything is in it.
const MOST_ENTRIES: u32 = 1 << 22;

/// A table and how many entries it is to have.
fn table(word: &str) -> Result<(&'static str, u32), String> {
    let (name, entries) = word.split_once('=').ok_or("wanted NAME=ENTRIES, such as SOCKETS=262144")?;
    let name = TABLES.into_iter().find(|t| *t == name).ok_or_else(|| format!("there are {}", TABLES.join(", ")))?;
    let entries = entries.parse().ok().filter(|n| (1..=MOST_ENTRIES).contains(n));
    Ok((name, entries.ok_or_else(|| format!("entries are a number of 1 to {MOST_ENTRIES}"))?))
}

/// Our own failure, before or beside the command.
const FAILED: u8 = 125;

/// Runs the command.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let plan = plan::Plan::new(args);
    if let Ok(plan) = &plan {
        plan.said.iter().for_each(|line| eprintln!("trustrun: {line}"));
    }
    let outcome = plan.and_then(act::act);
    match outcome {
        Ok(code) => code,
        Err(why) => {
            eprintln!("trustrun: {why}");
            ExitCode::from(FAILED)
        }
    }
}
