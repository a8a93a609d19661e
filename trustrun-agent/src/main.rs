//! `trustrun`: does this program talk only to whom it may?
//!
//! One file per subcommand in `commands/`: parse, plan, act. Nothing here holds logic.

// Without the kernel programs `run` only says so, and part of what it would need has no use.
#![cfg_attr(not(feature = "ebpf"), allow(dead_code))]

mod caller;
mod commands;
mod policies;
mod settings;
mod trusted;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trustrun_model::Untrusted;

#[cfg(feature = "demo")]
use commands::demo;
use commands::{doctor, policy, run, session};

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
    /// Try what this host lets trustrun do, and say what is missing.
    Doctor(doctor::DoctorArgs),
    /// See it work, offline, in a network of its own.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// (Not in this build: it was made without the feature `demo`.)
    #[cfg(not(feature = "demo"))]
    Demo,
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoFetch(demo::fetch::FetchArgs),
}

fn main() -> ExitCode {
    // The guard's canary executes this program in the session's cgroup, to be seen doing so.
    if std::env::args_os().nth(1).is_some_and(|a| a == "--canary") {
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(why) => return usage(&why),
    };
    let result = match cli.command {
        Command::Run(args) => return run::run(args),
        Command::Session(args) => session::run(&args).map_err(|e| e.to_string()),
        Command::Policy(args) => policy::run(&args).map_err(|e| e.to_string()),
        Command::Doctor(args) => return doctor::run(&args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => return demo::run(&args),
        #[cfg(not(feature = "demo"))]
        Command::Demo => {
            eprintln!("trustrun: this trustrun was built without the demo: build it with the default features");
            return ExitCode::from(125);
        }
        #[cfg(feature = "demo")]
        Command::DemoFetch(args) => return demo::fetch::run(&args),
    };
    result.unwrap_or_else(|why| {
        eprintln!("trustrun: {why}");
        ExitCode::from(2)
    })
}

/// Says what is wrong with the command line. For `run` it is our own failure, 125: 2 may be the command's.
fn usage(why: &clap::Error) -> ExitCode {
    let run = std::env::args_os().nth(1).is_some_and(|a| a == "run");
    let shown = why.render().to_string();
    let harmless = |line: &str| Untrusted::new(line).to_string() == line;
    let _ = if shown.lines().all(harmless) {
        why.print()
    } else {
        // What was typed is repeated in it.
        let shown: String = shown.lines().map(|line| format!("{}\n", Untrusted::new(line))).collect();
        std::io::Write::write_all(&mut std::io::stderr(), shown.as_bytes())
    };
    match (why.use_stderr(), run) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(125),
        (true, false) => ExitCode::from(2),
    }
}
