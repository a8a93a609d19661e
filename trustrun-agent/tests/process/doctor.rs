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

use crate::harness::{self, Case, SOON, TRUSTRUN, have, sessions};

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
    assert_eq!(names(d, "hooks"), [&HOOK_NAMES[..], &["unix_peer", "unix_connect", "unix_send"]].concat());
    assert_eq!(names(d, "locks"), LOCKS.map(|l| l.name));
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

/// `trustrun WORDS` from a shell in namespaces of its own, after `first`; 99 where that cannot be.
fn within(unshare: &str, first: &str, words: &[&str]) -> Output {
    let script = format!("{{ {first}; }} || exit 99; exec \"$@\"");
    let mut c = Command::new("unshare");
    c.args([unshare, "sh", "-c", &script, "sh", TRUSTRUN]).args(words).stdin(Stdio::null());
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "GITHUB_ACTIONS", "GITLAB_CI", "CI", "KUBERNETES_SERVICE_HOST"] {
        c.env_remove(name);
    }
    c.output().unwrap()
}

fn check<'a>(d: &'a Value, name: &str) -> Option<&'a Value> {
    d["checks"].as_array().unwrap().iter().find(|c| c["name"] == name)
}

#[test]
fn in_a_cgroup_namespace_it_says_what_it_says_outside() {
    if !harness::root() || !have(&["unshare"]) {
        return;
    }
    let (outside, inside) = (doctor(&["--format", "json"]), within("-Cm", "true", &["doctor", "--format", "json"]));
    let (outside, inside) = (json(&outside), json(&inside));
    assert_eq!((&outside["assurance"], &outside["hooks"]), (&inside["assurance"], &inside["hooks"]));
    assert_eq!(check(&inside, "refusal").unwrap()["state"], "ok", "{inside}");
    assert!(within("-Cm", "true", &["run", "--", "true"]).status.success());
}

#[test]
fn with_read_only_cgroups_as_in_a_container_it_says_so_and_run_does_not_start() {
    if !harness::root() || !have(&["unshare", "mount"]) {
        return;
    }
    let one = |m: &std::path::PathBuf| format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", m.display());
    let sealed = harness::cgroup2().iter().map(one).collect::<Vec<_>>().join(" && ");
    let output = within("-Cm", &sealed, &["doctor", "--format", "json"]);
    if output.status.code() == Some(99) {
        return skip("cgroup2 cannot be mounted read-only here");
    }
    let d = json(&output);
    let found = check(&d, "cgroup2").unwrap();
    assert_eq!((&found["state"], &d["assurance"]), (&"missing".into(), &"none".into()), "{d}");
    assert!(found["found"].as_str().unwrap().contains("read-only"), "{found}");
    assert!(found["todo"].as_str().unwrap().contains("--privileged"), "{found}");
    assert!(check(&d, "refusal").is_none(), "nothing is claimed that was not tried");
    assert_eq!(output.status.code(), Some(1));
    let run = within("-Cm", &sealed, &["run", "--", "true"]);
    assert_eq!(run.status.code(), Some(125), "{}", text(&run));
    assert!(text(&run).contains("Read-only"), "{}", text(&run));
}

#[test]
fn a_pod_and_a_ci_runner_are_named() {
    let of = |name: &str, value: &str| {
        let mut c = Command::new(TRUSTRUN);
        json(&c.args(["doctor", "--format", "json"]).env(name, value).stdin(Stdio::null()).output().unwrap())
    };
    let pod = of("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    assert_eq!(check(&pod, "kubernetes").unwrap()["state"], "limit", "{pod}");
    let limits = pod["limits"].to_string();
    assert!(limits.contains("other containers share its network"), "{limits}");
    let runner = of("GITHUB_ACTIONS", "true");
    assert_eq!(check(&runner, "ci").unwrap()["found"], "GitHub Actions", "{runner}");
}

#[test]
fn under_wsl_programs_of_windows_are_a_limit_where_they_can_be_started() {
    if !harness::root() || !have(&["unshare", "mount"]) {
        return;
    }
    // As WSL 2 has it: a kernel of its own, and what starts Windows programs registered under this name.
    let kernel =
        "f=$(mktemp) && echo 5.15.153.1-microsoft-standard-WSL2 > $f && mount --bind $f /proc/sys/kernel/osrelease";
    let formats = "mount -t tmpfs none /proc/sys/fs/binfmt_misc";
    for (interop, state) in [("true", "ok"), (": > /proc/sys/fs/binfmt_misc/WSLInterop", "limit")] {
        let first = format!("{kernel} && rm $f && {formats} && {interop}");
        let output = within("-m", &first, &["doctor", "--format", "json"]);
        if output.status.code() == Some(99) {
            return skip("nothing can be mounted over /proc here");
        }
        let d = json(&output);
        let wsl = check(&d, "wsl").unwrap();
        assert_eq!(wsl["state"], state, "{d}");
        if state == "limit" {
            assert!(d["limits"].to_string().contains("are not seen") && wsl["todo"].to_string().contains("wsl.conf"));
        }
    }
}

#[test]
fn a_refusal_is_tried_and_only_sensors_that_there_are_can_be_used() {
    if !harness::root() {
        return;
    }
    let d = json(&doctor(&["--format", "json"]));
    let found = check(&d, "refusal").unwrap();
    assert_eq!(found["state"], "ok", "{found}");
    assert!(found["found"].as_str().unwrap().contains("EPERM"), "{found}");
    for sensor in d["sensors"].as_array().unwrap() {
        assert_eq!(sensor["usable"] == true, sensor["name"] == "ebpf", "{sensor}");
    }
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
    let cgroups = harness::cgroups(session).into_iter();
    let mut open = cgroups.filter_map(|path| fs::File::open(path).ok()).peekable();
    if open.peek().is_none() {
        return !harness::left_behind(session).is_empty();
    }
    open.any(|folder| folder.try_lock().is_ok())
}
