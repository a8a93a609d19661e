//! `cargo xtask test`: all tests, and an honest count at the end.
//!
//! After the tests of `cargo test` each fuzz target runs for some seconds (`fuzz`).
//!
//! The tests drive real programs in network namespaces and load kernel programs, so they want root. A test that cannot run
//! here skips: to the test harness that looks like a pass, so it also appends one line with its reason to the file
//! that TRUSTRUN_SKIP_LOG names, and those lines are counted and shown here.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, IsTerminal as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    args::Selection,
    fuzz::{self, Fuzzed},
    host::Host,
    packages, setup,
};

/// Runs the selected tests.
pub(crate) fn test(host: &Host, selection: &Selection) -> Result<ExitCode> {
    setup::compiler(host)?;
    packages::for_tests(host)?;

    fs::create_dir_all(&host.target).context("cannot make the target folder")?;
    let skip_log = host.target.join(format!("skipped-{}.log", std::process::id()));
    // It must be there before a test that runs as root makes it: then it would be root's.
    fs::write(&skip_log, "").with_context(|| format!("cannot write {}", skip_log.display()))?;

    let mut cargo = host.cargo()?;
    cargo.args(["test", "--workspace", "--no-fail-fast"]).env("TRUSTRUN_SKIP_LOG", &skip_log);
    with_root(host, &mut cargo)?;
    cargo.args(&selection.filter);
    if !selection.options.is_empty() {
        cargo.arg("--").args(&selection.options);
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        tally.read(BufReader::new(output), io::stdout().lock())?;
    }
    let status = child.wait().context("cargo is lost")?;

    let mut skips = Skips::read(&skip_log)?;
    let _ = fs::remove_file(&skip_log);
    tally.fuzz(fuzz::smoke(host, selection.filter.as_deref().map(OsStr::to_string_lossy).as_deref())?, &mut skips);
    let verdict = judge(&tally, status.success());
    print!("{}", closing(&tally, &skips, &verdict));
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has cargo start the test binaries as root, where that can be.
pub(crate) fn with_root(host: &Host, cargo: &mut Command) -> Result<()> {
    if host.is_root {
        return Ok(());
    }
    // A password is asked for once, now, and not in the midst of the tests; without a terminal nobody could answer.
    let ask = if io::stdin().is_terminal() { "-v" } else { "-nv" };
    let allowed =
        host.which("sudo").is_some() && Command::new("sudo").arg(ask).status().is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("test: not root, and sudo is not to be had: tests that need root will skip");
        return Ok(());
    }
    eprintln!("test: not root: the tests are built as you and run through sudo");
    let us = std::env::current_exe().context("cannot tell where xtask is")?;
    let runner = format!("target.{}.runner=[{:?}, \"as-root\"]", host.toolchain.triple, us.display().to_string());
    cargo.args(["--config", &runner]);
    Ok(())
}

/// What the test binaries reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) filtered: u64,
    /// Names of the failed ones.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Passes every byte on, and reads along.
    fn read(&mut self, mut from: impl BufRead, mut to: impl io::Write) -> Result<()> {
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).context("cargo's output broke off")? > 0 {
            // A reader of ours that went away must not end the tests.
            let _ = to.write_all(&line);
            self.line(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let _ = to.flush();
        Ok(())
    }

    /// Adds the fuzz targets' short runs, each as a test.
    fn fuzz(&mut self, fuzzed: Result<Vec<Fuzzed>, String>, skips: &mut Skips) {
        match fuzzed {
            Ok(all) => {
                for target in all {
                    if target.good {
                        self.passed += 1;
                    } else {
                        self.failed += 1;
                        self.failures.push(format!("fuzz::{}", target.target));
                    }
                }
            }
            Err(why) => {
                // As a test that skips: to the tally it has passed.
                self.passed += 1;
                *skips.0.entry(why).or_default() += 1;
            }
        }
    }

    /// Takes one line of a test binary's output.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            // "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s"
            for part in result.split(';') {
                let mut words = part.split_whitespace().rev();
                let last = words.next().map(|word| if word == "out" { words.next().unwrap_or(word) } else { word });
                let count = words.next().and_then(|word| word.parse::<u64>().ok());
                if let (Some(word), Some(count)) = (last, count) {
                    match word {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        "ignored" => self.ignored += count,
                        "filtered" => self.filtered += count,
                        _ => {}
                    }
                }
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }
}

/// What the tests that could not run here said, and how many said it.
#[derive(Debug, Default)]
struct Skips(BTreeMap<String, u64>);

impl Skips {
    fn read(log: &Path) -> Result<Self> {
        let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let mut skips = Self::default();
        for line in text.lines().map(|line| line.trim().trim_start_matches("SKIPPED: ")).filter(|line| !line.is_empty())
        {
            *skips.0.entry(line.to_owned()).or_default() += 1;
        }
        skips
    }

    fn count(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Whether this was a good run, else why not.
fn judge(tally: &Tally, cargo_is_content: bool) -> Result<(), &'static str> {
    if tally.failed > 0 {
        Err("tests failed")
    } else if !cargo_is_content {
        Err("not every test could be built and run to its end: cargo says why above")
    } else if tally.passed == 0 && tally.filtered > 0 {
        Err("no test has this in its name")
    } else if tally.passed == 0 {
        Err("no test ran")
    } else {
        Ok(())
    }
}

/// The last lines: what was skipped, what failed, and one line of numbers.
fn closing(tally: &Tally, skips: &Skips, verdict: &Result<(), &'static str>) -> String {
    let mut text = String::from("\n");
    let mut put = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for (reason, count) in &skips.0 {
        put(if *count == 1 { format!("skipped: {reason}") } else { format!("skipped: {count} tests: {reason}") });
    }
    if tally.ignored > 0 {
        put(format!("skipped: {} marked #[ignore]", tally.ignored));
    }
    for name in &tally.failures {
        put(format!("failed: {name}"));
    }
    if let Err(reason) = verdict {
        put(format!("not good: {reason}"));
    }
    put(format!(
        "tests: {} passed, {} failed, {} skipped",
        // To the harness a skipped test has passed.
        tally.passed.saturating_sub(skips.count()),
        tally.failed,
        skips.count() + tally.ignored
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ignored\n\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
        running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n";

    fn tally(output: &str) -> (Tally, Vec<u8>) {
        let mut tally = Tally::default();
        let mut passed_on = Vec::new();
        tally.read(output.as_bytes(), &mut passed_on).expect("memory");
        (tally, passed_on)
    }

    #[test]
    fn results_of_all_binaries_are_added_up_and_passed_on() {
        let (found, passed_on) = tally(OUTPUT);
        let wanted = Tally { passed: 3, failed: 1, ignored: 1, filtered: 7, failures: vec!["b::c".into()] };
        assert_eq!(found, wanted);
        assert_eq!(passed_on, OUTPUT.as_bytes());
    }

    #[test]
    fn a_fuzz_target_counts_as_a_test() {
        let one = |name: &str, good| Fuzzed { target: name.into(), inputs: 9, good };
        let (mut tally, mut skips) = (Tally::default(), Skips::default());
        tally.fuzz(Ok(vec![one("dns", true), one("tls", false)]), &mut skips);
        assert_eq!((tally.passed, tally.failed, &*tally.failures), (1, 1, &["fuzz::tls".to_owned()][..]));
        tally.fuzz(Err("no C++ compiler".into()), &mut skips);
        assert_eq!((tally.passed, skips.count()), (2, 1));
    }

    #[test]
    fn colours_and_bytes_that_are_no_text_do_no_harm() {
        let mut found = Tally::default();
        let output = b"\xff\xfe\ntest result: \x1b[32mok\x1b(B\x1b[m. 4 passed; 0 failed; 0 ignored\ntest result: \n";
        found.read(output.as_slice(), io::sink()).expect("memory");
        assert_eq!(found, Tally { passed: 4, ..Tally::default() });
    }

    #[test]
    fn only_a_run_that_ran_is_good() {
        let good = Tally { passed: 1, ..Tally::default() };
        assert_eq!(judge(&good, true), Ok(()));
        assert!(judge(&good, false).is_err(), "a binary that did not build has no result line");
        assert!(judge(&Tally { failed: 1, passed: 1, ..Tally::default() }, false).is_err());
        assert_eq!(judge(&Tally::default(), true), Err("no test ran"));
        assert_eq!(judge(&Tally { filtered: 9, ..Tally::default() }, true), Err("no test has this in its name"));
    }

    #[test]
    fn a_skipped_test_is_shown_and_not_counted_as_passed() {
        let skips = Skips::parse("SKIPPED: not root\nnot root\n\nno `node`: install it\n");
        let (found, _) = tally(OUTPUT);
        let text = closing(&found, &skips, &judge(&found, false));
        assert_eq!(
            text,
            "\nskipped: no `node`: install it\nskipped: 2 tests: not root\nskipped: 1 marked #[ignore]\n\
             failed: b::c\nnot good: tests failed\ntests: 0 passed, 1 failed, 4 skipped\n"
        );
    }
}
