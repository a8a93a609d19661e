//! Another process of root takes a session's hooks off while the command runs: that is noticed and named, never passes,
//! and when enforcing nothing runs on without them.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use harness::{BLOCK, Case, FarEnd, Running, SOON, cgroup2, gone, have, left_behind, wait_for};
use nix::sys::signal::Signal;
use trustrun_lab::wait_until;

const LINKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/links.py");

/// Waits for `stop`, and says its own number.
const STAYS: &str = r#"echo $$ > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"
    while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done; exit 3"#;

/// A session that runs [`STAYS`], and its cgroup's path below the mount, which ends in the session's id.
fn started(case: &Case, script: &str) -> (Running, u32, String) {
    let running = case.start(&["bash", "-c", script]);
    wait_for(&case.path("pid"));
    let pid: u32 = case.read("pid").trim().parse().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let cgroup = text.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
    (running, pid, cgroup)
}

fn pin(cgroup: &str, hook: &str) -> PathBuf {
    // `/trustrun/ID`, or under systemd `.../trustrun-ID.scope/session`.
    let id = cgroup.trim_end_matches("/session").rsplit('/').next().unwrap();
    let id = id.strip_prefix("trustrun-").and_then(|id| id.strip_suffix(".scope")).unwrap_or(id);
    ["/sys/fs/bpf/trustrun", id, hook].iter().collect()
}

#[track_caller]
fn meddle(what: &str, pin: &PathBuf) {
    let status = Command::new("python3").arg(LINKS).arg(what).arg(pin).status().unwrap();
    assert!(status.success(), "{what} {}", pin.display());
}

fn ready() -> Option<Case> {
    have(&["python3"]).then(Case::new).flatten()
}

/// The detail of the report's only gap, which is `hook-lost`.
#[track_caller]
fn lost(ran: &harness::Ran) -> String {
    ran.verdict("incomplete");
    // Where it is only observed, root could do other things too.
    let gaps: Vec<String> = ran.gaps().into_iter().filter(|g| g != "root-target").collect();
    assert_eq!(gaps, ["hook-lost"], "{}", ran.report()["gaps"]);
    ran.report()["gaps"][0]["detail"].as_str().unwrap().to_owned()
}

#[test]
fn an_enforced_command_is_ended_when_a_hook_is_taken_off() {
    for (what, hook) in [("detach", "egress"), ("detach", "connect4"), ("replace", "egress")] {
        let Some(case) = ready() else { return };
        let case = case.policy(BLOCK);
        let (running, pid, cgroup) = started(&case, STAYS);
        meddle(what, &pin(&cgroup, hook));
        assert!(wait_until(SOON, || gone(pid)), "{what} {hook}: the command runs on unguarded");
        let ran = running.end();
        assert_eq!(ran.status.signal(), Some(Signal::SIGKILL as i32), "{}", ran.stderr);
        let detail = lost(&ran);
        assert!(detail.contains(hook) && detail.contains("ended"), "{detail}");
        ran.says("hook-lost").says(hook);
        let hooks = ran.report()["coverage"]["hooks"].as_array().unwrap();
        let of = |name: &str| hooks.iter().find(|h| h["name"] == name).unwrap()["detached_at"].as_str().unwrap();
        assert!(of(hook) < of("ingress"), "until when it is known to have been there");
        assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
    }
}

#[test]
fn what_outlives_an_enforced_command_is_ended_too() {
    let Some(case) = ready() else { return };
    let case = case.policy(BLOCK).with(&["--wait-all"]);
    let script = r#"(echo $BASHPID > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"; exec sleep 600) >/dev/null 2>&1 &
        while [ ! -e "$DIR/stop" ]; do sleep 0.05; done; exit 0"#;
    let (mut running, pid, cgroup) = started(&case, script);
    case.file("stop", "");
    running.stdout_ends();
    meddle("detach", &pin(&cgroup, "sendmsg4"));
    assert!(wait_until(SOON, || gone(pid)));
    let ran = running.end();
    assert!(lost(ran.exits(0)).contains("sendmsg4"));
}

#[test]
fn an_observed_command_runs_on_and_its_verdict_names_the_hooks() {
    let Some(case) = ready() else { return };
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n");
    let (running, pid, cgroup) = started(&case, STAYS);
    for hook in ["sock_ops", "ingress"] {
        meddle("detach", &pin(&cgroup, hook));
    }
    case.file("stop", "");
    let detail = lost(running.end().exits(3));
    assert!(detail.contains("sock_ops") && detail.contains("ingress") && !detail.contains("ended"), "{detail}");
    assert!(gone(pid));
}

#[test]
fn somebody_elses_program_on_the_same_cgroup_changes_nothing() {
    let Some(case) = ready() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let script = format!(
        r#"echo $$ > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"
        while [ -d "$DIR" ] && [ ! -e "$DIR/go" ]; do sleep 0.05; done
        {}; echo $?"#,
        far.connect()
    );
    let (running, _, cgroup) = started(&case, &script);
    let folder = cgroup2().into_iter().map(|m| m.join(&cgroup[1..])).find(|p| p.is_dir()).unwrap();
    let mut beside = second(&folder);
    case.file("go", "");
    let ran = running.end();
    assert_eq!(ran.exits(0).out(), "1\n", "{}", ran.stderr);
    assert_eq!(far.arrived(), 0, "a program that lets all through opens nothing");
    ran.verdict("fail");
    assert_eq!(ran.gaps(), [] as [&str; 0]);
    drop(beside.stdin.take());
    assert!(beside.wait().unwrap().success());
}

/// Attaches a program beside the session's, and keeps it there until its input ends.
fn second(folder: &std::path::Path) -> Child {
    let mut beside = Command::new("python3")
        .args([LINKS.as_ref(), "second".as_ref(), folder.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(beside.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    beside
}
