//! Fail closed, always: our processes stopped, out of memory, or too slow for what they are told. What was blocked stays
//! blocked, what was allowed keeps working, and nothing that was lost is ever a pass. (`failure.rs` has killed
//! processes, databases and disks.)
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{fs, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use harness::{BLOCK, Case, FarEnd, Parts, Ran, Running, SOON, gone, have, left_behind, send, status, wait_for};
use nix::sys::signal::Signal;
use trustrun_lab::{skip, wait_until};

/// A session under way whose command waits for `go`: one place is allowed and one refused, both are looked at.
struct Scene {
    case: Case,
    allowed: FarEnd,
    refused: FarEnd,
    running: Running,
    parts: Parts,
}

impl Scene {
    /// Starts `work(allowed, refused)` with these options; `None` after a skip.
    fn begin(options: &[&str], work: impl Fn(u16, u16) -> String) -> Option<Self> {
        let case = have(&["python3", "prlimit"]).then(Case::new).flatten()?;
        Some(Self::of(case.with(options), work))
    }

    fn of(case: Case, work: impl Fn(u16, u16) -> String) -> Self {
        let (allowed, refused) = (FarEnd::new(), FarEnd::new());
        let case = case.policy(&only(allowed.port()));
        let running = case.start(&["python3", "-c", &program(&work(allowed.port(), refused.port()))]);
        wait_for(&case.path("up"));
        let parts = Parts::of(running.id());
        Self { case, allowed, refused, running, parts }
    }

    /// Lets the command do its work; it is done when this returns.
    fn work(&self) {
        self.case.file("go", "");
        wait_for(&self.case.path("done"));
    }

    /// What was allowed got through and what was refused did not, in the command's eyes and at the far ends.
    #[track_caller]
    fn guarded(&self) {
        let arrived = (self.allowed.arrived(), self.refused.arrived());
        assert_eq!((self.case.read("result"), arrived), ("[True, False]".into(), (1, 0)));
    }

    /// Lets the command end.
    #[track_caller]
    fn end(self) -> (Case, Parts, Ran) {
        self.case.file("stop", "");
        let ran = self.running.end_within(3 * SOON);
        ran.exits(3);
        (self.case, self.parts, ran)
    }
}

/// Python that tries both places.
fn try_both(allowed: u16, refused: u16) -> String {
    format!("say('result', [tcp({allowed}), tcp({refused})])\n")
}

/// Python that sends to 119,998 peers, each of which is a connection.
const FLOOD: &str = "u = socket.socket(type=socket.SOCK_DGRAM)\n\
    for host in ('127.0.0.1', '127.0.0.2'):\n    for port in range(1, 60000):\n        u.sendto(b'x', (host, port))\n";

/// A python program that says `up`, waits for `go`, does `work`, says `done`, and waits for `stop`. It ends with 3.
/// `tcp(port)` says whether it was let through.
fn program(work: &str) -> String {
    format!(
        r#"
import os, socket, sys, time
here = os.environ["DIR"]
def say(name, text=""):
    with open(f"{{here}}/{{name}}.new", "w") as f:
        f.write(str(text))
    os.rename(f"{{here}}/{{name}}.new", f"{{here}}/{{name}}")
def wait(name):
    while os.path.isdir(here) and not os.path.exists(f"{{here}}/{{name}}"):
        time.sleep(0.02)
def tcp(port):
    with socket.socket() as s:
        s.settimeout(20)
        try:
            s.connect(("127.0.0.1", port))
            return True
        except ConnectionRefusedError:
            return True
        except PermissionError:
            return False
say("up")
wait("go")
{work}
say("done")
wait("stop")
sys.exit(3)
"#
    )
}

/// Nothing but this port of loopback, over TCP and UDP.
fn only(port: u16) -> String {
    format!("version: 1\nname: one\ndefault: block\nrules:\n  - allow: [\"127.0.0.1:{port}\", \"udp/127.0.0.0/8\"]\n")
}

/// `emitted = stored + dropped`, and nothing was lost in silence: a report that dropped anything does not pass.
#[track_caller]
fn balanced(ran: &Ran) -> u64 {
    let counters = &ran.report()["counters"];
    let count = |v: &serde_json::Value| v.as_u64().unwrap();
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(count).sum();
    assert_eq!(count(&counters["emitted"]), count(&counters["stored"]) + dropped, "{counters}");
    assert!(dropped == 0 || ran.report()["verdict"] != "pass", "{counters}");
    dropped
}

#[test]
fn with_a_stopped_guard_blocked_stays_blocked_and_allowed_works() {
    let Some(scene) = Scene::begin(&[], try_both) else { return };
    send(scene.parts.guard, Signal::SIGSTOP);
    scene.work();
    scene.guarded();
    send(scene.parts.guard, Signal::SIGCONT);
    let (_, _, ran) = scene.end();
    ran.verdict("fail");
    assert_eq!(balanced(&ran), 0);
    assert!(ran.gaps().is_empty(), "{}", ran.report()["gaps"]);
}

#[test]
fn an_engine_that_stays_stopped_is_given_up_and_nothing_passes() {
    // More peers than words fit into the channel to the engine: each would wait for it.
    let flood = "u = socket.socket(type=socket.SOCK_DGRAM)\n\
                 for port in range(20000, 20600):\n    u.sendto(b'x', ('127.0.0.1', port))\n";
    let Some(scene) = Scene::begin(&[], |a, r| flood.to_owned() + &try_both(a, r)) else { return };
    send(scene.parts.engine, Signal::SIGSTOP);
    scene.work();
    scene.guarded();
    let (_, parts, ran) = scene.end();
    ran.says("INCOMPLETE").says("engine").verdict("incomplete");
    assert_eq!(ran.gaps(), ["agent-lost"]);
    assert!(gone(parts.engine) && gone(parts.guard));
    assert!(left_behind(&ran.session()).is_empty());
}

#[test]
fn what_a_small_ring_loses_is_counted_and_never_a_pass() {
    // Allowed traffic alone: without the loss this would be a pass.
    let work = "u = socket.socket(type=socket.SOCK_DGRAM)\n\
                for port in range(20000, 24000):\n    u.sendto(b'x', ('127.0.0.1', port))\n";
    let Some(scene) = Scene::begin(&["--ring-bytes", "65536"], |_, _| work.into()) else { return };
    send(scene.parts.engine, Signal::SIGSTOP);
    scene.work();
    send(scene.parts.engine, Signal::SIGCONT);
    assert_eq!((scene.allowed.arrived(), scene.refused.arrived()), (0, 0));
    let (_, _, ran) = scene.end();
    ran.says("INCOMPLETE").verdict("incomplete");
    assert!(ran.gaps().contains(&"events-dropped".to_owned()), "{}", ran.report()["gaps"]);
    assert!(balanced(&ran) > 2000);
    assert!(ran.report()["counters"]["dropped"]["ring"].as_u64().unwrap() > 2000);
}

#[test]
fn a_ring_that_overflows_refuses_nothing_allowed_and_allows_nothing_refused() {
    // The engine runs, and cannot keep up.
    let work = |a, r| format!("for _ in range(3000):\n    assert not tcp({r})\n{}", try_both(a, r));
    let Some(scene) = Scene::begin(&["--ring-bytes", "4096"], work) else { return };
    scene.work();
    scene.guarded();
    let (_, _, ran) = scene.end();
    balanced(&ran);
    assert_ne!(ran.report()["verdict"], "pass");
}

/// Leaves a process no more memory than it has. Its own user may do that, a root without CAP_SYS_RESOURCE may not.
fn starve(pid: u32) {
    let first = |field| status(pid, field).split_whitespace().next().unwrap().parse::<u32>().unwrap();
    let limit = format!("--data={}", u64::from(first("VmData")) * 1024);
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &limit]).uid(first("Uid")).gid(first("Gid"));
    assert!(command.status().unwrap().success());
}

#[test]
fn an_engine_out_of_memory_leaves_blocked_what_was_blocked() {
    // The engine remembers every connection.
    let work = |a, r| format!("{FLOOD}say('flooded')\nwait('starved')\n{}", try_both(a, r));
    let Some(scene) = Scene::begin(&[], work) else { return };
    let engine = scene.parts.engine;
    starve(engine);
    scene.case.file("go", "");
    wait_for(&scene.case.path("flooded"));
    assert!(wait_until(SOON, || gone(engine)), "it lives: {}", status(engine, "VmSize"));
    scene.case.file("starved", "");
    wait_for(&scene.case.path("done"));
    scene.guarded();
    let (_, _, ran) = scene.end();
    ran.says("INCOMPLETE").verdict("incomplete");
    assert_eq!(ran.gaps(), ["agent-lost"]);
}

#[test]
fn a_guard_out_of_memory_leaves_blocked_what_was_blocked() {
    // At the end the guard reads what the kernel knows of every peer.
    let Some(scene) = Scene::begin(&[], |a, r| FLOOD.to_owned() + &try_both(a, r)) else { return };
    starve(scene.parts.guard);
    scene.work();
    scene.guarded();
    let (case, parts, ran) = scene.end();
    ran.says("INCOMPLETE").says("guard").verdict("incomplete");
    assert_eq!(ran.gaps(), ["agent-lost"]);
    assert!(wait_until(SOON, || gone(parts.engine) && gone(parts.guard)));
    // The next session reaps what is left.
    let id = session_of(&case);
    Case::anyone().policy(BLOCK).sh("exit 0").exits(0).verdict("pass");
    assert!(left_behind(&id).is_empty(), "{:?}", left_behind(&id));
}

/// A cgroup that limits memory, the kernel's for its processes included; gone with this.
struct Limited {
    folder: PathBuf,
    /// The file of its limit.
    limit: &'static str,
}

impl Limited {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = |l: &str| Some(PathBuf::from(l.split_once(" - ")?.0.split(' ').nth(4)?));
        let v1 = mounts.lines().find(|l| l.contains(" - cgroup ") && l.ends_with("memory")).and_then(place);
        let v2 = || {
            let has =
                |m: &PathBuf| fs::read_to_string(m.join("cgroup.subtree_control")).is_ok_and(|c| c.contains("memory"));
            harness::cgroup2().into_iter().find(has)
        };
        let name = format!("trustrun-test-{}", std::process::id());
        let (mount, limit) = match v1 {
            Some(m) => (m, "memory.limit_in_bytes"),
            None => (v2()?, "memory.max"),
        };
        let limited = Self { folder: mount.join(name), limit };
        fs::create_dir(&limited.folder).ok()?;
        limited.folder.join(limit).exists().then_some(limited)
    }

    /// Takes a process in, which may have so much from now on.
    fn hold(&self, pid: u32, bytes: u64) {
        fs::write(self.folder.join(self.limit), bytes.to_string()).unwrap();
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// How many processes the kernel ended for want of memory.
    fn killed(&self) -> u64 {
        let text = ["memory.oom_control", "memory.events"]
            .map(|f| fs::read_to_string(self.folder.join(f)).unwrap_or_default());
        let count = text.iter().flat_map(|t| t.lines()).find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        wait_until(SOON, || fs::remove_dir(&self.folder).is_ok());
    }
}

#[test]
fn an_engine_that_the_kernel_ends_for_want_of_memory_leaves_blocked_what_was_blocked() {
    let work = |a, r| format!("{FLOOD}say('flooded')\nwait('starved')\n{}", try_both(a, r));
    let Some(scene) = Scene::begin(&[], work) else { return };
    let Some(limited) = Limited::new() else {
        for name in ["go", "starved"] {
            scene.case.file(name, "");
        }
        scene.end();
        return skip("no memory controller can be used here");
    };
    let engine = scene.parts.engine;
    limited.hold(engine, 8 << 20);
    scene.case.file("go", "");
    wait_for(&scene.case.path("flooded"));
    assert!(wait_until(SOON, || gone(engine)), "it lives: {}", status(engine, "RssAnon"));
    assert!(limited.killed() > 0);
    scene.case.file("starved", "");
    wait_for(&scene.case.path("done"));
    scene.guarded();
    let (_, _, ran) = scene.end();
    ran.says("INCOMPLETE").verdict("incomplete");
    assert_eq!(ran.gaps(), ["agent-lost"]);
}

/// The only session of a case's database.
fn session_of(case: &Case) -> String {
    let list = case.session(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.exits(0).stdout).unwrap();
    list["sessions"][0]["id"].as_str().unwrap().to_owned()
}
