//! What of the machine a command under an enforcing policy finds: its own `/run`, no service's socket, no process
//! outside; and that one under an observing policy finds everything.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::harness::{BLOCK, Case, Ran, Running, have};

/// Says of each path (or `@name`) whether it can be connected to: `open`, or the error's number.
const KNOCK: &str = r#"
import socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect("\0" + path[1:] if path.startswith("@") else path)
        print(path, "open")
    except OSError as e:
        print(path, e.errno)
"#;
const EPERM: &str = "1";
const ENOENT: &str = "2";
const ECONNREFUSED: &str = "111";

/// A service with a socket in a folder that is mounted at `/run` for the case, and seen in its own place too.
struct Service {
    case: Case,
    _listeners: Vec<UnixListener>,
}

impl Service {
    fn new(policy: &str) -> Option<Self> {
        let case = Case::new()?.policy(policy);
        if !have(&["python3"]) {
            return None;
        }
        let listeners = ["run/dbus", "run/app", "run/nslcd", "srv"].map(|folder| {
            let folder = case.path(folder);
            fs::create_dir_all(&folder).unwrap();
            UnixListener::bind(folder.join("socket")).unwrap()
        });
        fs::write(case.path("run/resolv.conf"), "nameserver 127.0.0.9\n").unwrap();
        let inside = r#"exec unshare -m sh -c 'mount --bind "$DIR/run" /run && exec "$@"' sh \"#;
        Some(Self { case: case.inside(inside), _listeners: listeners.into() })
    }

    fn knock(&self, paths: &[&str]) -> Ran {
        let mut words = vec!["python3", "-c", KNOCK];
        words.extend(paths);
        self.case.run(&words)
    }

    fn path(&self, name: &str) -> String {
        self.case.path(name).to_str().unwrap().into()
    }
}

#[track_caller]
fn answers(ran: &Ran, expected: &[(&str, &str)]) {
    let expected: String = expected.iter().map(|(path, answer)| format!("{path} {answer}\n")).collect();
    assert_eq!(ran.exits(0).out(), expected, "{}", ran.stderr);
}

/// Whether the kernel tells of unix sockets (Linux 6.3).
fn sees_unix(ran: &Ran) -> bool {
    let hooks = ran.report()["coverage"]["hooks"].as_array().unwrap();
    let sees = hooks.iter().any(|h| h["name"] == "unix_peer");
    if !sees {
        trustrun_lab::skip("the kernel does not tell of unix sockets: Linux 6.3 does");
    }
    sees
}

/// Whether what would go over the border is refused (BPF LSM).
fn guarded(ran: &Ran) -> bool {
    let locks = ran.report()["coverage"]["locks"].as_array().unwrap();
    locks.iter().any(|l| l["name"] == "unix-border" && l["held"] == true)
}

fn lock(ran: &Ran, name: &str) -> bool {
    let locks = ran.report()["coverage"]["locks"].as_array().unwrap();
    let found = locks.iter().find(|l| l["name"] == name).unwrap_or_else(|| panic!("no lock {name}"));
    found["held"].as_bool().unwrap()
}

#[test]
fn no_service_of_the_machine_is_reached_over_a_path() {
    let Some(service) = Service::new(BLOCK) else { return };
    let (srv, same) = (service.path("srv/socket"), service.path("run/app/socket"));
    let ran = service.knock(&["/run/dbus/socket", "/var/run/dbus/socket", &srv, &same, "/run/nslcd/socket"]);
    let gone = ENOENT;
    answers(
        &ran,
        &[
            ("/run/dbus/socket", gone),
            ("/var/run/dbus/socket", gone),
            // Elsewhere it stays visible, and refuses: under any path that its file system has.
            (&srv, ECONNREFUSED),
            (&same, ECONNREFUSED),
            // Users and groups are looked up there.
            ("/run/nslcd/socket", "open"),
        ],
    );
    ran.verdict("pass");
    assert!(ran.report()["limits"].to_string().contains("user-database"));
    assert!(lock(&ran, "private-run") && lock(&ran, "unix-sockets"));
}

#[test]
fn a_service_that_knows_its_socket_by_another_path_is_found() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let real = case.path("real");
    fs::create_dir(&real).unwrap();
    // One with a relative path, one whose own /mnt is that folder.
    let serve = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); \
                 open(sys.argv[2], 'w').close(); time.sleep(600)";
    let script = r#"cd "$REAL" && python3 -c "$SERVE" relative begun1 & exec unshare -m sh -c '
        mount --bind "$REAL" /mnt && exec python3 -c "$SERVE" /mnt/elsewhere /mnt/begun2'"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("REAL", &real).env("SERVE", serve).process_group(0);
    let service = Group(command.stdin(Stdio::null()).spawn().unwrap());
    crate::harness::wait_for(&real.join("begun1"));
    crate::harness::wait_for(&real.join("begun2"));
    let [relative, elsewhere] = ["relative", "elsewhere"].map(|n| real.join(n).to_str().unwrap().to_owned());
    let words = ["python3", "-c", KNOCK, &relative, &elsewhere];
    let ran = case.run(&words);
    answers(&ran, &[(&relative, "open"), (&elsewhere, "open")]);
    let ran = Case::anyone().policy(BLOCK).run(&words);
    answers(&ran, &[(&relative, ECONNREFUSED), (&elsewhere, ECONNREFUSED)]);
    assert!(lock(&ran, "unix-sockets"));
    drop(service);
}

/// A process group that ends with the test.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn an_observing_session_finds_every_service() {
    let Some(service) = Service::new("version: 1\ndefault: alert\n") else { return };
    let srv = service.path("srv/socket");
    let ran = service.knock(&["/run/dbus/socket", &srv]);
    answers(&ran, &[("/run/dbus/socket", "open"), (&srv, "open")]);
    assert_eq!(ran.report()["coverage"]["locks"].as_array().unwrap().len(), 0);
    if sees_unix(&ran) {
        // Nobody can tell what the service does for it, so that is no pass.
        assert_eq!(ran.gaps(), ["root-target", "unix-socket-outside"]);
        ran.verdict("incomplete").says("run/dbus/socket, a socket of a process");
    }
}

#[test]
fn the_policy_lets_named_sockets_in_and_the_report_says_so() {
    let policy = "version: 1\ndefault: block\nunix_sockets: [/run/app, /run/not-there]\n";
    let Some(service) = Service::new(policy) else { return };
    let same = service.path("run/app/socket");
    let ran = service.knock(&["/run/app/socket", "/run/dbus/socket"]);
    answers(&ran, &[("/run/app/socket", "open"), ("/run/dbus/socket", ENOENT)]);
    ran.verdict("pass");
    let limits = ran.report()["limits"].to_string();
    assert!(limits.contains("allowed-sockets") && limits.contains("/run/app"), "{limits}");
    // The same file under another path is not what was named.
    answers(&service.knock(&[&same]), &[(&same, ECONNREFUSED)]);
}

#[test]
fn abstract_sockets_of_others_are_refused_and_its_own_are_not() {
    use std::os::linux::net::SocketAddrExt as _;
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let name = format!("trustrun-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let own = "import socket; l = socket.socket(socket.AF_UNIX); l.bind('\\0own-of-it'); l.listen()";
    let script = format!("{own}\n{KNOCK}");
    let theirs = format!("@{name}");
    let ran = case.policy(BLOCK).run(&["python3", "-c", &script, "@own-of-it", &theirs]);
    if !lock(&ran, "abstract-sockets") {
        trustrun_lab::skip("abstract sockets need Landlock of Linux 6.12");
        return;
    }
    answers(&ran, &[("@own-of-it", "open"), (&theirs, EPERM)]);
    ran.verdict("pass");
}

#[test]
fn a_socket_that_somebody_makes_later_is_a_gap() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let case = case.policy(BLOCK).with(&["--run-as", "nobody"]);
    let shared = case.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let wait = r#": > "$DIR/shared/begun"; until [ -S "$DIR/shared/helper" ]; do sleep 0.01; done"#;
    let script = format!(r#"{wait}; exec python3 -c "$KNOCK" "$DIR/shared/helper""#);
    let case = case.env("KNOCK", KNOCK);
    let running = case.start(&["sh", "-c", &script]);
    crate::harness::wait_for(&shared.join("begun"));
    let helper = shared.join("helper");
    let _listener = UnixListener::bind(shared.join("new")).unwrap();
    fs::set_permissions(shared.join("new"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::rename(shared.join("new"), &helper).unwrap();
    let ran = running.end();
    if guarded(&ran) {
        answers(&ran, &[(helper.to_str().unwrap(), EPERM)]);
        ran.verdict("pass");
        return;
    }
    answers(&ran, &[(helper.to_str().unwrap(), "open")]);
    if sees_unix(&ran) {
        assert_eq!(ran.gaps(), ["unix-socket-outside"]);
        ran.verdict("incomplete");
    }
}

#[test]
fn somebody_outside_who_sends_to_its_socket_is_a_gap() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let script = r#"
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("part"); os.rename("part", "inbox")
while not os.path.exists("sent"): time.sleep(0.01)
s.setblocking(False)
try: print(s.recv(9).decode())
except BlockingIOError: print("nothing")
"#;
    let case = case.policy(BLOCK);
    let running = case.start(&["python3", "-c", script]);
    crate::harness::wait_for(&case.path("inbox"));
    let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let sent = sender.send_to(b"data", case.path("inbox"));
    case.file("sent", "");
    let ran = running.end();
    if guarded(&ran) {
        assert_eq!((sent.is_err(), ran.exits(0).out().as_str()), (true, "nothing\n"));
        ran.verdict("pass").says("part, a socket of the session, and was refused");
        return;
    }
    assert_eq!(ran.exits(0).out(), "data\n");
    if sees_unix(&ran) {
        assert_eq!(ran.gaps(), ["unix-socket-outside"]);
        ran.verdict("incomplete").says("part, a socket of the session, was sent to by a process outside");
    }
}

#[test]
fn its_own_sockets_and_those_that_nobody_listens_at_are_no_gap() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let script = r#"
import os, socket
a, b = socket.socketpair()
if os.fork() == 0:
    b.send(b"x"); os._exit(0)
a.recv(1); os.wait()
l = socket.socket(socket.AF_UNIX); l.bind("own"); l.listen()
c = socket.socket(socket.AF_UNIX); c.connect("own"); k, _ = l.accept(); k.send(b"1"); c.send(b"2")
for path in ("nobody", "/run/nscd/socket", "/dev/log", "\0nobody"):
    try: socket.socket(socket.AF_UNIX).connect(path)
    except OSError as e: print(e.errno)
"#;
    // Root, whom nothing holds when only observing, could do other things.
    for (options, gaps) in [(&[][..], &[][..]), (&["--observe"], &["root-target"])] {
        let case = Case::anyone().policy("version: 1\ndefault: block\n").with(options);
        let ran = case.run(&["python3", "-c", script]);
        assert_eq!(ran.exits(0).out().lines().count(), 4);
        assert_eq!(ran.gaps(), gaps);
    }
    drop(case);
}

#[test]
fn its_run_has_a_runtime_folder_of_its_user_and_the_resolvers_file() {
    let Some(service) = Service::new(BLOCK) else { return };
    let case = service.case;
    // As systemd-resolved and resolvconf do it.
    let inside = r#"umask 077; exec unshare -m sh -c 'mount --bind "$DIR/run" /run && : > "$DIR/l" &&
        mount --bind "$DIR/etc" /etc && exec "$@"' sh \"#;
    let etc = case.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    for file in ["passwd", "group", "nsswitch.conf"] {
        fs::copy(PathBuf::from("/etc").join(file), etc.join(file)).unwrap();
    }
    std::os::unix::fs::symlink("../run/resolv.conf", etc.join("resolv.conf")).unwrap();
    let case = case.inside(inside).with(&["--run-as", "nobody"]).env("XDG_RUNTIME_DIR", "/run/user/0");
    let script = r#"stat -c '%a %u' "$XDG_RUNTIME_DIR" && touch "$XDG_RUNTIME_DIR/x" && cat /etc/resolv.conf && ls -d /run/[n-z]*"#;
    let ran = case.sh(script);
    assert_eq!(ran.exits(0).out(), "700 65534\nnameserver 127.0.0.9\n/run/nslcd\n/run/resolv.conf\n/run/user\n");
    assert!(!case.path("run/user").exists(), "the machine's own is as it was");
}

#[test]
fn a_working_folder_in_the_old_run_is_no_way_around_the_new_one() {
    let Some(service) = Service::new("version: 1\ndefault: block\nunix_sockets: [/run/app]\n") else { return };
    let inside = |folder: &str| {
        format!(r#"exec unshare -m sh -c 'mount --bind "$DIR/run" /run && cd /run/{folder} && exec "$@"' sh \"#)
    };
    let case = service.case.inside(&inside("app"));
    let ran = case.run(&["python3", "-c", KNOCK, "socket", "../dbus/socket"]);
    answers(&ran, &[("socket", "open"), ("../dbus/socket", ENOENT)]);
    let ran = case.inside(&inside("dbus")).run(&["python3", "-c", KNOCK, "socket"]);
    ran.exits(125).says("the working folder /run/dbus is not in the command's own /run");
    assert_eq!(ran.out(), "");
}

/// A process of the user `nobody` outside every session.
struct Outsider(Child);

impl Outsider {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").uid(65534).gid(65534).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn processes_of_the_same_user_outside_are_out_of_reach() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let outsider = Outsider::new();
    let script = format!(
        r#"
import ctypes, os, signal, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, f):
    try: f(); print(what, "done")
    except OSError as e: print(what, e.errno)
def call(*a):
    if libc.syscall(*a) < 0: raise OSError(ctypes.get_errno(), "")
them = {}
own = subprocess.Popen(["sleep", "600"])
for who, pid in (("them", them), ("own", own.pid)):
    attempt(who + " root", lambda: os.listdir(f"/proc/{{pid}}/root"))
    attempt(who + " mem", lambda: open(f"/proc/{{pid}}/mem", "rb"))
    attempt(who + " kill", lambda: os.kill(pid, signal.SIGTERM))
fd = os.pidfd_open(them)
attempt("getfd", lambda: call(438, fd, 0, 0))
"#,
        outsider.0.id()
    );
    let ran = case.policy(BLOCK).with(&["--run-as", "nobody"]).run(&["python3", "-c", &script]);
    if !lock(&ran, "signals") {
        trustrun_lab::skip("scopes need Landlock of Linux 6.12");
        return;
    }
    let out = ran.exits(0).out();
    let expected = "them root 13\nthem mem 13\nthem kill 1\nown root done\nown mem done\nown kill done\ngetfd 1\n";
    assert_eq!(out, expected, "{}", ran.stderr);
    // Without the locks all of it is done.
    let ran = Case::anyone().with(&["--run-as", "nobody"]).run(&["python3", "-c", &script]);
    assert!(ran.out().starts_with("them root done\nthem mem done\nthem kill done\n"), "{}\n{}", ran.out(), ran.stderr);
}

#[test]
fn a_user_namespace_of_its_own_uncovers_nothing() {
    let Some(service) = Service::new(BLOCK) else { return };
    if !have(&["unshare"]) {
        return;
    }
    let case = service.case.with(&["--run-as", "nobody"]);
    let srv = case.path("srv/socket");
    // Root there, with every capability over mounts: that is what the filter is for.
    let script = r#"unshare -Ur sh -c 'umount /run && echo out; umount "$0" && echo out
        mount -t tmpfs t /mnt && echo out; ls -d /run/dbus && echo out' "$DIR/srv/socket" 2>/dev/null"#;
    let ran = case.sh(script);
    assert_eq!(ran.out(), "", "{}", ran.stderr);
    assert!(srv.exists());
}

#[test]
fn strict_wants_every_lock_and_then_the_session_is_contained() {
    let Some(case) = Case::new() else { return };
    let ran = case.sh("exit 0");
    assert_eq!(ran.exits(0).report()["session"]["assurance"], "observed");
    let ran = Case::anyone().policy(BLOCK).sh("exit 0");
    assert_eq!(ran.exits(0).report()["session"]["assurance"], "enforced");
    assert!(!lock(&ran, "ordinary-user") && lock(&ran, "seccomp"));
    // Root is never contained, and strict does what can be done.
    let ran = Case::anyone().with(&["--strict"]).sh("exit 0");
    assert_eq!(ran.exits(0).report()["session"]["assurance"], "enforced");
    assert!(!lock(&ran, "ordinary-user") && lock(&ran, "seccomp"));
    let kinds = ran.report()["limits"].to_string();
    assert!(kinds.contains("root-target"), "{kinds}");
    let case = Case::anyone().with(&["--strict", "--run-as", "nobody"]);
    let ran = case.sh("exit 7");
    if ran.status.code() == Some(125) {
        ran.says("--strict wants every lock");
        trustrun_lab::skip("this kernel does not have every lock");
        return;
    }
    assert_eq!(ran.exits(7).verdict("pass").report()["session"]["assurance"], "contained");
    let locks = ran.report()["coverage"]["locks"].as_array().unwrap();
    assert!(locks.len() > 9 && locks.iter().all(|l| l["held"] == true && l["reason"].is_null()), "{locks:?}");
}

#[test]
fn a_network_socket_from_outside_is_refused_or_told() {
    let Some(case) = Case::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let run = |case: &Case| {
        let mut command = case.command(&["sh", "-c", "echo data >&0"]);
        Running::spawn(command.stdin(std::os::fd::OwnedFd::from(connect())), case.path("report.json")).end()
    };
    let arrived = || {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    };
    run(&case.policy(BLOCK)).exits(125).says("standard input is a network socket that was opened outside");
    assert_eq!(arrived(), "");
    for options in [&["--observe"][..], &["--best-effort"]] {
        let ran = run(&Case::anyone().policy(BLOCK).with(options));
        assert!(ran.exits(0).gaps().contains(&"socket-from-outside".to_owned()), "{:?}", ran.gaps());
        ran.verdict("incomplete");
        assert_eq!(arrived(), "data\n");
    }
}

#[test]
fn pipes_and_unix_sockets_as_standard_descriptors_are_a_limit() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = case.command(&["sh", "-c", "echo data >&0"]);
    command.stdin(std::os::fd::OwnedFd::from(theirs));
    let ran = Running::spawn(&mut command, case.path("report.json")).end();
    drop(command);
    ran.exits(0).verdict("pass");
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "data\n");
    let limits = ran.report()["limits"].to_string();
    assert!(limits.contains("standard input, standard output, standard error lead to processes outside"), "{limits}");
}

#[test]
fn a_user_keeps_files_that_others_see() {
    let Some(case) = Case::new() else { return };
    let folder = case.path("shared");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(65534), Some(65534)).unwrap();
    let case = case.policy(BLOCK).with(&["--run-as", "nobody"]);
    // Links and renames between folders are what a Landlock domain could take away.
    let ran = case.sh(r#"cd "$DIR/shared" && mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && rm -r b"#);
    ran.exits(0);
    assert_eq!(case.read("shared/a/g"), "x\n");
}
