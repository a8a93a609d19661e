//! The command line: text in, a task out. Nothing here looks at the machine.

use std::ffi::OsString;

/// One screen.
pub(crate) const HELP: &str = "\
cargo xtask run [OPTIONS] -- CMD [ARG...]
        Build, then run CMD under `trustrun run` with these OPTIONS of it
        (through sudo when you are not root; CMD still runs as you).
cargo xtask demo
        Build, then run `trustrun demo`: three commands, three verdicts, no network needed.
cargo xtask test [FILTER] [-- TEST-OPTIONS]
        Run all tests, or those whose name contains FILTER. Lists what was skipped, and why.
cargo xtask bypass [FILTER]
        Try each known way around as a user and as root; write docs/bypasses.md.
cargo xtask bench [--json FILE] [--only PART,...] [--quick]
        Build, then measure what TrustRun costs, against the same work without it (some minutes).
cargo xtask vm [--kernel NAME]... [--suite NAME]... [--filter TEST] [--systemd] [-- CMD...]
        The tests on Debian's kernels under QEMU, from 5.10 to the newest (docs/vm.md).
cargo xtask fuzz [--target NAME]... [--time SECONDS] [--input FILE]
        Give every decoder hostile input, a minute each unless told; `test` does it for 10 s.
cargo xtask soak [--time SECONDS]
        Mixed traffic and killed agents, for ten minutes; `test` does it for 30 s.
cargo xtask lint
        Clippy with warnings as errors, for the agent and the kernel programs, and the format.
cargo xtask build [--release]
        Build the kernel programs and the agent.
cargo xtask setup
        Install what the tasks above need and say what it does. They call it themselves:
        run, demo and build for the compiler's parts only, test for the programs it drives too.

Needs git, a C compiler and Rust 1.95. Tools go to target/tools (CARGO_TARGET_DIR is
honoured), system packages come from apt. `trustrun run --help` has the OPTIONS of run.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Help,
    Task(Task),
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Setup,
    Build {
        release: bool,
    },
    /// The arguments of `trustrun run`, unread.
    Run(Vec<OsString>),
    /// The arguments of `trustrun demo`, unread.
    Demo(Vec<OsString>),
    Test(Selection),
    /// The bypass suite, or the families whose test has this in its name.
    Bypass(Option<OsString>),
    /// The arguments of `trustrun-bench`, unread.
    Bench(Vec<OsString>),
    Fuzz(Fuzzing),
    /// For so many seconds.
    Soak(Option<u64>),
    Lint,
    Vm(Guests),
    /// How `cargo test` starts a test binary when we are not root ourselves; not for people.
    AsRoot(Vec<OsString>),
}

/// Which tests to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Part of the name of a test.
    pub(crate) filter: Option<OsString>,
    /// What follows `--`: options of the test binaries.
    pub(crate) options: Vec<OsString>,
}

/// What is to be fuzzed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fuzzing {
    /// Names of targets; none means all.
    pub(crate) targets: Vec<String>,
    /// For each target.
    pub(crate) seconds: Option<u64>,
    /// One input to see again.
    pub(crate) input: Option<OsString>,
}

/// What to run on which kernels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Guests {
    /// Names of kernels of the matrix; none: all.
    pub(crate) kernels: Vec<String>,
    /// Names of suites; none: all.
    pub(crate) suites: Vec<String>,
    /// Part of the name of a test.
    pub(crate) filter: Option<String>,
    /// Whether suites run whole, and not only what the matrix chooses of them.
    pub(crate) whole: bool,
    /// Whether systemd is the guests' PID 1.
    pub(crate) systemd: bool,
    /// Whether Debian is asked for newer kernels.
    pub(crate) update: bool,
    /// Guests at once.
    pub(crate) jobs: Option<usize>,
    /// How long each boot may take.
    pub(crate) seconds: Option<u64>,
    /// What to run in the place of the suites.
    pub(crate) command: Vec<String>,
}

impl Guests {
    /// Whether this suite was asked for.
    pub(crate) fn wants(&self, suite: &str) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|name| name == suite)
    }
}

/// Reads a command line, without the program's own name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Parsed, String> {
    let mut arguments = arguments.peekable();
    let Some(name) = arguments.next() else {
        return Ok(Parsed::Help);
    };
    let name = name.to_string_lossy().into_owned();
    let wants_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if wants_help(&OsString::from(&name)) || name == "help" || arguments.peek().is_some_and(wants_help) {
        return Ok(Parsed::Help);
    }
    let rest: Vec<OsString> = arguments.collect();
    let task = match name.as_str() {
        "setup" => nothing_more(&name, &rest).map(|()| Task::Setup)?,
        "lint" => nothing_more(&name, &rest).map(|()| Task::Lint)?,
        "build" => match rest.as_slice() {
            [] => Task::Build { release: false },
            [flag] if flag == "--release" => Task::Build { release: true },
            [other, ..] => return Err(format!("build does not know {other:?}")),
        },
        "run" if rest.is_empty() => {
            return Err("run needs a command: cargo xtask run -- curl https://example.com".into());
        }
        "run" => Task::Run(rest),
        "demo" => Task::Demo(rest),
        "test" => Task::Test(selection(rest)?),
        "bypass" => match rest.as_slice() {
            [] => Task::Bypass(None),
            [filter] if !filter.as_encoded_bytes().starts_with(b"-") => Task::Bypass(Some(filter.clone())),
            _ => return Err("bypass takes one filter and no options".into()),
        },
        "bench" => Task::Bench(rest),
        "vm" => Task::Vm(guests(rest)?),
        "fuzz" => Task::Fuzz(fuzzing(rest)?),
        "soak" => match rest.as_slice() {
            [] => Task::Soak(None),
            [flag, time] if flag == "--time" => Task::Soak(Some(seconds(time)?)),
            [other, ..] => return Err(format!("soak does not know {other:?}, or it has no value")),
        },
        "as-root" => Task::AsRoot(rest),
        other => return Err(format!("there is no task {other:?}")),
    };
    Ok(Parsed::Task(task))
}

fn nothing_more(task: &str, rest: &[OsString]) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(argument) => Err(format!("{task} takes no argument, but there is {argument:?}")),
    }
}

fn selection(rest: Vec<OsString>) -> Result<Selection, String> {
    let mut found = Selection::default();
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            found.options = rest.collect();
            break;
        }
        let filter = if argument == "--filter" {
            rest.next().ok_or("--filter needs a part of a test's name")?
        } else if argument.as_encoded_bytes().starts_with(b"-") {
            return Err(format!("test does not know {argument:?}; options of the test binaries follow `--`"));
        } else {
            argument
        };
        if found.filter.replace(filter).is_some() {
            return Err("test takes one filter".into());
        }
    }
    Ok(found)
}

fn guests(rest: Vec<OsString>) -> Result<Guests, String> {
    let mut found = Guests::default();
    let word = |word: OsString| word.into_string().map_err(|word| format!("{word:?} is not UTF-8"));
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        let argument = word(argument)?;
        let mut value = || word(rest.next().ok_or(format!("{argument} needs a value"))?);
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{argument}: {text:?} is no number"));
        match &*argument {
            "--kernel" => found.kernels.push(value()?),
            "--suite" => found.suites.push(value()?),
            "--filter" => found.filter = Some(value()?),
            "--seconds" => found.seconds = Some(number(value()?)?),
            "--jobs" => found.jobs = Some(usize::try_from(number(value()?)?).map_err(|_| "--jobs: too many")?),
            "--whole" => found.whole = true,
            "--systemd" => found.systemd = true,
            "--update" => found.update = true,
            "--" => {
                found.command = rest.map(word).collect::<Result<_, _>>()?;
                break;
            }
            other => return Err(format!("vm does not know {other:?}; a command follows `--`")),
        }
    }
    let blank = |word: &String| word.contains(char::is_whitespace) || word.is_empty();
    if found.command.iter().chain(&found.filter).any(blank) {
        return Err("a word with a blank in it does not reach a guest: put it in a script".into());
    }
    Ok(found)
}

fn fuzzing(rest: Vec<OsString>) -> Result<Fuzzing, String> {
    let mut found = Fuzzing::default();
    let mut rest = rest.into_iter();
    while let Some(option) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{option:?} needs a value"));
        match option.to_str() {
            Some("--target") => found.targets.push(value()?.to_string_lossy().into_owned()),
            Some("--input") => found.input = Some(value()?),
            Some("--time") => found.seconds = Some(seconds(&value()?)?),
            _ => return Err(format!("fuzz does not know {option:?}")),
        }
    }
    Ok(found)
}

fn seconds(text: &OsString) -> Result<u64, String> {
    let number = text.to_str().and_then(|text| text.trim_end_matches('s').parse().ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("{text:?} is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn task(line: &str) -> Task {
        match parse(words(line).into_iter()) {
            Ok(Parsed::Task(task)) => task,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn help_is_shown_when_asked_for_and_when_there_is_nothing() {
        for line in ["", "--help", "-h", "help", "run --help", "test -h"] {
            assert_eq!(parse(words(line).into_iter()), Ok(Parsed::Help), "{line}");
        }
    }

    #[test]
    fn help_fits_a_screen() {
        assert!(HELP.lines().count() <= 32);
        assert!(HELP.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn the_options_of_trustrun_and_of_the_command_are_not_ours() {
        assert_eq!(
            task("run --policy p.yaml -- curl --help -- x"),
            Task::Run(words("--policy p.yaml -- curl --help -- x"))
        );
    }

    #[test]
    fn a_filter_is_a_word_or_a_flag() {
        let wanted = Selection { filter: Some("dns".into()), options: words("--nocapture") };
        assert_eq!(task("test dns -- --nocapture"), Task::Test(wanted));
        let wanted = Selection { filter: Some("dns".into()), options: vec![] };
        assert_eq!(task("test --filter dns"), Task::Test(wanted));
        assert_eq!(task("test"), Task::Test(Selection::default()));
    }

    #[test]
    fn guests_are_chosen_by_name() {
        let wanted = Guests {
            kernels: vec!["6.1".into(), "5.10".into()],
            filter: Some("dns".into()),
            jobs: Some(1),
            ..Guests::default()
        };
        assert_eq!(task("vm --kernel 6.1 --kernel 5.10 --filter dns --jobs 1"), Task::Vm(wanted));
        let wanted = Guests { systemd: true, command: vec!["process".into(), "--help".into()], ..Guests::default() };
        assert_eq!(task("vm --systemd -- process --help"), Task::Vm(wanted));
        for line in ["vm 6.1", "vm --kernel", "vm --jobs two", "vm --fast"] {
            assert!(parse(words(line).into_iter()).is_err(), "{line}");
        }
        let blank = ["vm", "--", "sh", "-c", "echo a"].map(OsString::from);
        assert!(parse(blank.into_iter()).is_err());
    }

    #[test]
    fn fuzzing_takes_targets_and_a_time() {
        let wanted = Fuzzing { targets: vec!["dns".into(), "tls".into()], seconds: Some(600), input: None };
        assert_eq!(task("fuzz --target dns --time 600 --target tls"), Task::Fuzz(wanted));
        assert_eq!(task("fuzz"), Task::Fuzz(Fuzzing::default()));
        assert_eq!((task("soak"), task("soak --time 60s")), (Task::Soak(None), Task::Soak(Some(60))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "bypass --fast",
            "fly",
            "run",
            "setup now",
            "build --fast",
            "test a b",
            "test --fast",
            "test --filter",
            "fuzz x",
            "fuzz --time 0",
            "soak --time",
        ] {
            assert!(parse(words(line).into_iter()).is_err(), "{line}");
        }
    }
}
