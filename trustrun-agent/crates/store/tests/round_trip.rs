//! What is appended is read back, by pages, by name, while it is being written.

mod common;

use common::{LONG, assert_exact, observation, opened, report, start, until};
use rusqlite::Connection;
use trustrun_model::{Fact, LookupRefusal, Report, Verdict};
use trustrun_store::{EventKind, EventRow, Reader, SessionState, Store, StoreError};

#[test]
fn a_session_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/events.db");
    let begin = start("20261120T215534Z-7f3a9c");
    let handle = Store::open(&path).unwrap().start(begin.clone()).unwrap();
    let mut row = opened(2);
    (row.host, row.rule) = (Some("api.example.com".into()), Some("lab network".into()));
    let closed = Fact::Closed { flow: common::flow(3), sent: u64::MAX, received: 5 };
    let query = Fact::Query {
        flow: common::flow(4),
        refused: Some(LookupRefusal::Policy),
        resolver: true,
        message: vec![1; 40],
    };
    let rows: Vec<EventRow> = [
        EventRow::from_observation(
            1,
            &observation(1, Fact::Exec { exe: "/bin/sh".into(), argv: vec!["sh".into()], truncated: false }),
        ),
        row,
        EventRow::from_observation(3, &observation(3, closed)),
        EventRow::from_observation(4, &observation(4, query)),
    ]
    .into();
    handle.append(rows.clone()).unwrap();
    let (stats, error) = handle.sync(LONG);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((stats.offered, stats.stored), (4, 4));

    let reader = Reader::open(&path).unwrap();
    let running = reader.session("last").unwrap();
    assert_eq!((running.state, running.verdict), (SessionState::Running, Verdict::Incomplete));
    assert_eq!(reader.report("last").unwrap(), None);

    handle.finish(&report(&begin, Verdict::Pass, &stats), 1_795_211_735_000_000_000, LONG).unwrap();
    drop(handle);
    let session = reader.session("20261120T2155").unwrap();
    assert_eq!((session.state, session.verdict), (SessionState::Finished, Verdict::Pass));
    assert_eq!((session.command, session.labels, session.policy), (begin.command, begin.labels, begin.policy));
    assert_eq!((session.violations, session.counters.unwrap().stored), (Some(0), 4));
    let stored: Report = serde_json::from_str(&reader.report("last").unwrap().unwrap()).unwrap();
    assert_eq!(stored.session.id, session.id);
    assert_eq!(reader.events("last", 0, 100).unwrap(), rows);
    assert_eq!(reader.events("last", 2, 1).unwrap(), rows[2..3]);
    assert_eq!(rows[3].detail.as_deref(), Some(r#"{"length":40,"refused":"policy","resolver":true}"#));
}

#[test]
fn sessions_are_listed_latest_first_and_found_by_unique_beginnings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    for id in ["a-1", "a-2", "b-1", "b-10"] {
        let handle = Store::open(&path).unwrap().start(start(id)).unwrap();
        handle.append((1..=3).map(opened).collect()).unwrap();
    }
    let reader = Reader::open(&path).unwrap();
    let ids = |rows: &[trustrun_store::SessionRow]| rows.iter().map(|s| s.id.clone()).collect::<Vec<_>>().join(" ");
    let page = reader.sessions(3, None).unwrap();
    assert_eq!(ids(&page), "b-10 b-1 a-2");
    assert_eq!(ids(&reader.sessions(3, Some(page[2].key)).unwrap()), "a-1");
    assert_eq!(reader.session("b-1").unwrap().id, "b-1");
    assert!(matches!(reader.session("a"), Err(StoreError::Ambiguous { found, .. }) if found == ["a-1", "a-2"]));
    for nobody in ["c", "%", "_", "last ", "\0"] {
        assert!(matches!(reader.session(nobody), Err(StoreError::NoSession { .. })), "{nobody}");
    }
    assert_eq!(reader.events("a-2", 0, usize::MAX).unwrap().len(), 3);
}

#[test]
fn rows_appear_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let handle = Store::open(&path).unwrap().start(start("s")).unwrap();
    handle.try_append(opened(1)).unwrap();
    let reader = Reader::open(&path).unwrap();
    until("one row", || reader.events("s", 0, 10).unwrap().len() == 1);
}

#[test]
fn a_sequence_used_twice_or_out_of_range_is_dropped_and_counted() {
    let store = Store::memory().unwrap();
    assert_eq!(store.path(), None);
    let handle = store.start(start("s")).unwrap();
    handle.append(vec![opened(1), opened(1), opened(1 << 40), opened(u64::MAX), opened(2)]).unwrap();
    let (stats, error) = handle.sync(LONG);
    assert!(error.is_none());
    assert_eq!((stats.stored, stats.dropped_store), (2, 3));
    assert_exact(&stats);
}

#[test]
fn what_the_channel_cannot_hold_is_dropped_and_counted() {
    let handle = Store::memory().unwrap().start(start("s")).unwrap();
    let mut refused = 0;
    for round in 0..20 {
        let rows =
            (1..=50_000).map(|n| EventRow { detail: Some("x".repeat(200).into()), ..opened(round * 50_000 + n) });
        refused += handle.append(rows.collect()).err().map_or(0, |full| full.rows);
    }
    let (stats, _) = handle.sync(LONG);
    assert_eq!((stats.offered, stats.dropped_channel), (1_000_000, refused));
    assert_exact(&stats);
    assert!(stats.stored > 0);
}

#[test]
fn two_agents_write_to_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    const ROUNDS: u64 = 60;
    std::thread::scope(|scope| {
        for agent in ["one", "two", "three"] {
            let path = &path;
            scope.spawn(move || {
                let handle = Store::open(path).unwrap().start(start(agent)).unwrap();
                for round in 0..ROUNDS {
                    handle.append((1..=500).map(|n| opened(round * 500 + n)).collect()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                let (stats, error) = handle.sync(LONG);
                assert!(error.is_none(), "{error:?}");
                assert_eq!(stats.stored, ROUNDS * 500);
                handle.finish(&report(&start(agent), Verdict::Fail, &stats), 0, LONG).unwrap();
            });
        }
    });
    let reader = Reader::open(&path).unwrap();
    for agent in ["one", "two", "three"] {
        assert_eq!(reader.session(agent).unwrap().verdict, Verdict::Fail);
    }
    let rows: i64 =
        Connection::open(&path).unwrap().query_row("SELECT count(*) FROM events", [], |r| r.get(0)).unwrap();
    assert_eq!(rows.cast_unsigned(), 3 * ROUNDS * 500);
}

#[test]
fn the_database_itself_refuses_a_pass_without_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    drop(Store::open(&path).unwrap().start(start("s")).unwrap());
    let conn = Connection::open(&path).unwrap();
    assert!(conn.execute("UPDATE sessions SET verdict = 'pass'", []).is_err());
}

#[test]
fn kinds_have_words() {
    assert!(EventKind::ALL.iter().all(|kind| !kind.as_str().is_empty()));
}
