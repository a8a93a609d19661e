//! What the tests of the real binary share: a lab, a run of `trustrun run` in it with a deadline, and the report.
//!
//! The far end judges what went out (`Lab::arrived`), the client what it felt (exit code, errno, time), and the report
//! what TrustRun says about it. Nothing here knows how TrustRun does it.
#![allow(dead_code, reason = "each test file uses a part")]

#[allow(clippy::duplicate_mod, reason = "a test that uses both kinds of help has it twice")]
#[path = "../kernels/mod.rs"]
mod kernels;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use trustrun_lab::{Arrival, Lab, LabBuilder, skip, wait_until};
use trustrun_model::{Action, Destination, Report, Verdict, Violation};

/// A refusal that takes longer than this hangs, for whoever waits for it.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// Two busy cores, and a session that does a little.
const DEADLINE: Duration = Duration::from_secs(60);

/// The standard lab, or a skip where namespaces may not be made.
pub(crate) fn lab() -> Option<Lab> {
    started(Lab::builder())
}

/// A lab with choices, or a skip.
pub(crate) fn started(builder: LabBuilder) -> Option<Lab> {
    match builder.start() {
        Ok(lab) => Some(lab),
        Err(e) if e.is_permission() => {
            skip(&e.to_string());
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// A lab, if these programs are there; else a skip.
pub(crate) fn lab_with(programs: &[&str]) -> Option<Lab> {
    for program in programs {
        if !trustrun_lab::have(program) {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    lab()
}

/// The path of a client program (`tests/clients/README.md`).
pub(crate) fn client(file: &str) -> String {
    format!("{}/tests/clients/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Python itself, behind links and version managers' wrappers: the path that a report names. Empty without Python.
pub(crate) fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let code = "import os, sys; print(os.path.realpath(sys.executable))";
        let out = Command::new("python3").args(["-c", code]).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    })
}

/// A policy with one rule of this action for all destinations, and this default.
pub(crate) fn policy(default: Action, action: Action, destinations: &[&str]) -> String {
    let list: Vec<String> = destinations.iter().map(|d| format!("{d:?}")).collect();
    format!(
        "version: 1\nname: test\ndefault: {default}\nrules:\n  - name: the rule\n    {action}: [{}]\n",
        list.join(", ")
    )
}

/// `default: block`, and these destinations allowed.
pub(crate) fn only(destinations: &[&str]) -> String {
    policy(Action::Block, Action::Allow, destinations)
}

/// A run of `trustrun run` in a lab.
pub(crate) struct Run<'a> {
    lab: &'a Lab,
    policy: Option<String>,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    deadline: Duration,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        Self { lab, policy: None, options: Vec::new(), environment: Vec::new(), deadline: DEADLINE }
    }

    /// The text of the policy.
    pub(crate) fn policy(mut self, text: impl Into<String>) -> Self {
        self.policy = Some(text.into());
        self
    }

    /// One more argument before `--`.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// How long it may take at most.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs a command to its end and reads the report, whose counters must balance.
    pub(crate) fn command(self, line: &[impl AsRef<OsStr>]) -> Ran {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (report, out, err) =
            (folder.path().join("report.json"), folder.path().join("stdout"), folder.path().join("stderr"));
        let mut command = self.trustrun(folder.path(), &report);
        command.arg("--").args(line).stdin(Stdio::null());
        command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let began = Instant::now();
        let child = command.spawn().expect("trustrun starts");
        let status = wait(child, self.deadline);
        let took = began.elapsed();
        let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (text(&out), text(&err));
        let Some(status) = status else {
            panic!("{command:?} did not end within {:?}\n{stdout}\n{stderr}", self.deadline);
        };
        let bytes = fs::read(&report).unwrap_or_else(|e| panic!("no report: {e}\n{status}\n{stdout}\n{stderr}"));
        let report = kernels::look_past(serde_json::from_slice(&bytes).expect("a report"));
        let report: Report = serde_json::from_value(report).expect("a report");
        let ran = Ran { status, took, stdout, stderr, report, folder };
        assert!(ran.report.counters.balanced(), "the counters do not balance: {:?}\n{ran}", ran.report.counters);
        ran
    }

    /// One client program of `tests/clients`.
    pub(crate) fn python(self, file: &str, arguments: &[&str]) -> Ran {
        let file = client(file);
        let line: Vec<&str> = [python(), &file].into_iter().chain(arguments.iter().copied()).collect();
        self.command(&line)
    }

    /// Several commands, one after the other in one session, each with its own exit code and time.
    pub(crate) fn steps(self, steps: &[Vec<String>]) -> (Ran, Vec<Step>) {
        let mut script = String::from("now() { echo \"@now $? $EPOCHREALTIME\"; }\nnow\n");
        for step in steps {
            let quoted: Vec<String> = step.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
            let _ = write!(script, "{} 2>&1\nnow\n", quoted.join(" "));
        }
        script.push_str("exit 0\n");
        let ran = self.command(&["bash", "-c", &script]);
        let results = results(&ran.stdout);
        assert_eq!(results.len(), steps.len(), "not every step ended\n{ran}");
        (ran, results)
    }

    fn trustrun(&self, folder: &Path, report: &Path) -> Command {
        let mut command = self.lab.command(env!("CARGO_BIN_EXE_trustrun"));
        command.arg("run").arg("--report").arg(report).arg("--db").arg(folder.join("events.db"));
        if let Some(text) = &self.policy {
            let path = folder.join("policy.yaml");
            fs::write(&path, text).expect("the policy is written");
            command.arg("--policy").arg(path);
        }
        command.args(&self.options);
        command
    }
}

/// Waits for a child; one that takes too long is asked to end, then made to. None if it had to be.
fn wait(mut child: Child, deadline: Duration) -> Option<ExitStatus> {
    let mut status = None;
    let mut ended = |time, child: &mut Child| {
        wait_until(time, || {
            status = child.try_wait().expect("a child to wait for");
            status.is_some()
        })
    };
    if !ended(deadline, &mut child) {
        // It passes this on to its own child, and then cleans up.
        let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        if !ended(Duration::from_secs(15), &mut child) {
            let _ = child.kill();
            let _ = child.wait();
        }
        return None;
    }
    status
}

/// The results between the lines that `steps` has written.
fn results(stdout: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut out, mut before) = (String::new(), None);
    for line in stdout.lines() {
        let Some(mark) = line.find("@now ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        out.push_str(&line[..mark]);
        let mut words = line[mark..].split(' ').skip(1);
        let code = words.next().and_then(|w| w.parse().ok()).expect("a code");
        let now: f64 = words.next().and_then(|w| w.replace(',', ".").parse().ok()).expect("a time");
        let text = std::mem::take(&mut out);
        if let Some(before) = before.replace(now) {
            steps.push(Step { code, text, took: Duration::from_secs_f64((now - before).max(0.0)) });
        }
    }
    steps
}

/// How one of several commands ended.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) code: i32,
    /// Standard output and error.
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl Step {
    /// The line of JSON that a client program printed.
    pub(crate) fn json(&self) -> serde_json::Value {
        json(&self.text)
    }

    pub(crate) fn errno(&self) -> Option<String> {
        self.json()["errno"].as_str().map(ToOwned::to_owned)
    }
}

fn json(text: &str) -> serde_json::Value {
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

/// Words as a step.
pub(crate) fn step(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A client program as a step.
pub(crate) fn python_step(file: &str, arguments: &[&str]) -> Vec<String> {
    let file = client(file);
    [python(), &file].into_iter().chain(arguments.iter().copied()).map(ToOwned::to_owned).collect()
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Report,
    /// Where report, policy and database are, until this goes.
    pub(crate) folder: tempfile::TempDir,
}

impl std::fmt::Display for Ran {
    /// For the message of a failed assertion.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} after {:?}\nstdout: {}\nstderr: {}", self.status, self.took, self.stdout, self.stderr)?;
        for d in self.report.destinations.iter().take(40) {
            let first = d.processes.first().map(|p| p.argv.join(" ")).unwrap_or_default();
            writeln!(
                f,
                "  {} {:?} {:?} sni {:?} {}:{} {} {:?} rule {:?} x{} {}/{} [{}: {first}]",
                d.action,
                d.host,
                d.evidence,
                d.sni,
                d.address,
                d.port,
                d.protocol,
                d.direction,
                d.rule,
                d.connections,
                d.bytes_sent,
                d.bytes_received,
                d.processes.len()
            )?;
        }
        for q in self.report.queries.iter().take(20) {
            writeln!(f, "  asked {} {} {} {} {:?} x{}", q.action, q.name, q.kind, q.resolver, q.answers, q.count)?;
        }
        for v in self.report.violations.iter().take(20) {
            writeln!(f, "  violation {v:?}")?;
        }
        writeln!(f, "  verdict {} gaps {:?}", self.report.verdict, self.report.gaps)?;
        write!(f, "  counters {:?}", self.report.counters)
    }
}

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json(&self.stdout)
    }

    pub(crate) fn errno(&self) -> Option<String> {
        self.json()["errno"].as_str().map(ToOwned::to_owned)
    }

    /// The command ended well, and nothing was outside the policy or missed.
    #[track_caller]
    pub(crate) fn passed(&self) -> &Self {
        assert_eq!(self.code(), Some(0), "{self}");
        self.verdict(Verdict::Pass)
    }

    #[track_caller]
    pub(crate) fn verdict(&self, verdict: Verdict) -> &Self {
        assert_eq!(self.report.verdict, verdict, "{self}");
        self
    }

    /// No gap of any kind: a `fail` may hide one.
    #[track_caller]
    pub(crate) fn no_gaps(&self) -> &Self {
        assert!(self.report.gaps.is_empty(), "{self}");
        self
    }

    pub(crate) fn gap(&self, kind: &str) -> u64 {
        self.report.gaps.iter().filter(|g| g.kind == kind).map(|g| g.count).sum()
    }

    /// The destinations at an address and port.
    pub(crate) fn to(&self, address: impl Into<IpAddr>, port: u16) -> Vec<&Destination> {
        let address = address.into();
        self.report.destinations.iter().filter(|d| d.address == address && d.port == port).collect()
    }

    /// The only destination at an address and port.
    #[track_caller]
    pub(crate) fn one(&self, address: impl Into<IpAddr>, port: u16) -> &Destination {
        let address = address.into();
        let found = self.to(address, port);
        let [one] = found[..] else { panic!("{} destinations at {address}:{port}\n{self}", found.len()) };
        one
    }

    pub(crate) fn violations_of(&self, address: impl Into<IpAddr>) -> Vec<&Violation> {
        let address = Some(address.into());
        self.report.violations.iter().filter(|v| v.address == address).collect()
    }

    /// Whether a lookup of this name was reported as refused.
    pub(crate) fn lookup_refused(&self, name: &str) -> bool {
        self.report.violations.iter().any(|v| v.protocol == "dns" && v.host.as_deref() == Some(name))
    }
}

/// Everything that arrived, once it all has.
#[track_caller]
pub(crate) fn arrived(lab: &Lab) -> Vec<Arrival> {
    assert!(lab.settle(Duration::from_secs(10)), "the lab did not settle: {:?}", lab.arrived());
    lab.arrived()
}

/// Nothing arrived at all.
#[track_caller]
pub(crate) fn nothing_arrived(lab: &Lab, ran: &Ran) {
    let all = arrived(lab);
    assert!(all.is_empty(), "arrived: {all:?}\n{ran}");
}

/// Whether `program` runs at all with these arguments in the lab without TrustRun.
pub(crate) fn works_bare(lab: &Lab, program: &str, arguments: &[&str]) -> bool {
    let mut command = lab.command(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok_and(|child| wait(child, Duration::from_secs(20)).is_some_and(|status| status.success()))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    OsString::from(path).to_string_lossy().into_owned()
}
