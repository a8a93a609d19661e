//! Agents that are killed, and agents that give up their rights. Each test starts this binary again as the agent.

#![allow(clippy::unwrap_used, reason = "clippy does not take helpers for tests")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{LONG, assert_exact, is_root, opened, report, start};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use trustrun_model::Verdict;
use trustrun_store::{Reader, SessionState, Store};

const ROLE: &str = "TRUSTRUN_STORE_TEST_ROLE";
const PLACE: &str = "TRUSTRUN_STORE_TEST_DB";
const NOBODY: u32 = 65_534;

fn agent(role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "agent_itself", "--nocapture"]).env(ROLE, role).env(PLACE, path);
    command
}

/// Not a test of its own: what the tests below start.
#[test]
fn agent_itself() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let path = PathBuf::from(path);
    match role.as_str() {
        "append" => append_forever(&path),
        "unprivileged" => append_without_rights(&path),
        "reader" => read_without_rights(&path),
        other => panic!("no role {other}"),
    }
}

fn append_forever(path: &Path) {
    let handle = Store::open(path).unwrap().start(start("killed")).unwrap();
    for round in 0.. {
        let _ = handle.append((1..=500).map(|n| opened(round * 500 + n)).collect());
        println!("\nstored {}", handle.stats().stored);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}

fn give_up_rights() {
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).unwrap();
    setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).unwrap();
}

fn read_without_rights(path: &Path) {
    give_up_rights();
    assert!(fs::File::create(path.with_file_name("x")).is_err(), "the directory may not be written");
    let reader = Reader::open(path).unwrap();
    assert_eq!(reader.session("last").unwrap().id, "s");
    assert_eq!(reader.events("last", 0, 10).unwrap().len(), 3);
}

fn append_without_rights(path: &Path) {
    let store = Store::open(path).unwrap();
    give_up_rights();
    assert!(fs::File::open(path).is_err(), "the rights are gone");
    let begin = start("unprivileged");
    let handle = store.start(begin.clone()).unwrap();
    // Enough for several checkpoints.
    for round in 0..2_000 {
        handle.append((1..=250).map(|n| opened(round * 250 + n)).collect()).unwrap();
        if round % 100 == 0 {
            assert!(handle.sync(LONG).1.is_none());
        }
    }
    let (stats, error) = handle.sync(LONG);
    assert!(error.is_none(), "{error:?}");
    assert_exact(&stats);
    assert_eq!(stats.stored, 500_000);
    handle.finish(&report(&begin, Verdict::Pass, &stats), 1, LONG).unwrap();
}

#[test]
fn a_killed_agent_leaves_its_rows_and_never_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let mut child = agent("append", &path).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stored = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("stored ").and_then(|n| n.parse::<u64>().ok()))
        .find(|stored| *stored > 30_000)
        .expect("the agent stores rows");
    assert_eq!(Reader::open(&path).unwrap().session("killed").unwrap().state, SessionState::Running);
    child.kill().unwrap();
    child.wait().unwrap();

    let reader = Reader::open(&path).unwrap();
    let session = reader.session("last").unwrap();
    assert_eq!((session.state, session.verdict), (SessionState::Lost, Verdict::Incomplete));
    let conn = rusqlite::Connection::open(&path).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM events", [], |r| r.get(0)).unwrap();
    assert!(rows.cast_unsigned() >= stored, "{rows} rows, {stored} were committed");
    assert_eq!(conn.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
    let next = Store::open(&path).unwrap().start(start("next")).unwrap();
    next.append(vec![opened(1)]).unwrap();
    assert_eq!(next.sync(LONG).0.stored, 1);
}

#[test]
fn an_agent_without_rights_stores_into_a_directory_of_root() {
    if !is_root() {
        eprintln!("SKIPPED: giving up rights needs rights");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trustrun/events.db");
    let output = agent("unprivileged", &path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o750);
    let session = Reader::open(&path).unwrap().session("last").unwrap();
    assert_eq!((session.verdict, session.counters.unwrap().stored), (Verdict::Pass, 500_000));
}

#[test]
fn the_group_reads_what_it_may_not_write() {
    if !is_root() {
        eprintln!("SKIPPED: giving up rights needs rights");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("trustrun/events.db");
    let store = Store::open(&path).unwrap();
    let shared = ["events.db", "events.db-wal", "events.db-shm", ""].map(|name| path.with_file_name(name));
    for file in &shared {
        std::os::unix::fs::chown(file, None, Some(NOBODY)).unwrap();
    }
    let read = |when: &str| {
        let output = agent("reader", &path).output().unwrap();
        assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let handle = store.start(start("s")).unwrap();
    handle.append((1..=3).map(opened).collect()).unwrap();
    assert!(handle.sync(LONG).1.is_none());
    read("while it is written");
    drop(handle);
    read("after its agent ended");
    // As other tools leave it.
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert!(!shared[1].exists(), "closed by the last one, who may");
    read("without a log");
}
