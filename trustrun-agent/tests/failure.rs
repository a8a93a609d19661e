//! What failure leaves: of our own processes, of the database, of the disk. What was blocked stays blocked, nothing
//! that failed can pass, the loss is named, and the command's own exit code stands.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{BLOCK, Case, FarEnd, Parts, SOON, gone, have, left_behind, send, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use trustrun_lab::wait_until;

// --- Our own processes ---

/// Connects, says `up`, waits for `go`, connects again, says how that went; ends with 3 when `stop` is there.
fn twice(far: &FarEnd) -> String {
    let connect = far.connect();
    format!(
        r#"{connect}
        echo $? > "$DIR/first"; : > "$DIR/up"
        while [ -d "$DIR" ] && [ ! -e "$DIR/go" ]; do sleep 0.05; done
        {connect}
        echo $? > "$DIR/second.new"; mv "$DIR/second.new" "$DIR/second"
        while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done
        exit 3"#
    )
}

/// What the database says of its only session.
fn stored(case: &Case) -> Value {
    let list = case.session(&["list", "--format", "json"]);
    let list: Value = serde_json::from_slice(&list.exits(0).stdout).unwrap();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{list}");
    sessions[0].clone()
}

#[test]
fn without_its_engine_a_session_stays_guarded_and_cannot_pass() {
    let Some(case) = Case::new() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let running = case.start(&["sh", "-c", &twice(&far)]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    send(parts.engine, Signal::SIGKILL);
    assert!(wait_until(SOON, || gone(parts.engine)));
    case.file("go", "");
    wait_for(&case.path("second"));
    case.file("stop", "");
    let ran = running.end();
    ran.exits(3).says("INCOMPLETE").says("engine").verdict("incomplete");
    assert_eq!(ran.gaps(), ["agent-lost"]);
    assert_eq!((case.read("first"), case.read("second"), far.arrived()), ("1\n".into(), "1\n".into(), 0));
    let session = stored(&case);
    assert_eq!((&session["state"], &session["verdict"]), (&"lost".into(), &"incomplete".into()), "{session}");
    let id = session["id"].as_str().unwrap();
    assert!(case.session(&["show", id]).exits(0).out().starts_with("INCOMPLETE"));
    assert!(left_behind(id).is_empty(), "its guard cleaned up: {:?}", left_behind(id));
}

#[test]
fn without_its_guard_a_session_stays_guarded_cannot_pass_and_is_reaped() {
    let Some(case) = Case::new() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let running = case.start(&["sh", "-c", &twice(&far)]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    send(parts.guard, Signal::SIGKILL);
    assert!(wait_until(SOON, || gone(parts.guard) && gone(parts.engine)), "the engine ends with its guard");
    case.file("go", "");
    wait_for(&case.path("second"));
    assert_eq!((case.read("first"), case.read("second"), far.arrived()), ("1\n".into(), "1\n".into(), 0));
    let id = stored(&case)["id"].as_str().unwrap().to_owned();
    assert_eq!(left_behind(&id).len(), 2);
    // Another session's start must leave alone what still guards a living process.
    Case::anyone().sh("exit 0").exits(0);
    assert_eq!(left_behind(&id).len(), 2, "reaped while its command runs");
    case.file("stop", "");
    let ran = running.end();
    ran.exits(3).says("INCOMPLETE").says("guard").verdict("incomplete");
    assert_eq!(stored(&case)["state"], "lost");
    assert_eq!(stored(&case)["verdict"], "incomplete");
    Case::anyone().sh("exit 0").exits(0);
    assert!(left_behind(&id).is_empty(), "{:?}", left_behind(&id));
}

#[test]
fn without_its_foreground_process_a_session_goes_on_and_cannot_pass() {
    let Some(case) = Case::new() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let running = case.start(&["sh", "-c", &twice(&far)]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    send(parts.foreground, Signal::SIGKILL);
    case.file("go", "");
    wait_for(&case.path("second"));
    assert_eq!((case.read("second"), far.arrived()), ("1\n".into(), 0));
    let id = stored(&case)["id"].as_str().unwrap().to_owned();
    case.file("stop", "");
    assert!(wait_until(SOON, || gone(parts.guard) && gone(parts.engine)), "they end with the command");
    drop(running);
    let report: Value = serde_json::from_slice(&case.session(&["report", &id]).exits(0).stdout).unwrap();
    assert_eq!(report["verdict"], "fail", "what it saw it still tells");
    assert!(report["gaps"].as_array().unwrap().iter().any(|g| g["kind"] == "foreground-lost"), "{}", report["gaps"]);
    assert_eq!(
        report["violations"].as_array().unwrap().iter().map(|v| v["count"].as_u64().unwrap_or(1)).sum::<u64>(),
        2
    );
    assert!(left_behind(&id).is_empty(), "{:?}", left_behind(&id));
}

#[test]
fn without_any_of_them_what_was_blocked_stays_blocked() {
    let Some(case) = Case::new() else { return };
    let (case, far) = (case.policy(BLOCK), FarEnd::new());
    let running = case.start(&["sh", "-c", &format!(r#"echo $$ > "$DIR/pid"; {}"#, twice(&far))]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    for pid in [parts.foreground, parts.guard, parts.engine] {
        send(pid, Signal::SIGKILL);
    }
    case.file("go", "");
    wait_for(&case.path("second"));
    assert_eq!((case.read("second"), far.arrived()), ("1\n".into(), 0));
    let session = stored(&case);
    assert_eq!((&session["state"], &session["verdict"]), (&"lost".into(), &"incomplete".into()), "{session}");
    let id = session["id"].as_str().unwrap().to_owned();
    assert_eq!(left_behind(&id).len(), 2);
    case.file("stop", "");
    let pid: u32 = case.read("pid").trim().parse().unwrap();
    assert!(wait_until(SOON, || gone(pid)));
    Case::anyone().sh("exit 0").exits(0);
    assert!(left_behind(&id).is_empty(), "{:?}", left_behind(&id));
    assert!(!case.path("report.json").exists());
}

#[test]
fn a_report_of_an_earlier_pass_is_not_left_in_the_place_of_a_lost_one() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    case.sh("exit 0").exits(0).verdict("pass");
    let script = r#": > "$DIR/up"; while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done"#;
    let running = case.with(&["--exit-verdict"]);
    let case = running;
    let running = case.start(&["sh", "-c", script]);
    wait_for(&case.path("up"));
    send(Parts::of(running.id()).engine, Signal::SIGKILL);
    case.file("stop", "");
    running.end().exits(122).verdict("incomplete");
}

#[test]
fn an_engine_that_was_stopped_for_two_seconds_loses_nothing() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n");
    let script = format!(
        r#": > "$DIR/up"; while [ -d "$DIR" ] && [ ! -e "$DIR/go" ]; do sleep 0.05; done
           for i in $(seq 100); do {}; done; sleep 2; : > "$DIR/done"; exit 3"#,
        far.connect()
    );
    let running = case.start(&["bash", "-c", &script]);
    wait_for(&case.path("up"));
    let parts = Parts::of(running.id());
    send(parts.engine, Signal::SIGSTOP);
    case.file("go", "");
    wait_for(&case.path("done"));
    send(parts.engine, Signal::SIGCONT);
    let ran = running.end();
    ran.exits(3).verdict("fail");
    // Root is only observed.
    assert_eq!(ran.gaps(), ["root-target"], "{}", ran.report()["gaps"]);
    let destinations = ran.report()["destinations"].as_array().unwrap();
    assert_eq!(destinations.iter().map(|d| d["connections"].as_u64().unwrap()).sum::<u64>(), 100);
    assert_eq!(far.arrived(), 100);
}

// --- The database ---

/// The command ran, guarded, with its own exit code, and its report is on stderr and in the file; `why` was said.
#[track_caller]
fn guarded_all_the_same(case: &Case, why: &[&str]) -> harness::Ran {
    let far = FarEnd::new();
    let ran = case.sh(&format!("{}; echo $?; exit 3", far.connect()));
    assert_eq!(ran.exits(3).out(), "1\n", "{}", ran.stderr);
    assert_eq!(far.arrived(), 0);
    ran.says("FAIL").verdict("fail");
    assert_eq!(ran.report()["violations"][0]["port"], far.port());
    for w in why {
        ran.says(w);
    }
    ran
}

#[test]
fn a_read_only_database_is_named_and_the_command_guarded() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    case.sh("exit 0").exits(0);
    let mounts = "mount --bind \"$DIR/state\" \"$DIR/state\" && mount -o remount,bind,ro \"$DIR/state\"";
    let case = case.inside(&format!("exec unshare -m sh -c '{mounts} && exec \"$@\"' sh \\"));
    guarded_all_the_same(&case, &["in memory only", "events.db"]);
}

/// Holds the database so that nobody else writes, until it is dropped.
struct Locked(Child);

impl Locked {
    fn new(case: &Case) -> Self {
        let python = "import sqlite3, sys, time\n\
                      c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)\n\
                      c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", python])
            .arg(case.db())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_locked_database_is_named_and_the_command_guarded() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let case = case.policy(BLOCK);
    case.sh("exit 0").exits(0);
    let locked = Locked::new(&case);
    let begin = Instant::now();
    guarded_all_the_same(&case, &["in memory only", "locked by another process"]);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    drop(locked);
    assert_eq!(stored(&case)["state"], "finished", "the first session alone");
}

#[test]
fn a_database_that_is_locked_later_costs_events_and_not_the_report() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let case = case.policy(BLOCK);
    let script = r#": > "$DIR/up"; while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done; exit 3"#;
    let running = case.start(&["sh", "-c", script]);
    wait_for(&case.path("up"));
    let locked = Locked::new(&case);
    case.file("stop", "");
    let ran = running.end();
    ran.exits(3).says("INCOMPLETE").says("not in the database").verdict("incomplete");
    assert_eq!(ran.gaps(), ["events-not-stored"]);
    let counters = &ran.report()["counters"];
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counters["emitted"].as_u64().unwrap(), counters["stored"].as_u64().unwrap() + dropped, "{counters}");
    drop(locked);
    let session = stored(&case);
    assert_eq!((&session["state"], &session["verdict"]), (&"lost".into(), &"incomplete".into()), "{session}");
}

#[test]
fn a_corrupt_database_is_left_as_it_is_and_named() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    fs::create_dir(case.path("state")).unwrap();
    for bytes in [
        b"no database at all, but long enough to be read as one".repeat(40),
        [&b"SQLite format 3\0"[..], &[0xa5; 8192]].concat(),
    ] {
        fs::write(case.db(), &bytes).unwrap();
        guarded_all_the_same(&case, &["in memory only", "damaged or not a database"]);
        assert!(fs::read(case.db()).unwrap() == bytes, "it was written to");
    }
    // Damaged in the middle: the header is right, the pages are not.
    fs::remove_file(case.db()).unwrap();
    case.sh("exit 0").exits(0);
    let _ = Command::new("sqlite3").arg(case.db()).arg("PRAGMA wal_checkpoint(TRUNCATE)").output();
    let mut bytes = fs::read(case.db()).unwrap();
    let from = bytes.len().min(4096);
    bytes[from..].fill(0xa5);
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(PathBuf::from(format!("{}{beside}", case.db().display())));
    }
    fs::write(case.db(), &bytes).unwrap();
    guarded_all_the_same(&case, &["events.db"]);
}

#[test]
fn a_database_of_something_else_is_left_as_it_is_and_named() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let case = case.policy(BLOCK);
    fs::create_dir(case.path("state")).unwrap();
    let python =
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE mine (a)'); c.commit()";
    assert!(Command::new("python3").args(["-c", python]).arg(case.db()).status().unwrap().success());
    let before = fs::read(case.db()).unwrap();
    guarded_all_the_same(&case, &["in memory only", "not one of TrustRun's"]);
    assert!(fs::read(case.db()).unwrap() == before, "it was written to");
    // A folder, and a place where none can be made.
    for (db, why) in [("/", "events are kept in memory only"), ("/proc/no/events.db", "events are kept in memory only")]
    {
        let case = Case::anyone().policy(BLOCK).with(&["--db", db]);
        guarded_all_the_same(&case, &[why]);
    }
}

/// With `full` a disk of so many kilobytes.
fn with_small_disk(case: Case, kilobytes: u32, then: &str) -> Case {
    fs::create_dir_all(case.path("full")).unwrap();
    let disk = format!("mount -t tmpfs -o size={kilobytes}k none \"$DIR/full\" && {then}");
    case.inside(&format!("exec unshare -m sh -c '{disk} && exec \"$@\"' sh \\"))
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named_and_the_command_guarded() {
    let Some(case) = Case::new() else { return };
    let case = with_small_disk(case.policy(BLOCK), 16, "true").with(&["--db", "full/events.db"]);
    guarded_all_the_same(&case, &["in memory only", "events.db"]);
}

#[test]
fn a_disk_that_becomes_full_costs_events_and_not_the_report() {
    let Some(case) = Case::new() else { return };
    let case = with_small_disk(case.policy(BLOCK), 400, "true").with(&["--db", "full/events.db"]);
    let ran = case.sh("for i in $(seq 1500); do /bin/true; done; exit 3");
    ran.exits(3).says("INCOMPLETE").verdict("incomplete");
    assert!(ran.gaps().contains(&"events-not-stored".to_owned()), "{}", ran.report()["gaps"]);
    let counters = &ran.report()["counters"];
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert!(dropped > 0);
    assert_eq!(counters["emitted"].as_u64().unwrap(), counters["stored"].as_u64().unwrap() + dropped, "{counters}");
}

#[test]
fn a_full_disk_for_the_report_is_named_and_leaves_no_half_of_one() {
    let Some(case) = Case::new() else { return };
    let fill = "head -c 14000 /dev/zero > \"$DIR/full/fill\"; ls -A \"$DIR/full\" > \"$DIR/before\"";
    let case = with_small_disk(case.policy(BLOCK), 16, fill).with(&["--report", "full/r.json"]);
    // Seen from inside, since the disk is gone with its mount namespace.
    let Case { shell, .. } = &case;
    let shell = shell
        .as_deref()
        .unwrap()
        .replace("&& exec \"$@\"", "; \"$@\"; code=$?; ls -A \"$DIR/full\" > \"$DIR/after\"; exit $code");
    let case = case.inside(&shell);
    let ran = case.sh("exit 3");
    ran.exits(3).says("PASS").says("writing the report").says("No space left");
    assert_eq!((case.read("before"), case.read("after")), ("fill\n".into(), "fill\n".into()));
}

#[test]
fn a_full_disk_for_the_events_is_a_gap() {
    let Some(case) = Case::new() else { return };
    let case = with_small_disk(case.policy(BLOCK), 8, "true").with(&["--events", "full/e.ndjson"]);
    let ran = case.sh("for i in $(seq 50); do /bin/true; done; exit 3");
    ran.exits(3).verdict("incomplete");
    assert_eq!(ran.gaps(), ["event-lines-lost"]);
}

// --- Files that cannot be written ---

#[test]
fn a_report_that_cannot_be_written_is_named_and_the_exit_code_is_the_commands() {
    let Some(case) = Case::new() else { return };
    let folder = case.path("folder");
    fs::create_dir(&folder).unwrap();
    for place in [folder.to_str().unwrap(), "/proc/self/status/r.json", "no/such/folder/r.json", "/proc/r.json", "/"] {
        let case = Case::anyone().policy(BLOCK).with(&["--report", place]);
        let ran = case.run(&["sh", "-c", "exit 3"]);
        ran.exits(3).says("PASS").says("writing the report to");
        let case = Case::anyone().policy(BLOCK).with(&["--learn", place]);
        case.sh("exit 3").exits(3).says("PASS").says("writing the policy");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn events_that_cannot_be_written_keep_the_command_from_starting() {
    let Some(case) = Case::new() else { return };
    fs::create_dir(case.path("folder")).unwrap();
    let case = case.policy(BLOCK).with(&["--events", "folder"]);
    case.sh(": > \"$DIR/started\"").exits(125).says("folder");
    assert!(!case.path("started").exists());
}

#[test]
fn a_closed_stderr_or_stdout_is_no_reason_to_fail() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    let mut command = case.command(&["sh", "-c", "exit 3"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    assert_eq!(report["verdict"], "pass");
    for closed in [">&-", "2>&-", "<&-", "<&- >&- 2>&-"] {
        let inside = format!("exec {closed} \\");
        let one = Case::anyone().policy(BLOCK);
        let one = Case::inside(one, &inside);
        let mut command = one.command(&["sh", "-c", "exit 3"]);
        assert_eq!(
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code(),
            Some(3),
            "{closed}"
        );
        let report: Value = serde_json::from_str(&one.read("report.json")).unwrap();
        assert_eq!(report["verdict"], "pass", "{closed}");
    }
}
