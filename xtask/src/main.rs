//! `cargo xtask`: everything that a fresh clone needs, in one word each.
//!
//! The command line is parsed first and touches nothing (`args`); then the one task is done. Whatever is said goes to
//! stderr, so that `cargo xtask run -- CMD > file` holds the command's output and nothing else.

mod args;
mod build;
mod bypass;
mod fuzz;
mod host;
mod lint;
mod packages;
mod run;
mod setup;
mod soak;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use args::{Parsed, Task};
use host::Host;

/// We could not do our part: what `trustrun run` itself returns in that case (design 7).
const EXIT_OURS: u8 = 125;
/// The command line made no sense.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let task = match args::parse(std::env::args_os().skip(1)) {
        Ok(Parsed::Task(task)) => task,
        Ok(Parsed::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("xtask: {problem}\n\n{}", args::HELP);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let on_error = match task {
        Task::Run(_) | Task::Demo(_) | Task::AsRoot(_) => EXIT_OURS,
        _ => 1,
    };
    match act(task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(on_error)
        }
    }
}

fn act(task: Task) -> anyhow::Result<ExitCode> {
    let host = Host::discover()?;
    match task {
        Task::Setup => setup::everything(&host),
        Task::Build { release } => build::build(&host, release).map(|_| ExitCode::SUCCESS),
        Task::Run(arguments) => run::run(&host, arguments),
        Task::Demo(arguments) => run::demo(&host, arguments),
        Task::Test(selection) => test::test(&host, &selection),
        Task::Bypass(filter) => bypass::bypass(&host, filter.as_deref()),
        Task::Bench(arguments) => run::bench(&host, arguments),
        Task::Fuzz(wanted) => fuzz::fuzz(&host, &wanted),
        Task::Soak(seconds) => soak::soak(&host, seconds),
        Task::Lint => lint::lint(&host),
        Task::Vm(guests) => vm::vm(&host, &guests),
        Task::AsRoot(command) => run::as_root(&host, command),
    }
}
