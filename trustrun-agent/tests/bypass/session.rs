//! Runs programs of the suite in the lab: bare, or in a strict session.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use trustrun_lab::{Lab, wait_until};
use trustrun_model::Report;

use crate::programs::Programs;
use crate::way::{User, Way, address, address6, token};

/// What may be reached: one address with its sinks, and names under `allowed.test`.
const POLICY: &str = "version: 1\nname: bypass\ndefault: block\nrules:\n  - name: the rule\n    allow: \
    [\"203.0.113.10:9\", \"udp/203.0.113.10:9\", \"udp/[2001:db8::10]:9\", \"api.allowed.test:443\", \
    \"api.allowed.test:80\", \"*.wild.allowed.test:443\", \"*.names.test:9\", \"*.names.example.org:9\", \"*.hostile.test:9\", \
    \"203.0.113.80:3128\", \"203.0.113.80:1080\"]\n";
/// For all ways of a session together.
const DEADLINE: Duration = Duration::from_secs(180);

/// What the programs said, by the way's number: exit code and text.
pub(crate) type Said = HashMap<usize, (i32, String)>;

/// How a run under TrustRun ended.
pub(crate) struct Session {
    pub(crate) said: Said,
    /// None if the agent did not live to write it.
    pub(crate) report: Option<Report>,
    /// TrustRun's own words.
    pub(crate) stderr: String,
    /// It refused to start the command (exit code 125).
    pub(crate) refused_to_start: bool,
}

fn run_as(user: User) -> &'static [&'static str] {
    match user {
        User::Ordinary => &["--run-as", "nobody"],
        User::Root => &[],
    }
}

/// A folder that everybody may write to, inside and outside, and empty but for what a run left there.
pub(crate) fn shared(lab: &Lab) -> PathBuf {
    let dir = lab.folder().join("out");
    for folder in [dir.clone(), dir.join("spool")] {
        fs::create_dir_all(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("a folder for everybody");
    }
    dir
}

/// The ways' lines, one after the other, each with the marks that `said` looks for.
fn script(lab: &Lab, programs: &Programs, user: User, ways: &[(usize, &Way)]) -> PathBuf {
    let dir = shared(lab);
    let mut text = String::new();
    for (number, way) in ways {
        let line = filled(lab, programs, user, *number, way.line).replace('\'', "'\\''");
        text += &format!(
            "echo; echo '@begin {number}'; timeout -k 1 10 sh -c '{line}' 2>&1; code=$?; echo; echo \"@end $code\"\n"
        );
    }
    text += &format!(": > {}\nexit 0\n", dir.join("done").display());
    let path = dir.join("script");
    fs::write(&path, text).expect("the script is written");
    path
}

/// A line with its words filled in.
pub(crate) fn filled(lab: &Lab, programs: &Programs, user: User, number: usize, line: &str) -> String {
    let places = [
        ("{forged}", crate::ways::names::forged()),
        ("{to}", address(number).to_string()),
        ("{to6}", address6(number).to_string()),
        ("{token}", token(number)),
        ("{bin}", programs.bin().display().to_string()),
        ("{dir}", lab.folder().join("out").display().to_string()),
        ("{uid}", user.uid().to_string()),
        ("{many}", many()),
        // For what all tests of this machine share.
        ("{key}", (std::process::id() * 200 + number_of(number) * 2 + u32::from(user == User::Root)).to_string()),
    ];
    places.iter().fold(line.to_owned(), |line, (place, value)| line.replace(place, value))
}

/// How many are a flood; fewer where the processor is emulated.
fn many() -> String {
    std::env::var("TRUSTRUN_BYPASS_MANY").unwrap_or_else(|_| "150000".to_owned())
}

fn number_of(way: usize) -> u32 {
    u32::try_from(way).expect("few ways")
}

/// The shell's line that runs `"$@"`, after what the ways want to be done outside.
fn before(lab: &Lab, programs: &Programs, user: User, ways: &[(usize, &Way)]) -> String {
    let lines = ways.iter().map(|(number, way)| filled(lab, programs, user, *number, way.before));
    lines.filter(|line| !line.is_empty()).map(|line| line + "\n").collect::<String>() + "exec \"$@\""
}

/// Without TrustRun: what works on this machine at all.
pub(crate) fn run_bare(lab: &Lab, programs: &Programs, user: User, ways: &[(usize, &Way)]) -> Said {
    let path = script(lab, programs, user, ways);
    let mut command = match user {
        User::Root => lab.command("bash"),
        User::Ordinary => lab.command_as(user.uid(), user.uid(), "bash"),
    };
    command.args(["-c", &before(lab, programs, user, ways), "bash", "sh"]).arg(path);
    let (stdout, ..) = to_the_end(lab, command);
    said(&stdout)
}

/// In a strict session.
pub(crate) fn run_inside(lab: &Lab, programs: &Programs, user: User, ways: &[(usize, &Way)]) -> Session {
    let path = script(lab, programs, user, ways);
    let policy = lab.folder().join("policy.yaml");
    fs::write(&policy, POLICY).expect("the policy is written");
    let state = tempfile::tempdir().expect("a temporary folder");
    let report = state.path().join("report.json");
    let mut command = lab.command("bash");
    command.args(["-c", &before(lab, programs, user, ways), "bash", env!("CARGO_BIN_EXE_trustrun"), "run"]);
    command.arg("--policy").arg(policy).arg("--report").arg(&report).arg("--db").arg(state.path().join("events.db"));
    command.arg("--strict").args(run_as(user)).args(["--", "sh"]).arg(path);
    let (stdout, stderr, code) = to_the_end(lab, command);
    let report = fs::read(&report).ok().map(|bytes| serde_json::from_slice::<Report>(&bytes).expect("a report"));
    if let Some(report) = &report {
        assert!(report.counters.balanced(), "the counters do not balance: {:?}\n{stderr}", report.counters);
    }
    Session { said: said(&stdout), report, stderr, refused_to_start: code == Some(125) }
}

/// Standard output, standard error, exit code.
fn to_the_end(lab: &Lab, mut command: Command) -> (String, String, Option<i32>) {
    let (out, err) = (lab.folder().join("stdout"), lab.folder().join("stderr"));
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
    let mut child = command.spawn().expect("bash starts");
    let mut status = None;
    let ended = wait_until(DEADLINE, || {
        status = child.try_wait().expect("a child to wait for");
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
    }
    // The program may outlive an agent that it ended. One that ended itself is not waited for long.
    let done = shared(lab).join("done");
    let code = status.and_then(|status| status.code());
    if code != Some(125) {
        wait_until(Duration::from_secs(3), || done.exists());
    }
    let _ = fs::remove_file(&done);
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let (out, err) = (text(out), text(err));
    assert!(ended, "{command:?} did not end within {DEADLINE:?}\n{out}\n{err}");
    (out, err, code)
}

/// What stands between the marks. A way that ended the script itself has no end: code -1.
fn said(stdout: &str) -> Said {
    let mut found = Said::new();
    let mut number = None;
    for line in stdout.lines().map(str::trim_end) {
        if let Some(n) = line.strip_prefix("@begin ").and_then(|n| n.parse().ok()) {
            number = Some(n);
            found.insert(n, (-1, String::new()));
        } else if let Some(entry) = number.and_then(|n| found.get_mut(&n)) {
            match line.strip_prefix("@end ").and_then(|code| code.parse().ok()) {
                Some(code) => entry.0 = code,
                None if !line.is_empty() => entry.1 = format!("{} {line}", entry.1).trim_start().to_owned(),
                None => {}
            }
        }
    }
    found
}
