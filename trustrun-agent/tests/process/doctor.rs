//! `trustrun doctor`: what it says of this host is what `run` finds.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use trustrun_common::HOOK_NAMES;
use trustrun_guard::locks::LOCKS;
use trustrun_lab::{skip, wait_until};

use crate::harness::{self, Case, SOON, TRUSTRUN, have};

fn doctor(words: &[&str]) -> Output {
    let mut c = Command::new(TRUSTRUN);
    c.arg("doctor").args(words).stdin(Stdio::null());
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        c.env_remove(name);
    }
    c.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn names<'a>(d: &'a Value, list: &str) -> Vec<&'a str> {
    d[list].as_array().unwrap().iter().map(|x| x["name"].as_str().unwrap()).collect()
}

fn every_hook_and_lock_is_there(d: &Value) {
    assert_eq!(d["schema"], "trustrun.doctor/1");
    assert_eq!(names(d, "hooks"), [&HOOK_NAMES[..], &["unix_peer"]].concat());
    assert_eq!(names(d, "locks"), LOCKS.map(|l| l.name));
}

/// Cgroups and pins of sessions.
fn sessions() -> Vec<String> {
    let folders = harness::cgroup2().into_iter().map(|m| m.join("trustrun")).chain(["/sys/fs/bpf/trustrun".into()]);
    let inside = folders.filter_map(|f| fs::read_dir(f).ok()).flatten().flatten();
    inside.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_hook_is_attached_and_sees_where_a_session_starts() {
    let Some(case) = Case::new() else { return };
    let output = doctor(&["--format", "json"]);
    let d = json(&output);
    every_hook_and_lock_is_there(&d);
    for hook in d["hooks"].as_array().unwrap().iter().filter(|h| h["optional"] == false) {
        assert_eq!((&hook["attached"], &hook["state"]), (&true.into(), &"ok".into()), "{hook}");
    }
    assert_eq!(d["sensor"], "ebpf");
    assert!(["contained", "enforced"].contains(&d["assurance"].as_str().unwrap()), "{}", text(&output));
    assert!(output.status.success());
    let ran = case.policy(harness::BLOCK).with(&["--run-as", "nobody"]).run(&["true"]);
    let hooks = ran.exits(0).report()["coverage"]["hooks"].as_array().unwrap();
    let seen = d["hooks"].as_array().unwrap().iter().filter(|h| h["seen"] == true).count();
    assert_eq!(hooks.len(), seen, "the hooks of a session are those that the doctor saw");
}

#[test]
fn the_locks_that_it_names_are_those_of_a_session() {
    if !harness::root() {
        return;
    }
    let d = json(&doctor(&["--format", "json"]));
    for (user, side) in [("nobody", "user"), ("root", "root")] {
        let Some(case) = Case::new() else { return };
        let ran = case.policy(harness::BLOCK).with(&["--run-as", user]).run(&["true"]);
        let held = ran.exits(0).report()["coverage"]["locks"].as_array().unwrap();
        for (lock, held) in d["locks"].as_array().unwrap().iter().zip(held) {
            assert_eq!(lock[side]["state"] == "ok", held["held"] == true, "{user}: {lock} {held}");
        }
    }
    for (user, side) in [("nobody", "user"), ("root", "root")] {
        let Some(case) = Case::new() else { return };
        let strict = case.with(&["--strict", "--run-as", user]).run(&["true"]);
        let open = |l: &&Value| l[side]["state"] == "missing";
        let missing = d["locks"].as_array().unwrap().iter().filter(open).count();
        strict.exits(if missing == 0 { 0 } else { 125 });
    }
    let all = d["locks"].as_array().unwrap().iter().all(|l| l["user"]["state"] == "ok");
    assert_eq!(d["assurance"] == "contained", all, "{d}");
}

#[test]
fn the_text_fits_and_ends_with_the_assurance() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let last = text.lines().last().unwrap();
    let word = last.strip_prefix("assurance: ").unwrap().split(':').next().unwrap();
    assert!(["contained", "enforced", "observed", "none"].contains(&word), "{last}");
    assert_eq!(output.status.success(), ["contained", "enforced"].contains(&word), "{last}");
}

#[test]
fn without_root_it_says_what_cannot_be_tried() {
    if !harness::root() || !have(&["setpriv"]) {
        return;
    }
    let case = Case::anyone();
    let program = case.path("trustrun");
    fs::copy(TRUSTRUN, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut c = Command::new("setpriv");
    c.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    let output = c.args(["doctor", "--format", "json"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let d = json(&output);
    every_hook_and_lock_is_there(&d);
    assert_eq!(d["assurance"], "none");
    assert!(d["reasons"][0].as_str().unwrap().contains("not root"), "{d}");
    assert_eq!(d["checks"][0]["todo"], "sudo trustrun doctor");
    let any = |list: &str, f: &dyn Fn(&Value) -> bool| d[list].as_array().unwrap().iter().any(f);
    assert!(!any("hooks", &|h| h["attached"] == true || h["state"] == "ok"));
    assert!(!any("locks", &|l| l["user"]["state"] == "ok"), "nothing is claimed that was not tried");
}

#[test]
fn what_is_missing_is_named_and_run_does_not_start_either() {
    if !harness::root() || !have(&["unshare", "umount"]) {
        return;
    }
    let places: Vec<String> = harness::cgroup2().iter().map(|p| p.display().to_string()).collect();
    let hide = format!("umount -l {} || exit 99; exec \"$@\"", places.join(" "));
    let hidden = |words: &[&str]| {
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-c", &hide, "sh", TRUSTRUN]).args(words).stdin(Stdio::null()).output().unwrap()
    };
    let output = hidden(&["doctor", "--format", "json"]);
    if output.status.code() == Some(99) {
        skip("cgroup2 cannot be unmounted here");
        return;
    }
    let d = json(&output);
    let missing: Vec<_> = d["checks"].as_array().unwrap().iter().filter(|c| c["state"] == "missing").collect();
    assert_eq!((missing.len(), &missing[0]["name"]), (1, &"cgroup2".into()), "{d}");
    assert!(missing[0]["todo"].as_str().unwrap().contains("mount -t cgroup2"), "{d}");
    assert_eq!((output.status.code(), &d["assurance"]), (Some(1), &"none".into()));
    let run = hidden(&["run", "--", "true"]);
    assert_eq!(run.status.code(), Some(125), "{}", text(&run));
}

#[test]
fn nothing_is_left_behind_also_by_one_that_was_killed() {
    if !harness::root() {
        return;
    }
    let mut c = Command::new(TRUSTRUN);
    let mut killed = c.arg("doctor").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // Somewhere on its way: as soon as its session is there, or when it was faster than that.
    wait_until(SOON, || killed.try_wait().unwrap().is_some() || !sessions().is_empty());
    harness::send(killed.id(), Signal::SIGKILL);
    killed.wait().unwrap();
    assert!(doctor(&[]).status.success());
    // Other sessions live beside this test; who reaps is right only to leave those.
    assert!(wait_until(SOON, || !sessions().iter().any(|s| abandoned(s))), "{:?}", sessions());
}

/// Whether nobody holds a session's cgroup any more, or it is gone and pins are there.
fn abandoned(session: &str) -> bool {
    let cgroups = harness::cgroup2().into_iter().map(|m| m.join("trustrun").join(session));
    let mut open = cgroups.filter_map(|path| fs::File::open(path).ok()).peekable();
    if open.peek().is_none() {
        return !harness::left_behind(session).is_empty();
    }
    open.any(|folder| folder.try_lock().is_ok())
}
