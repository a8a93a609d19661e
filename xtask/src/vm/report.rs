//! What a guest said on its second serial port, and the table of all of it. Pure.

use std::{fmt::Write as _, time::Duration};

use crate::test::Tally;

/// How one suite ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SuiteResult {
    pub(crate) name: String,
    pub(crate) tally: Tally,
    /// Why tests skipped, one for each.
    pub(crate) skips: Vec<String>,
    /// The exit code; none if it did not end.
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    /// What it printed.
    pub(crate) output: String,
    /// What the bypass suite says of each way (`crate::bypass`).
    pub(crate) ways: Vec<String>,
    /// Whether it is a person's own command, which has no tests to count.
    free: bool,
}

impl SuiteResult {
    /// Tests that passed; to the harness a skipped one has.
    pub(crate) fn passed(&self) -> u64 {
        self.tally.passed.saturating_sub(self.skips.len() as u64)
    }

    fn skipped(&self) -> u64 {
        self.skips.len() as u64 + self.tally.ignored
    }

    /// A suite is good if it ended well and something of it ran.
    pub(crate) fn problem(&self) -> Option<String> {
        match self.code {
            None => Some("did not end".to_owned()),
            // A test binary says how many passed; what says nothing has tested nothing.
            Some(0) if !self.free && self.tally == Tally::default() => Some("ran no test".to_owned()),
            Some(124 | 137) => Some("took longer than it may".to_owned()),
            Some(0) if self.tally.failed == 0 => None,
            Some(_) if self.tally.failed > 0 => Some(format!("{} failed", self.tally.failed)),
            Some(code) => Some(format!("ended with {code} and no failed test")),
        }
    }
}

/// What came of one boot.
#[derive(Debug, Default)]
pub(crate) struct Boot {
    /// What it is called in the matrix.
    pub(crate) kernel: String,
    /// What the guest says of itself: its release, its cgroups.
    pub(crate) about: String,
    pub(crate) suites: Vec<SuiteResult>,
    /// Suites that were not tried here, with the reason.
    pub(crate) absent: Vec<(String, String)>,
    /// How many suites the guest itself counts as failed: its last word.
    pub(crate) verdict: Option<u32>,
    /// Why there is no last word.
    pub(crate) problem: Option<String>,
    pub(crate) took: Duration,
    /// Processor time of the emulator.
    pub(crate) cpu: Duration,
    /// Whether it runs a person's own command.
    pub(crate) free: bool,
    /// Whether the last suite is still open.
    pub(crate) open: bool,
}

impl Boot {
    /// Takes one line. True if it is for us, and not a suite's.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let Some(words) = line.strip_prefix("@vm ") else {
            if let Some(suite) = self.suites.last_mut().filter(|_| self.open) {
                suite.tally.line(line);
                if !(line.is_empty() && suite.output.is_empty()) {
                    suite.output.push_str(line);
                    suite.output.push('\n');
                }
            }
            return false;
        };
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        match word {
            "up" => self.about = rest.to_owned(),
            "begin" => {
                self.suites.push(SuiteResult { name: rest.to_owned(), free: self.free, ..SuiteResult::default() });
                self.open = true;
            }
            "skip" => {
                if let Some(suite) = self.suites.last_mut() {
                    suite.skips.push(rest.to_owned());
                }
            }
            "way" => {
                if let Some(suite) = self.suites.last_mut() {
                    suite.ways.push(rest.to_owned());
                }
            }
            "end" => {
                let mut numbers = rest.split(' ').rev();
                let millis = numbers.next().and_then(|n| n.parse().ok());
                let code = numbers.next().and_then(|n| n.parse().ok());
                if let Some(suite) = self.suites.last_mut() {
                    suite.took = Duration::from_millis(millis.unwrap_or_default());
                    suite.code = code;
                }
                self.open = false;
            }
            "verdict" => self.verdict = rest.parse().ok(),
            _ => {}
        }
        true
    }

    /// Whether all of it ran and all was good.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict == Some(0) && self.problem.is_none() && self.suites.iter().all(|s| s.problem().is_none())
    }

    /// One line about the kernel.
    pub(crate) fn verdict_line(&self) -> String {
        let sum = |of: fn(&SuiteResult) -> u64| self.suites.iter().map(of).sum::<u64>();
        let word = if self.is_good() { "passed" } else { "FAILED" };
        let mut line = format!(
            "{}: {word}: {} passed, {} failed, {} skipped, {} left out, {} s ({} s of processor time)",
            self.kernel,
            sum(SuiteResult::passed),
            sum(|s| s.tally.failed),
            sum(SuiteResult::skipped),
            sum(|s| s.tally.filtered),
            self.took.as_secs(),
            self.cpu.as_secs()
        );
        if let Some(problem) = &self.problem {
            let _ = write!(line, "; {problem}");
        }
        line
    }

    /// What the verifier test printed of the programs' sizes, in few words.
    fn verified(&self) -> Option<String> {
        let lines = self.suites.iter().flat_map(|s| s.output.lines());
        let programs: Vec<(&str, Option<u64>)> = lines
            .filter_map(|line| {
                let (name, count) = line.strip_suffix(" verified instructions")?.rsplit_once(": ")?;
                let count = count.strip_prefix("Some(").and_then(|c| c.strip_suffix(')')?.parse().ok());
                Some((name.rsplit(' ').next().unwrap_or(name), count))
            })
            .collect();
        let most = programs.iter().filter_map(|(name, count)| Some(((*count)?, *name))).max();
        Some(match most {
            _ if programs.is_empty() => return None,
            Some((count, name)) => {
                let sum: u64 = programs.iter().filter_map(|(_, count)| *count).sum();
                format!(
                    "{} programs load; the verifier took most for {name}: {count} instructions; for all: {sum}",
                    programs.len()
                )
            }
            None => format!(
                "{} programs load; this kernel does not tell how much the verifier took (5.16 does)",
                programs.len()
            ),
        })
    }

    /// Everything that a person needs of what failed.
    pub(crate) fn failures(&self) -> String {
        let mut text = String::new();
        for suite in &self.suites {
            let Some(problem) = suite.problem() else { continue };
            let _ =
                writeln!(text, "\n=== {} on {}: {problem}\n{}", suite.name, self.kernel, of_failures(&suite.output));
        }
        text
    }
}

/// The part of libtest's output that is about failures; all, where it captured nothing or did not get so far.
fn of_failures(output: &str) -> &str {
    let captured = output.find("\nfailures:\n").filter(|at| output[*at..].contains("\n---- "));
    captured.map_or(output, |at| &output[at..]).trim()
}

/// Kernel x suite, each `passed/failed/skipped`, then what was skipped and left out, and one line for each kernel.
pub(crate) fn table(boots: &[Boot]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for boot in boots {
        let ours = boot.suites.iter().map(|s| s.name.as_str()).chain(boot.absent.iter().map(|(n, _)| n.as_str()));
        for name in ours {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut text = format!("\n{:<14}", "suite");
    for boot in boots {
        let _ = write!(text, "  {:>18}", boot.kernel);
    }
    text.push('\n');
    for name in &names {
        let _ = write!(text, "{name:<14}");
        for boot in boots {
            let cell = match boot.suites.iter().find(|s| s.name == *name) {
                Some(s) => cell(s),
                None if boot.absent.iter().any(|(n, _)| n == name) => "skipped".to_owned(),
                None => "NOT REACHED".to_owned(),
            };
            let _ = write!(text, "  {cell:>18}");
        }
        text.push('\n');
    }
    text.push_str("passed/failed/skipped seconds; ! is a suite that is not good\n\n");
    for (reason, kernels) in reasons(boots) {
        let _ = writeln!(text, "skipped on {}: {reason}", kernels.join(", "));
    }
    for boot in boots {
        let _ = writeln!(text, "{}", boot.verdict_line());
        if !boot.about.is_empty() {
            let _ = writeln!(text, "    {}", boot.about);
        }
        if let Some(line) = boot.verified() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

fn cell(s: &SuiteResult) -> String {
    let mark = if s.problem().is_some() { "! " } else { "" };
    format!("{mark}{}/{}/{} {:>3} s", s.passed(), s.tally.failed, s.skipped(), s.took.as_secs())
}

/// Why something was skipped, and on which kernels.
fn reasons(boots: &[Boot]) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for boot in boots {
        let skips = boot.suites.iter().flat_map(|s| s.skips.iter().map(|r| format!("{}: {r}", s.name)));
        let absent = boot.absent.iter().map(|(name, reason)| format!("{name}: {reason}"));
        for reason in absent.chain(skips) {
            match found.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, kernels)) if kernels.last() == Some(&boot.kernel) => {}
                Some((_, kernels)) => kernels.push(boot.kernel.clone()),
                None => found.push((reason, vec![boot.kernel.clone()])),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\n@vm up 6.1.0-56, cgroup v2 at /sys/fs/cgroup\n\n@vm begin allowed\n\nrunning 3 tests\r\n\
        test a ... ok\ntest b ... ok\ntest c ... ok\n\n\
        test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s\n\n\
        @vm skip no node\n@vm end allowed 0 1500\n\n@vm begin names\nrunning 1 test\ntest d ... FAILED\n\nfailures:\n\n\
        ---- d stdout ----\nit broke\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
        @vm end names 101 20\n";

    fn boot(said: &str) -> Boot {
        let mut boot = Boot { kernel: "6.1".into(), ..Boot::default() };
        for line in said.split('\n') {
            boot.line(line);
        }
        boot
    }

    #[test]
    fn a_boot_is_good_if_all_ended_well_and_it_said_so() {
        let (first, _) = SAID.split_once("@vm begin names").expect("two suites");
        let good = boot(&format!("{first}@vm verdict 0\n"));
        assert!(good.is_good());
        let suite = &good.suites[0];
        assert_eq!((suite.passed(), suite.skipped(), suite.tally.filtered), (2, 1, 2));
        assert_eq!((suite.code, suite.took.as_millis()), (Some(0), 1500));
        assert!(good.verdict_line().starts_with("6.1: passed: 2 passed, 0 failed, 1 skipped, 2 left out"));
        assert!(!boot(first).is_good(), "without a last word");
    }

    #[test]
    fn a_failure_is_told_with_its_output() {
        let bad = boot(&format!("{SAID}@vm verdict 1\n"));
        assert!(!bad.is_good());
        assert!(bad.failures().contains("=== names on 6.1: 1 failed\nfailures:"), "{}", bad.failures());
        assert!(bad.failures().contains("it broke"));
        assert!(!bad.failures().contains("allowed"));
    }

    #[test]
    fn a_suite_that_says_nothing_is_not_good() {
        let silent = "@vm begin names\n@vm end names 0 3\n@vm verdict 0\n";
        assert!(!boot(silent).is_good());
        let mut command = Boot { free: true, ..Boot::default() };
        for line in silent.lines() {
            command.line(line);
        }
        assert!(command.is_good());
    }

    #[test]
    fn a_guest_that_dies_in_a_suite_is_not_good() {
        let mut died = boot("@vm begin names\ntest a ... ok\n");
        died.problem = Some("the guest ended before its list".into());
        assert!(!died.is_good());
        assert!(died.failures().contains("did not end"));
        assert!(died.verdict_line().contains("FAILED"));
    }

    #[test]
    fn the_verifiers_counts_are_told_where_the_kernel_tells_them() {
        let said = |count: &str| {
            format!(
                "@vm begin verifier\ntest x ... connect4: {count} verified instructions\ningress: {count} verified instructions\n"
            )
        };
        let told = boot(&said("Some(210)")).verified().expect("a line");
        assert_eq!(told, "2 programs load; the verifier took most for ingress: 210 instructions; for all: 420");
        assert!(boot(&said("None")).verified().expect("a line").contains("does not tell"));
        assert_eq!(boot(SAID).verified(), None);
    }

    #[test]
    fn what_a_test_prints_is_not_ours() {
        let mut one = boot("@vm begin names\n");
        assert!(!one.line("it says @vm verdict 0"));
        assert_eq!(one.verdict, None);
    }

    #[test]
    fn a_suite_that_a_kernel_did_not_reach_is_in_the_table() {
        let mut first = boot(&format!("{SAID}@vm verdict 1\n"));
        first.absent.push(("bypass".into(), "there is no such test".into()));
        let second = Boot { kernel: "6.12".into(), problem: Some("time".into()), ..Boot::default() };
        let text = table(&[first, second]);
        let row = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        assert!(row("names").contains("! 0/1/0") && row("names").contains("NOT REACHED"), "{text}");
        assert!(row("allowed").contains("2/0/1   1 s"), "{text}");
        assert!(row("bypass").contains("skipped"), "{text}");
        assert!(text.contains("skipped on 6.1: bypass: there is no such test"), "{text}");
        assert!(text.contains("skipped on 6.1: allowed: no node"), "{text}");
    }
}
