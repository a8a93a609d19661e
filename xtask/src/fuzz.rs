//! `cargo xtask fuzz`: hostile input for everything that decodes bytes or text of others, in user space.
//!
//! The targets are in `fuzz/`. They are built with the project's own compiler: `-C passes` is stable, so libFuzzer's
//! instrumentation needs no nightly, and since the decoders are safe Rust, no sanitizer is missed. libFuzzer itself is C++.
//! What it finds out stays in `TARGET/fuzz/corpus`; `fuzz/seeds` is where it begins, and holds what once crashed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{args::Fuzzing, host::Host};

/// Seconds for each target when `cargo xtask test` has a look at it.
const SMOKE: u64 = 10;
/// Seconds for each target when a person asks without saying how long.
const USUAL: u64 = 60;
/// What cargo-fuzz passes too, as far as it is not about sanitizers.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// What came of one target.
#[derive(Debug)]
pub(crate) struct Fuzzed {
    /// Its name.
    pub(crate) target: String,
    /// Inputs that it was given.
    pub(crate) inputs: u64,
    /// Whether it took all of them well.
    pub(crate) good: bool,
}

/// What a person asked for.
pub(crate) fn fuzz(host: &Host, wanted: &Fuzzing) -> Result<ExitCode> {
    let all = targets(host)?;
    for name in &wanted.targets {
        ensure!(all.contains(name), "there is no target {name:?}; there are: {}", all.join(", "));
    }
    let chosen = if wanted.targets.is_empty() { all } else { wanted.targets.clone() };
    host.toolchain.require_recent()?;
    if host.which("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler: sudo apt-get install --yes --no-install-recommends g++");
    }
    let programs = build(host)?;
    if let Some(input) = &wanted.input {
        let [target] = chosen.as_slice() else { bail!("--input needs one --target, which it is for") };
        let status = Command::new(programs.join(target)).arg(input).status();
        let status = status.with_context(|| format!("{target} cannot be started"))?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let fuzzed = run(host, &programs, &chosen, wanted.seconds.unwrap_or(USUAL))?;
    Ok(if fuzzed.iter().all(|f| f.good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the tests do: each target whose name, with `fuzz::` before it, contains the filter. `Err` says why none can be.
pub(crate) fn smoke(host: &Host, filter: Option<&str>) -> Result<Result<Vec<Fuzzed>, String>> {
    let mut chosen = targets(host)?;
    if let Some(filter) = filter {
        // A filter that means other tests must not make a person wait for this build.
        chosen.retain(|target| filter.contains("fuzz") && format!("fuzz::{target}").contains(filter));
    }
    if chosen.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    if host.which("c++").is_none() {
        return Ok(Err(format!("{} fuzz targets: no C++ compiler, which libFuzzer needs: install g++", chosen.len())));
    }
    let programs = build(host)?;
    run(host, &programs, &chosen, SMOKE).map(Ok)
}

/// The names of all targets: their files.
fn targets(host: &Host) -> Result<Vec<String>> {
    let folder = host.root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(ToOwned::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// A folder of its own: the flags make all dependencies others than those of the agent.
fn folder(host: &Host) -> PathBuf {
    host.target.join("fuzz")
}

/// Builds all targets; where they are.
fn build(host: &Host) -> Result<PathBuf> {
    let triple = &host.toolchain.triple;
    let mut cargo = host.cargo()?;
    cargo
        .current_dir(host.root.join("fuzz"))
        // With a target named, the flags are not for build scripts and macros.
        .args(["build", "--release", "--locked", "--bins", "--target", triple])
        .env("CARGO_TARGET_DIR", folder(host))
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    eprintln!("fuzz: building the targets");
    let status = cargo.status().context("cargo cannot be started")?;
    ensure!(status.success(), "the fuzz targets could not be built ({status}); cargo says why above");
    Ok(folder(host).join(triple).join("release"))
}

/// Runs targets for so many seconds each, as many at once as there are processors.
fn run(host: &Host, programs: &Path, targets: &[String], seconds: u64) -> Result<Vec<Fuzzed>> {
    let began = Instant::now();
    let waiting = Mutex::new(targets.iter());
    let done = Mutex::new(Vec::new());
    let problem = Mutex::new(None);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = waiting.lock().ok().and_then(|mut next| next.next()) {
                    let result = one(host, programs, target, seconds);
                    match (result, done.lock(), problem.lock()) {
                        (Ok(fuzzed), Ok(mut done), _) => done.push(fuzzed),
                        (Err(error), _, Ok(mut problem)) => *problem = Some(error),
                        _ => {}
                    }
                }
            });
        }
    });
    if let Some(error) = problem.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let done: Vec<Fuzzed> = done.into_inner().unwrap_or_default();
    ensure!(done.len() == targets.len(), "only {} of {} targets were run", done.len(), targets.len());
    let inputs: u64 = done.iter().map(|f| f.inputs).sum();
    let bad = done.iter().filter(|f| !f.good).count();
    eprintln!("fuzz: {} targets, {inputs} inputs in {:.0?}, {bad} failed", done.len(), began.elapsed());
    Ok(done)
}

/// Runs one target.
fn one(host: &Host, programs: &Path, target: &str, seconds: u64) -> Result<Fuzzed> {
    let corpus = folder(host).join("corpus").join(target);
    let crashes = folder(host).join("crashes");
    for path in [&corpus, &crashes] {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"])
        .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
        .arg(&corpus);
    let seeds = host.root.join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{target} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let inputs = executed(&said);
    // An input that nobody ran is no proof of anything.
    let good = output.status.success() && inputs > 0;
    if good {
        eprintln!("fuzz: {target}: {inputs} inputs, {} a second", inputs / seconds.max(1));
    } else {
        let end: Vec<&str> = said.lines().rev().take(40).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        eprintln!(
            "fuzz: {target} FAILED ({})\n{}\n\nTo see it again: cargo xtask fuzz --target {target} --input FILE\n\
             Once it is fixed, keep FILE in fuzz/seeds/{target}/: every run begins with those.",
            output.status,
            end.join("\n")
        );
    }
    Ok(Fuzzed { target: target.to_owned(), inputs, good })
}

/// How many inputs libFuzzer says it has tried.
fn executed(said: &str) -> u64 {
    let number = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    said.lines().find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_counted_is_read() {
        assert_eq!(executed("Done 9 runs\nstat::number_of_executed_units: 412120\nstat::peak_rss_mb: 50\n"), 412_120);
        assert_eq!(executed("==1== ERROR: libFuzzer: deadly signal\n"), 0);
    }

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let host = Host::discover().expect("this machine");
        let manifest = fs::read_to_string(host.root.join("fuzz/Cargo.toml")).expect("a manifest");
        let names = targets(&host).expect("targets");
        assert!(names.len() >= 15, "{names:?}");
        for name in names {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in Cargo.toml");
            let seeds = host.root.join("fuzz/seeds").join(&name);
            assert!(seeds.read_dir().is_ok_and(|mut files| files.next().is_some()), "{name} has no seeds");
        }
    }
}
