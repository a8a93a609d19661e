//! A database that cannot be written: it is left as it is, said aloud, and the session goes on in memory.

#![allow(clippy::unwrap_used, reason = "clippy does not take helpers for tests")]

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use common::{LONG, assert_exact, is_root, opened, report, start, until};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rusqlite::Connection;
use trustrun_model::Verdict;
use trustrun_store::{Reader, SessionState, Store, StoreError};

/// Opening fails for this reason, a store in memory works instead.
fn falls_back(path: &Path) -> StoreError {
    let (store, reason) = Store::open_or_memory(path).unwrap();
    let reason = reason.expect("opening fails");
    eprintln!("{reason}");
    assert_eq!(store.path(), None);
    let handle = store.start(start("s")).unwrap();
    handle.append((1..=10).map(opened).collect()).unwrap();
    assert_eq!(handle.sync(LONG).0.stored, 10);
    reason
}

#[test]
fn a_corrupt_file_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let garbage = b"this is no database, but somebody may want it".repeat(200);
    fs::write(&path, &garbage).unwrap();
    assert!(matches!(falls_back(&path), StoreError::Corrupt { .. }));
    assert!(matches!(Reader::open(&path), Err(StoreError::Corrupt { .. })));
    assert_eq!(fs::read(&path).unwrap(), garbage);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was put beside it");
}

#[test]
fn a_damaged_database_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    Store::open(&path).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "DELETE").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(falls_back(&path), StoreError::Corrupt { .. }));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_database_of_something_else_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("places.sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(falls_back(&path), StoreError::Foreign { .. }));
    assert!(matches!(Reader::open(&path), Err(StoreError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_database_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    Store::open(&path).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1_000).unwrap();
    assert!(matches!(falls_back(&path), StoreError::Newer { .. }));
    assert!(matches!(Reader::open(&path), Err(StoreError::Newer { .. })));
}

#[test]
fn a_place_that_cannot_be_written_falls_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(falls_back(&file.join("events.db")), StoreError::Create { .. }));
    assert!(matches!(falls_back(Path::new("/proc/trustrun/events.db")), StoreError::Directory { .. }));
    assert!(matches!(falls_back(Path::new("/proc/events.db")), StoreError::Create { .. }));
    assert!(matches!(falls_back(dir.path()), StoreError::Access { .. }));
    assert!(matches!(falls_back(Path::new("/")), StoreError::Create { .. }));
    assert!(matches!(Reader::open(&dir.path().join("no")), Err(StoreError::Missing { .. })));
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (dir.path().join("events.db"), dir.path().join("elsewhere"));
    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(falls_back(&path), StoreError::Access { .. }));
    assert!(!elsewhere.exists());
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, dir.path().join("linked")).unwrap();
    let store = Store::open(&dir.path().join("linked/events.db")).unwrap();
    assert!(store.path().unwrap().ends_with("real/events.db"));
}

#[test]
fn a_locked_database_falls_back_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    Store::open(&path).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE; CREATE TABLE x (y)").unwrap();
    let begun = Instant::now();
    assert!(matches!(falls_back(&path), StoreError::Locked { .. }));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn a_lock_taken_later_delays_rows_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let handle = Store::open(&path).unwrap().start(start("s")).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    handle.append((1..=1000).map(opened).collect()).unwrap();
    until("the lock is noticed", || handle.stats().last_error.is_some());
    assert_eq!(handle.stats().stored, 0);
    let begun = Instant::now();
    let (_, late) = handle.sync(Duration::from_millis(100));
    assert!(matches!(late, Some(StoreError::Timeout { .. })), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    holder.execute_batch("ROLLBACK").unwrap();
    until("the rows are stored", || handle.stats().stored == 1000);
    assert_exact(&handle.stats());
    assert_eq!(handle.stats().last_error, None);
}

#[test]
fn files_and_directories_are_made_for_their_owner_and_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lib/trustrun/events.db");
    let handle = Store::open(&path).unwrap().start(start("s")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    for name in ["events.db", "events.db-wal", "events.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o640, "{name}");
    }
    drop(handle);
}

#[test]
fn a_full_disk_loses_rows_by_count_and_recovers() {
    if !is_root() {
        eprintln!("SKIPPED: a full disk needs root to mount a small tmpfs");
        return;
    }
    // A mount namespace belongs to a thread; nothing is left of it when the thread ends.
    let outcome = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2m"))?;
        fill_and_free(dir.path());
        nix::Result::Ok(())
    });
    if let Err(error) = outcome.join().unwrap() {
        eprintln!("SKIPPED: cannot mount a small tmpfs: {error}");
    }
}

fn fill_and_free(dir: &Path) {
    let path = dir.join("events.db");
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let begin = start("s");
    let handle = Store::open(&path).unwrap().start(begin.clone()).unwrap();
    let mut seq = 0;
    until("rows are dropped", || {
        let _ = handle.append((0..500).map(|n| opened(seq + n)).collect());
        seq += 500;
        handle.stats().dropped_store > 0
    });
    let (full, error) = handle.sync(LONG);
    assert!(matches!(error, Some(StoreError::Disk { .. })), "{error:?}");
    assert_exact(&full);
    let mut large = report(&begin, Verdict::Incomplete, &full);
    large.session.kernel = "x".repeat(4 << 20);
    assert!(matches!(handle.finish(&large, 0, LONG), Err(StoreError::Disk { .. })));
    assert_eq!(Reader::open(&path).unwrap().session("s").unwrap().state, SessionState::Running);

    fs::remove_file(&ballast).unwrap();
    handle.append((0..500).map(|n| opened(seq + n)).collect()).unwrap();
    until("rows are stored again", || handle.stats().stored > full.stored);
    let (stats, error) = handle.sync(LONG);
    assert!(error.is_none(), "{error:?}");
    assert_exact(&stats);
    handle.finish(&report(&begin, Verdict::Incomplete, &stats), 0, LONG).unwrap();
    let rows: i64 =
        Connection::open(&path).unwrap().query_row("SELECT count(*) FROM events", [], |r| r.get(0)).unwrap();
    assert_eq!(rows.cast_unsigned(), stats.stored);
}
