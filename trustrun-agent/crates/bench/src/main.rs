//! `cargo xtask bench`: what TrustRun costs, in paired rounds against the same work without it.
//!
//! Each row of issue 2's table is measured in one run: short rounds, the ways to run taking turns, so that whatever
//! else the machine does falls on all of them alike. What is compared is the difference within a round; the median of
//! these and its 95 % confidence interval are shown. Bars are reported, not asserted: the exit code is 0 unless
//! something could not be measured.

mod agent;
mod arms;
mod client;
mod cpu;
mod noop;
mod rows;
mod stats;
mod table;

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;

/// Measure what TrustRun costs.
#[derive(Debug, Parser)]
struct Args {
    /// Write the figures (JSON).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure these parts only: hooks, speed, start, idle, events, policy.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the rounds: to see whether everything works.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// The measured program; not for people.
    #[command(hide = true)]
    Client(client::ClientArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Inner::Client(client)) => client::serve(client).map(|()| true),
        None => bench(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured.
fn bench(args: &Args) -> Result<bool> {
    ensure!(nix::unistd::Uid::effective().is_root(), "kernel programs need root: run it through `cargo xtask bench`");
    cpu::stay_on(1)?;
    let place = arms::Place::new()?;
    let scale = if args.quick { 10 } else { 1 };
    let (begun, load) = (Instant::now(), load());
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (name, measure) in rows::PARTS {
        if !args.only.is_empty() && !args.only.iter().any(|n| n == name) {
            continue;
        }
        eprintln!("bench: {name} ...");
        match measure(&place, scale) {
            Ok(more) => rows.extend(more),
            Err(e) => {
                eprintln!("bench: {name} could not be measured: {e:#}");
                failed.push((*name).to_owned());
            }
        }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    println!("{}", table::text(&rows));
    println!(
        "{} processors, Linux {kernel}; load average {load:.2} before and {:.2} after (about 1 to 2 is the benchmark's \
         own); {:.0} s{}",
        cpu::count(),
        self::load(),
        begun.elapsed().as_secs_f64(),
        if args.quick { "; --quick: too few rounds to go by" } else { "" }
    );
    if let Some(path) = &args.json {
        let text = json!({"schema": "trustrun.bench/1", "kernel": kernel, "processors": cpu::count(),
            "load_before": load, "quick": args.quick, "rows": table::to_json(&rows), "failed": failed});
        fs::write(path, format!("{text:#}\n")).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(failed.is_empty())
}

/// The load average of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(f64::NAN)
}
