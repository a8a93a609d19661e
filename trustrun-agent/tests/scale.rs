//! Many names: what is learnt from an answer counts for the very next system call, fifty thousand times.

mod support;

use std::time::Duration;

use support::{Run, lab_with, only};
use trustrun_lab::RESOLVER;

#[test]
fn fifty_thousand_fresh_names_are_resolved_and_connected_to_at_once() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let resolver = RESOLVER.to_string();
    let ran = Run::new(&lab)
        .policy(only(&["*.fresh.test:9"]))
        .deadline(Duration::from_secs(240))
        .python("fresh_names.py", &["50000", &resolver, "9", "2"]);
    eprintln!("{:?}, {}", ran.took, ran.stdout.trim());
    let gaps = &ran.report.gaps;
    assert_eq!(ran.code(), Some(0), "{}\n{}\n{gaps:?}", ran.stdout, ran.stderr);
    ran.passed();
    assert_eq!(ran.json()["connected"], 50_000, "{}", ran.stdout);
    assert!(ran.report.counters.dropped.is_empty(), "{:?}", ran.report.counters);
    assert_eq!(ran.gap("unattributed"), 0);
    let named = ran.report.destinations.iter().filter(|d| d.host.as_ref().is_some_and(|h| h.ends_with(".fresh.test")));
    assert_eq!(named.map(|d| d.connections).sum::<u64>(), 50_000);
    assert!(ran.report.destinations.iter().all(|d| d.processes.len() == 1 && !d.processes[0].argv.is_empty()));
    assert_eq!(lab.dns().lost(), 0);
}
