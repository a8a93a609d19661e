//! Fail closed, always: our processes stopped, out of memory, or too slow for what they are told. What was blocked stays
//! blocked, what was allowed keeps working, and nothing that was lost is ever a pass. (`failure.rs` has killed
//! processes, databases and disks.)
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{os::unix::process::CommandExt as _, process::Command};

use harness::{BLOCK, Case, FarEnd, Parts, Ran, Running, SOON, gone, have, left_behind, send, status, wait_for};
use nix::sys::signal::Signal;
use trustrun_lab::wait_until;

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
        let (allowed, refused) = (FarEnd::new(), FarEnd::new());
        let case = case.policy(&only(allowed.port())).with(options);
        let running = case.start(&["python3", "-c", &program(&work(allowed.port(), refused.port()))]);
        wait_for(&case.path("up"));
        let parts = Parts::of(running.id());
        Some(Self { case, allowed, refused, running, parts })
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

/// The only session of a case's database.
fn session_of(case: &Case) -> String {
    let list = case.session(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.exits(0).stdout).unwrap();
    list["sessions"][0]["id"].as_str().unwrap().to_owned()
}
