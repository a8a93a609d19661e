//! `trustrun`: does this program talk only to whom it may?
//!
//! One file per subcommand in `commands/`: parse, plan, act. Nothing here holds logic.

mod caller;
mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{demo, policy, run, session};

/// Does this program talk only to whom it may?
#[derive(Debug, Parser)]
#[command(name = "trustrun", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command and see, judge and refuse its connections.
    Run(run::RunArgs),
    /// Look at earlier sessions.
    Session(session::SessionArgs),
    /// Look at policies.
    Policy(policy::PolicyArgs),
    /// See it work, offline, in a network of its own.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    // The guard's canary executes this program in the session's cgroup, to be seen doing so.
    if std::env::args_os().nth(1).is_some_and(|a| a == "--canary") {
        return ExitCode::SUCCESS;
    }
    let result = match Cli::parse().command {
        Command::Run(args) => return run::run(args),
        Command::Session(args) => session::run(&args).map_err(|e| e.to_string()),
        Command::Policy(args) => policy::run(&args).map_err(|e| e.to_string()),
        Command::Demo(args) => demo::run(&args).map_err(|e| e.to_string()),
    };
    result.unwrap_or_else(|why| {
        eprintln!("trustrun: {why}");
        ExitCode::from(2)
    })
}
