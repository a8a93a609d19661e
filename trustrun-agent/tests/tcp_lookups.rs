//! Lookups over TCP are answered by the agent's own resolver: they are events like those that the kernel saw.

mod support;

use serde_json::Value;
use support::{Ran, Run, lab_with, only};
use trustrun_lab::Lab;
use trustrun_model::Verdict;
use trustrun_store::{EventKind, Reader};

/// Asks for a name whose answer fits in no datagram.
fn lookup<'a>(lab: &'a Lab, allowed: &str) -> Run<'a> {
    Run::new(lab).policy(only(&[allowed])).env("RES_OPTIONS", "no-edns0 use-vc")
}

/// The rows of lookups over TCP in the database: kind, name, and what the kind adds.
#[track_caller]
fn stored(ran: &Ran) -> Vec<(EventKind, String, Value)> {
    let reader = Reader::open(&ran.folder.path().join("events.db")).expect("the database");
    let rows = reader.events(&ran.report.session.id, 0, 10_000).expect("events");
    assert_eq!(rows.len() as u64, ran.report.counters.stored, "{ran}");
    assert!(ran.report.counters.dropped.is_empty() && ran.report.counters.emitted == rows.len() as u64, "{ran}");
    let sequence: Vec<u64> = rows.iter().map(|r| r.seq).collect();
    assert_eq!(sequence, (1..=rows.len() as u64).collect::<Vec<_>>(), "each has a number of its own");
    let lookups = rows.into_iter().filter(|r| {
        matches!(r.kind, EventKind::Query | EventKind::Answer) && r.protocol == Some(trustrun_model::Protocol::Tcp)
    });
    lookups
        .map(|r| {
            assert!(r.flow.is_some() && r.process.tgid > 1, "{r:?}");
            let detail = r.detail.as_deref().map(|d| serde_json::from_str(d).expect("JSON")).unwrap_or_default();
            (r.kind, r.host.as_deref().unwrap_or_default().to_owned(), detail)
        })
        .collect()
}

#[test]
fn a_lookup_over_tcp_is_stored_with_its_answer() {
    let Some(lab) = lab_with(&["getent"]) else { return };
    let events = lab.folder().join("events.ndjson");
    let ran = lookup(&lab, "tcp.allowed.test:443").option("--events").option(&support::text(&events)).command(&[
        "getent",
        "ahostsv4",
        "tcp.allowed.test",
    ]);
    ran.passed();
    let rows = stored(&ran);
    let of = |kind| rows.iter().filter(|(k, host, _)| *k == kind && host == "tcp.allowed.test").count();
    assert!(of(EventKind::Query) > 0 && of(EventKind::Query) == of(EventKind::Answer), "{rows:?}\n{ran}");
    assert!(rows.iter().all(|(_, _, d)| d["refused"].is_null()), "{rows:?}");
    let lines = std::fs::read_to_string(&events).expect("the events");
    assert_eq!(lines.lines().count() as u64, ran.report.counters.emitted, "the event lines hold them too\n{lines}");
    let asked = |l: &&str| l.contains(r#""kind":"query""#) && l.contains(r#""protocol":"tcp""#);
    assert_eq!(lines.lines().filter(asked).count(), of(EventKind::Query), "{lines}");
}

#[test]
fn a_refused_lookup_over_tcp_is_stored_as_refused() {
    let Some(lab) = lab_with(&["getent"]) else { return };
    let ran = lookup(&lab, "api.allowed.test").command(&["getent", "ahostsv4", "evil.test"]);
    ran.verdict(Verdict::Fail).no_gaps();
    assert!(lab.dns().queries().is_empty(), "{:?}\n{ran}", lab.dns().queries());
    let rows = stored(&ran);
    assert!(!rows.is_empty(), "{ran}");
    let refused = |(kind, host, d): &(EventKind, String, Value)| {
        host == "evil.test" && (*kind == EventKind::Answer || d["refused"] == "policy")
    };
    assert!(rows.iter().all(refused), "{rows:?}\n{ran}");
}
