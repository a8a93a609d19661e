//! Under systemd a session is a scope in the slice of whoever started it, and stays one whatever ends.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{BLOCK, Case, FarEnd, Parts, SOON, cgroup2, gone, left_behind, send, wait_for};
use nix::sys::signal::Signal;
use trustrun_lab::{skip, wait_until};

const OWN: &str = r#"sed -n "s/^0:://p" /proc/self/cgroup"#;

/// A case where systemd is PID 1, or a skip.
fn case() -> Option<Case> {
    if !Path::new("/run/systemd/system").is_dir() {
        skip("systemd is not PID 1 here");
        return None;
    }
    Case::new()
}

/// The slice that this test runs in: the beginning of its path that is made of slices.
fn own_slice() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = text.lines().find_map(|l| l.strip_prefix("0::/")).unwrap().to_owned();
    let slices: Vec<&str> = path.split('/').take_while(|w| w.ends_with(".slice")).collect();
    if slices.is_empty() { "/system.slice".into() } else { format!("/{}", slices.join("/")) }
}

fn unit(session: &str) -> String {
    format!("trustrun-{session}.scope")
}

fn loaded(unit: &str) -> bool {
    let out = Command::new("systemctl").args(["is-active", unit]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim() == "active"
}

fn folder(cgroup: &str) -> PathBuf {
    cgroup2().into_iter().map(|m| m.join(&cgroup[1..])).find(|p| p.is_dir()).unwrap()
}

#[test]
fn a_session_is_a_scope_in_its_callers_slice_and_ends_with_it() {
    for policy in [BLOCK, "version: 1\nname: loud\ndefault: alert\n"] {
        let Some(case) = case() else { return };
        let case = case.policy(policy);
        let ran = case.sh(&format!("{OWN}; exit 3"));
        ran.exits(3).verdict("pass");
        let unit = unit(&ran.session());
        assert_eq!(ran.out().trim(), format!("{}/{unit}/session", own_slice()), "{}", ran.stderr);
        assert!(!ran.report()["limits"].as_array().unwrap().iter().any(|l| l["kind"] == "outside-slice"));
        assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
        assert!(wait_until(SOON, || !loaded(&unit)), "{unit} stays");
    }
}

#[test]
fn refusals_hold_in_a_scope_and_our_own_processes_are_outside() {
    let Some(case) = case() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let script = format!(
        r#"{}; echo $?; {OWN} > "$DIR/cgroup.new"; mv "$DIR/cgroup.new" "$DIR/cgroup"
        while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done"#,
        far.connect()
    );
    let running = case.start(&["bash", "-c", &script]);
    wait_for(&case.path("cgroup"));
    let inside = folder(case.read("cgroup").trim());
    let parts = Parts::of(running.id());
    let members = |folder: &Path| fs::read_to_string(folder.join("cgroup.procs")).unwrap();
    for (folder, ours) in [(inside.as_path(), false), (inside.parent().unwrap(), false)] {
        for pid in [parts.foreground, parts.guard, parts.engine] {
            assert_eq!(members(folder).lines().any(|l| l == pid.to_string()), ours, "{}", folder.display());
        }
    }
    case.file("stop", "");
    let ran = running.end();
    assert_eq!((ran.exits(0).out().as_str(), far.arrived()), ("1\n", 0), "{}", ran.stderr);
    ran.verdict("fail");
    assert_eq!(ran.gaps(), [] as [&str; 0]);
}

#[test]
fn without_its_guard_the_scope_stays_guarded_and_is_reaped() {
    let Some(case) = case() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let script = format!(
        r#"echo $$ > "$DIR/pid"; {OWN} > "$DIR/up.new"; mv "$DIR/up.new" "$DIR/up"
        while [ -d "$DIR" ] && [ ! -e "$DIR/go" ]; do sleep 0.05; done
        {}; echo $? > "$DIR/second.new"; mv "$DIR/second.new" "$DIR/second"
        while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done"#,
        far.connect()
    );
    let running = case.start(&["bash", "-c", &script]);
    wait_for(&case.path("up"));
    let cgroup = case.read("up").trim().to_owned();
    let scope = cgroup.trim_end_matches("/session").rsplit('/').next().unwrap().to_owned();
    let id = scope.strip_prefix("trustrun-").unwrap().strip_suffix(".scope").unwrap().to_owned();
    let parts = Parts::of(running.id());
    for pid in [parts.foreground, parts.guard, parts.engine] {
        send(pid, Signal::SIGKILL);
    }
    assert!(wait_until(SOON, || gone(parts.guard) && gone(parts.engine)));
    // Another start must leave what guards a living process alone.
    Case::anyone().sh("exit 0").exits(0);
    assert_eq!(left_behind(&id).len(), 2, "{:?}", left_behind(&id));
    assert!(loaded(&scope));
    case.file("go", "");
    wait_for(&case.path("second"));
    assert_eq!((case.read("second").as_str(), far.arrived()), ("1\n", 0));
    case.file("stop", "");
    let pid: u32 = case.read("pid").trim().parse().unwrap();
    assert!(wait_until(SOON, || gone(pid) && !loaded(&scope)));
    Case::anyone().sh("exit 0").exits(0);
    assert_eq!(left_behind(&id), [] as [&str; 0]);
}

#[test]
fn stopping_the_scope_ends_the_command() {
    let Some(case) = case() else { return };
    let case = case.policy(BLOCK);
    let running =
        case.start(&["sh", "-c", &format!(r#"{OWN} > "$DIR/up.new"; mv "$DIR/up.new" "$DIR/up"; exec sleep 600"#)]);
    wait_for(&case.path("up"));
    let scope = case.read("up").trim().trim_end_matches("/session").rsplit('/').next().unwrap().to_owned();
    assert!(Command::new("systemctl").args(["stop", &scope]).status().unwrap().success());
    let ran = running.end();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ran.status),
        Some(Signal::SIGTERM as i32),
        "{}",
        ran.stderr
    );
    // systemd may have removed the cgroup before the guard could look at its hooks a last time: then nobody knows.
    let gaps = ran.gaps();
    assert!(gaps.is_empty() || gaps == ["cgroup-removed"], "{}", ran.report()["gaps"]);
    ran.verdict(if gaps.is_empty() { "pass" } else { "incomplete" });
}

#[test]
fn where_systemd_makes_no_scope_the_session_says_so() {
    let Some(case) = case() else { return };
    let case = case
        .policy(BLOCK)
        .inside("exec unshare -m sh -c 'mount --bind /usr/bin/false /usr/bin/systemd-run && exec \"$@\"' sh \\");
    let ran = case.sh(OWN);
    ran.exits(0).verdict("pass");
    assert_eq!(ran.out().trim(), format!("/trustrun/{}", ran.session()));
    let limits = ran.report()["limits"].as_array().unwrap();
    let limit = limits.iter().find(|l| l["kind"] == "outside-slice").unwrap_or_else(|| panic!("{limits:?}"));
    assert!(limit["detail"].as_str().unwrap().contains("systemd-run"), "{limit}");
    assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
}
