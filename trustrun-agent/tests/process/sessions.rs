//! What outlives the command, what a session leaves behind, and several sessions at once.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use trustrun_lab::wait_until;

use crate::harness::{self, BLOCK, Case, FarEnd, Parts, SOON, TRUSTRUN, gone, left_behind, send, sessions, wait_for};

/// Stays until `stop`; once `go` is there connects and says whether it could.
fn stayer(far: &FarEnd) -> String {
    format!(
        r#"(echo $BASHPID > "$DIR/pid"
        while [ -d "$DIR" ] && [ ! -e "$DIR/go" ]; do sleep 0.05; done
        {}; echo $? > "$DIR/result.new"; mv "$DIR/result.new" "$DIR/result"
        while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done) </dev/null >/dev/null 2>&1 & exit 0"#,
        far.connect()
    )
}

#[test]
fn what_outlives_the_command_is_named_stays_guarded_and_is_reaped() {
    let Some(case) = Case::new() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let begin = Instant::now();
    let ran = case.run(&["bash", "-c", &stayer(&far)]);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(40), "{took:?}");
    ran.exits(0).verdict("incomplete").says("INCOMPLETE").says("still-running");
    assert_eq!(ran.gaps(), ["still-running"]);
    let detail = ran.report()["gaps"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("bash") && detail.contains("outlived the command"), "{detail}");
    let session = ran.session();
    assert_eq!(left_behind(&session).len(), 2, "the cgroup and the pinned links stay");
    // Another session starts and ends meanwhile: it must not take this one's links away.
    case.sh("exit 0").exits(0);
    assert_eq!(left_behind(&session).len(), 2, "its processes live");
    case.file("go", "");
    wait_for(&case.path("result"));
    assert_ne!(case.read("result").trim(), "0", "it connected, though it is guarded");
    assert_eq!(far.arrived(), 0);
    case.file("stop", "");
    let pid: u32 = case.read("pid").trim().parse().unwrap();
    assert!(wait_until(SOON, || gone(pid)));
    case.sh("exit 0").exits(0);
    assert_eq!(left_behind(&session), [] as [&str; 0], "the next start reaps");
}

#[test]
fn wait_all_waits_for_every_process() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK).with(&["--wait-all"]);
    let begin = Instant::now();
    let ran = case.sh("(sleep 11.5; : > \"$DIR/late\") >/dev/null 2>&1 & exit 6");
    assert!(case.path("late").exists() && begin.elapsed() > Duration::from_secs(11));
    ran.exits(6).verdict("pass");
    assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
}

#[test]
fn a_signal_ends_the_wait_for_what_outlives_the_command() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK).with(&["--wait-all"]);
    let mut running =
        case.start(&["bash", "-c", r#"(echo $BASHPID > "$DIR/pid"; exec sleep 60) >/dev/null 2>&1 & exit 6"#]);
    running.stdout_ends();
    wait_for(&case.path("pid"));
    let begin = Instant::now();
    running.signal(Signal::SIGTERM);
    let ran = running.end();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    ran.exits(6).verdict("incomplete");
    assert_eq!(ran.gaps(), ["still-running"]);
    send(case.read("pid").trim().parse().unwrap(), Signal::SIGKILL);
}

#[test]
fn nothing_is_left_behind() {
    let Some(case) = Case::new() else { return };
    let script = r#": > "$DIR/up"; while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done"#;
    let running = case.start(&["sh", "-c", script]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    case.file("stop", "");
    let ran = running.end();
    ran.exits(0);
    assert!(gone(parts.guard) && gone(parts.engine), "guard and engine end before trustrun does");
    assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
    for code in [126, 127] {
        let ran = case.run(&[if code == 126 { "/etc" } else { "no-such-command" }]);
        assert_eq!(left_behind(&ran.exits(code).session()), [] as [&str; 0]);
    }
}

#[test]
fn ctrl_c_before_the_command_starts_leaves_nothing() {
    let Some(case) = Case::new() else { return };
    // Whenever it comes, between the first instruction and the command's own: nothing of the session stays.
    for wait in [20, 60, 120, 200, 300] {
        let _ = fs::remove_file(case.path("up"));
        let running = case.start(&["sh", "-c", r#": > "$DIR/up"; exec sleep 60"#]);
        wait_until(Duration::from_millis(wait), || case.path("up").exists());
        let family = harness::tree(running.id());
        running.signal(Signal::SIGINT);
        let ran = running.end();
        assert_eq!(ran.status.signal(), Some(Signal::SIGINT as i32), "{}", ran.stderr);
        assert!(wait_until(SOON, || family.iter().all(|pid| gone(*pid))), "after {wait} ms: a process stays");
    }
    // Of all sessions that these made, the next start (which reaps) leaves none; others' may run.
    case.sh("exit 0").exits(0);
    for session in sessions() {
        let lives = harness::cgroups(&session).iter().any(|folder| {
            fs::File::open(folder).is_ok_and(|f| f.try_lock().is_err())
                || fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|t| t.contains("populated 1"))
        });
        // It may have ended between the two looks.
        assert!(lives || left_behind(&session).is_empty() || wait_until(SOON, || left_behind(&session).is_empty()));
    }
}

#[test]
fn sessions_at_once_do_not_disturb_each_other() {
    let Some(_) = Case::new() else { return };
    let far = FarEnd::new();
    let script = format!("for i in 1 2 3; do {}; echo $?; sleep 0.2; done", far.connect());
    let many: Vec<_> = (0..6)
        .map(|n| {
            let port = far.port();
            let allow = format!("version: 1\nname: some\ndefault: block\nrules:\n  - allow: [\"127.0.0.1:{port}\"]\n");
            let case = Case::anyone().policy(if n % 2 == 0 { BLOCK } else { &allow });
            let running = case.start(&["sh", "-c", &script]);
            (n, case, running)
        })
        .collect();
    let mut seen = Vec::new();
    for (n, _case, running) in many {
        let ran = running.end();
        ran.exits(0).verdict(if n % 2 == 0 { "fail" } else { "pass" });
        let expected = if n % 2 == 0 { "1\n1\n1\n" } else { "0\n0\n0\n" };
        assert_eq!(ran.out(), expected, "{}", ran.stderr);
        let connections: u64 =
            ran.report()["destinations"].as_array().unwrap().iter().map(|d| d["connections"].as_u64().unwrap()).sum();
        assert_eq!(connections, 3, "{}", ran.report()["destinations"]);
        seen.push(ran.session());
    }
    assert_eq!(far.arrived(), 9);
    assert!(seen.iter().all(|s| left_behind(s).is_empty()));
}

#[test]
fn starting_and_ending_at_once_never_reaps_a_living_session() {
    let Some(_) = Case::new() else { return };
    let workers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let case = Case::anyone().policy(BLOCK);
                for _ in 0..4 {
                    let ran = case.run(&["true"]);
                    ran.exits(0).verdict("pass");
                    assert_eq!(left_behind(&ran.session()), [] as [&str; 0]);
                }
            })
        })
        .collect();
    for w in workers {
        w.join().unwrap();
    }
}

#[test]
fn the_binary_itself_is_never_left_running() {
    let Some(case) = Case::new() else { return };
    let ran = case.run(&["true"]);
    ran.exits(0);
    let ours = |pid: &str| {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        argv.starts_with(TRUSTRUN.as_bytes())
            && String::from_utf8_lossy(&argv).contains(case.folder().to_str().unwrap())
    };
    let left: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok().filter(|n| ours(n)))
        .collect();
    assert_eq!(left, [] as [String; 0]);
}
