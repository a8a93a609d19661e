//! What the tests of `trustrun run` share that need no network of their own: one run in a folder of its own, its
//! processes, its report. A run that does not end in time is ended and fails the test.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

#[allow(clippy::duplicate_mod, reason = "a test that uses both kinds of help has it twice")]
#[path = "../kernels/mod.rs"]
mod kernels;
pub(crate) mod terminal;

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use serde_json::Value;
use trustrun_lab::{skip, wait_until};

/// The binary under test.
pub(crate) const TRUSTRUN: &str = env!("CARGO_BIN_EXE_trustrun");
/// How long a run may take that waits for nothing; two loaded cores with several sessions at once are slow.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Whether the kernel can be asked here; says so where not.
pub(crate) fn root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        skip("kernel programs need root");
    }
    root
}

/// Whether all these programs are there; says which is not.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|p| !trustrun_lab::have(p));
    if let Some(program) = missing {
        skip(&format!("{program} is not installed"));
    }
    missing.is_none()
}

/// A folder for one test: policy, database, report, events, and the child's own files.
pub(crate) struct Case {
    dir: tempfile::TempDir,
    /// Put between `trustrun run` and `--`.
    pub(crate) options: Vec<String>,
    /// Given to trustrun.
    pub(crate) environment: Vec<(String, String)>,
    /// What runs trustrun, such as a shell that changes the mounts first; `"$@"` is appended.
    pub(crate) shell: Option<String>,
}

impl Case {
    /// A case, or a skip without root.
    pub(crate) fn new() -> Option<Self> {
        root().then(Self::anyone)
    }

    /// A case that needs no root.
    pub(crate) fn anyone() -> Self {
        let dir = tempfile::Builder::new().prefix("trustrun-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, options: Vec::new(), environment: Vec::new(), shell: None }
    }

    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|o| (*o).to_owned()));
        self
    }

    /// With a policy of this text.
    pub(crate) fn policy(self, text: &str) -> Self {
        let path = self.file("policy.yaml", text);
        self.with(&["--policy", path.to_str().unwrap()])
    }

    /// Runs trustrun from a shell, `"$@"` being its command line.
    pub(crate) fn inside(mut self, shell: &str) -> Self {
        self.shell = Some(shell.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("state/events.db")
    }

    /// `trustrun run` with the case's files, ready to be spawned.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let mut words: Vec<std::ffi::OsString> = vec![TRUSTRUN.into(), "run".into()];
        for (option, file) in [("--db", self.db()), ("--report", self.path("report.json"))] {
            if !self.options.iter().any(|o| o == option) {
                words.extend([option.into(), file.into()]);
            }
        }
        words.extend(self.options.iter().map(Into::into));
        words.push("--".into());
        words.extend(command.iter().map(Into::into));
        let mut c = match &self.shell {
            Some(shell) => {
                let mut c = Command::new("sh");
                c.args(["-c", &format!("{shell}\n\"$@\""), "sh"]).args(&words);
                c
            }
            None => {
                let mut c = Command::new(&words[0]);
                c.args(&words[1..]);
                c
            }
        };
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            c.env_remove(name);
        }
        c.env("NO_COLOR", "1").env("DIR", self.folder()).current_dir(self.folder());
        c.envs(self.environment.iter().map(|(n, v)| (n, v)));
        c
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Ran {
        self.start(command).end()
    }

    /// Runs a shell script to its end.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        self.run(&["sh", "-c", script])
    }

    /// Starts a command; its output is gathered.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, command: &[S]) -> Running {
        Running::spawn(self.command(command).stdin(Stdio::null()), self.path("report.json"))
    }

    /// Another subcommand against the case's database.
    pub(crate) fn session(&self, words: &[&str]) -> Ran {
        let mut c = Command::new(TRUSTRUN);
        c.arg("session").args(words).arg("--db").arg(self.db()).stdin(Stdio::null());
        Running::spawn(&mut c, self.path("none.json")).end()
    }
}

/// A started program of ours.
pub(crate) struct Running {
    child: Child,
    outputs: [Option<JoinHandle<Vec<u8>>>; 2],
    report: PathBuf,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command, report: PathBuf) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, outputs: [Some(gather(out)), Some(gather(err))], report }
    }

    /// trustrun's own process, or the shell's that runs it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end of what goes to standard output; what went there.
    #[track_caller]
    pub(crate) fn stdout_ends(&mut self) -> String {
        let reader = self.outputs[0].take().unwrap();
        if !wait_until(SOON, || reader.is_finished()) {
            self.stop();
            panic!("somebody keeps standard output open");
        }
        String::from_utf8_lossy(&reader.join().unwrap()).into_owned()
    }

    fn stop(&mut self) {
        // A session's guard and engine end by themselves when the cgroup is empty.
        for pid in tree(self.id()).into_iter().rev() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    #[track_caller]
    pub(crate) fn end(self) -> Ran {
        self.end_within(SOON)
    }

    #[track_caller]
    pub(crate) fn end_within(mut self, most: Duration) -> Ran {
        let mut status = None;
        let ended = wait_until(most, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            self.stop();
        }
        // A process that outlives the session may hold the pipes.
        let mut texts = self.outputs.iter_mut().map(|o| {
            let o = o.take()?;
            wait_until(Duration::from_secs(5), || o.is_finished()).then(|| o.join().unwrap())
        });
        let (stdout, stderr) = (texts.next().flatten().unwrap_or_default(), texts.next().flatten().unwrap_or_default());
        drop(texts);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let Some(status) = status else { panic!("it did not end within {most:?}; stderr:\n{stderr}") };
        let report = fs::read(&self.report).ok().map(|text| kernels::look_past(serde_json::from_slice(&text).unwrap()));
        Ran { status, stdout, stderr, report }
    }
}

fn gather(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) report: Option<Value>,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}: {}\n{}", self.status, self.out(), self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "wanted {text:?} in:\n{}", self.stderr);
        self
    }

    /// The report, which must be there.
    #[track_caller]
    pub(crate) fn report(&self) -> &Value {
        self.report.as_ref().unwrap_or_else(|| panic!("no report; {}\n{}", self.status, self.stderr))
    }

    #[track_caller]
    pub(crate) fn verdict(&self, verdict: &str) -> &Self {
        assert_eq!(self.report()["verdict"], verdict, "{}\n{}", self.report()["gaps"], self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn session(&self) -> String {
        self.report()["session"]["id"].as_str().unwrap().to_owned()
    }

    /// Kinds of the report's gaps.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let gaps = self.report()["gaps"].as_array().unwrap();
        gaps.iter().map(|g| g["kind"].as_str().unwrap().to_owned()).collect()
    }
}

/// What `/proc` says of children, grandchildren and so on.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for child in children(pid) {
        all.push(child);
        all.extend(tree(child));
    }
    all
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// One field of `/proc/PID/status`.
pub(crate) fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Our processes of one session, as children of the trustrun that the test started.
pub(crate) struct Parts {
    pub(crate) foreground: u32,
    pub(crate) guard: u32,
    pub(crate) engine: u32,
}

impl Parts {
    /// Finds them; the command must be running.
    #[track_caller]
    pub(crate) fn of(foreground: u32) -> Self {
        let ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e == Path::new(TRUSTRUN));
        let guard = children(foreground).into_iter().find(ours).expect("a guard");
        let engine = children(guard).into_iter().find(ours).expect("an engine");
        Self { foreground, guard, engine }
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

pub(crate) fn gone(pid: u32) -> bool {
    let state = status(pid, "State");
    state.is_empty() || state.starts_with('Z')
}

#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    assert!(wait_until(SOON, || path.exists()), "{} did not come", path.display());
}

/// What a session left: its cgroup and its pinned links.
pub(crate) fn left_behind(session: &str) -> Vec<String> {
    let places = cgroups(session).into_iter().chain([Path::new(PINS).join(session)]);
    places.filter(|p| p.exists()).map(|p| p.display().to_string()).collect()
}

const PINS: &str = "/sys/fs/bpf/trustrun";

/// Where a session's cgroup is, if it is. Under systemd it is in a scope, which itself is systemd's to remove.
pub(crate) fn cgroups(session: &str) -> Vec<PathBuf> {
    let scope = format!("trustrun-{session}.scope");
    let places = cgroup2().into_iter().flat_map(|mount| {
        let scope = folder_named(&mount, &scope).map(|scope| scope.join("session"));
        scope.into_iter().chain([mount.join("trustrun").join(session)])
    });
    places.filter(|place| place.exists()).collect()
}

/// The sessions of this machine: of each there is a cgroup or a folder of pinned links.
pub(crate) fn sessions() -> Vec<String> {
    let folders = cgroup2().into_iter().map(|m| m.join("trustrun")).chain([PINS.into()]);
    let entries = folders.flat_map(|f| fs::read_dir(f).into_iter().flatten().flatten());
    let folders = entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = folders.collect();
    cgroup2().iter().for_each(|mount| scopes(mount, &mut found));
    found
}

/// The sessions of all scopes below a folder.
fn scopes(below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_prefix("trustrun-").and_then(|name| name.strip_suffix(".scope")) {
            Some(session) if entry.path().join("session").exists() => found.push(session.to_owned()),
            _ if entry.file_type().is_ok_and(|kind| kind.is_dir()) => scopes(&entry.path(), found),
            _ => {}
        }
    }
}

/// The folder of this name anywhere below another.
fn folder_named(below: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(below).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    folders.into_iter().find_map(|e| if e.file_name() == name { Some(e.path()) } else { folder_named(&e.path(), name) })
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = text.lines().filter_map(|l| l.split_once(" - ").filter(|(_, after)| after.starts_with("cgroup2 ")));
    lines.filter_map(|(mount, _)| mount.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// A listener outside every session that never answers: whoever arrives was not refused.
pub(crate) struct FarEnd {
    listener: TcpListener,
}

impl FarEnd {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// How many arrived since it was last asked. A connection on loopback that was made is here at once.
    pub(crate) fn arrived(&self) -> usize {
        std::iter::from_fn(|| self.listener.accept().ok()).count()
    }

    /// A bash script that connects, for a `sh -c`: exits with 0 if it could.
    pub(crate) fn connect(&self) -> String {
        format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}' 2>/dev/null", self.port())
    }
}

pub(crate) const BLOCK: &str = "version: 1\nname: none\ndefault: block\n";
