//! Who did it: every destination carries the process, its executable and its arguments, however short it lived.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::{Run, arrived, lab_with, only, python, python_step, step};
use trustrun_lab::{ALLOWED, EVIL};
use trustrun_model::Verdict;

/// What `processes.py` says about itself, and the process in the report.
#[test]
fn threads_forks_execs_and_short_lives_are_told_apart() {
    let Some(lab) = lab_with(&["python3", "bash"]) else { return };
    let address = ALLOWED.to_string();
    let kinds = ["plain", "thread", "fork", "double-fork", "exec-chain", "short", "renamed"];
    let steps: Vec<_> = kinds.iter().map(|kind| python_step("processes.py", &[kind, &address, "9"])).collect();
    let (ran, results) = Run::new(&lab).policy(only(&["203.0.113.10:9"])).steps(&steps);
    assert!(results.iter().all(|r| r.code == 0), "{results:?}\n{ran}");
    ran.passed();
    let d = ran.one(ALLOWED, 9);
    assert_eq!(d.connections, kinds.len() as u64, "{ran}");
    assert_eq!(d.processes.len(), kinds.len(), "{ran}");
    for (kind, result) in kinds.iter().zip(&results) {
        let said = result.json();
        let by = |kind: &str| d.processes.iter().find(|p| p.argv.iter().any(|a| a == kind));
        let process = match *kind {
            // The last program of the chain, not the shell or env that began it.
            "exec-chain" => {
                let argv: Vec<_> = said["argv"].as_array().expect("argv").iter().filter_map(|a| a.as_str()).collect();
                d.processes.iter().find(|p| p.argv == argv)
            }
            "short" => by("short-lived").filter(|p| p.argv[0] == "bash" && p.exe.ends_with("/bash")),
            kind => {
                d.processes.iter().find(|p| said["pid"].as_u64() == Some(p.pid.into())).filter(|p| p.argv[2] == kind)
            }
        };
        let process = process.unwrap_or_else(|| panic!("{kind}: {said}\n{ran}"));
        assert!(*kind == "short" || process.exe == python(), "{kind}: {process:?}");
        if *kind == "thread" {
            assert_ne!(said["tid"], said["pid"], "the thread was the first one");
        }
    }
}

#[test]
fn refusals_are_attributed_in_every_kind_of_process() {
    let Some(lab) = lab_with(&["python3", "bash"]) else { return };
    let address = EVIL.to_string();
    let kinds = ["thread", "double-fork", "short"];
    let steps: Vec<_> = kinds.iter().map(|kind| python_step("processes.py", &[kind, &address, "9"])).collect();
    let (ran, results) = Run::new(&lab).policy(only(&["203.0.113.10:9"])).steps(&steps);
    assert!(results.iter().all(|r| r.code == 1 && r.errno().as_deref() == Some("EPERM")), "{results:?}\n{ran}");
    support::nothing_arrived(&lab, &ran);
    for word in ["thread", "double-fork", "short-lived"] {
        let mut by = ran.violations_of(EVIL).into_iter().filter(|v| v.process.argv.iter().any(|a| a == word));
        assert!(by.next().is_some(), "{word}\n{ran}");
    }
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn two_thousand_short_programs_are_all_in_the_report_each_with_its_own_arguments() {
    let Some(lab) = lab_with(&["python3", "bash"]) else { return };
    let address = ALLOWED.to_string();
    let ran = Run::new(&lab)
        .policy(only(&["203.0.113.10:9"]))
        .deadline(Duration::from_secs(120))
        .python("many_short.py", &["2000", &address, "9"]);
    eprintln!("{:?}, {}", ran.took, ran.stdout.trim());
    ran.passed();
    let d = ran.one(ALLOWED, 9);
    assert_eq!(d.connections, 2000, "{}", ran.stderr);
    let clients: BTreeSet<&str> =
        d.processes.iter().flat_map(|p| &p.argv).map(String::as_str).filter(|a| a.starts_with("client-")).collect();
    assert_eq!(clients.len(), 2000, "{}", ran.stderr);
    assert_eq!(d.processes.len(), 2000, "{}", ran.stderr);
    assert_eq!(arrived(&lab).len(), 2000);
    assert_eq!(ran.gap("unattributed"), 0);
    assert!(ran.report.counters.dropped.is_empty(), "{:?}", ran.report.counters);
}

#[test]
fn secrets_in_arguments_are_gone_before_anything_is_stored() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let secret = "hunter2-correct-horse";
    let header = format!("Authorization: Bearer {secret}");
    let user = format!("me:{secret}");
    let steps = [
        step(&["curl", "-4", "-sS", "-H", &header, "http://api.allowed.test/"]),
        step(&["curl", "-4", "-sS", "-u", &user, "http://api.allowed.test/"]),
        step(&["curl", "-4", "-sS", &format!("http://api.allowed.test/?api_key={secret}")]),
        step(&["curl", "-4", "-sS", &format!("http://me:{secret}@203.0.113.66/")]),
    ];
    let events = lab.folder().join("events.ndjson");
    let (ran, results) = Run::new(&lab)
        .policy(only(&["api.allowed.test"]))
        .option("--events")
        .option(&support::text(&events))
        .steps(&steps);
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [0, 0, 0, 7], "{results:?}\n{ran}");
    let report = serde_json::to_string(&ran.report).expect("a report");
    assert!(!report.contains(secret), "{report}");
    assert!(!ran.stderr.contains(secret), "{ran}");
    let lines = std::fs::read_to_string(&events).expect("events");
    assert!(lines.contains("\"curl\"") && !lines.contains(secret), "{lines}");
    for file in std::fs::read_dir(ran.folder.path()).expect("a folder").flatten() {
        let bytes = std::fs::read(file.path()).expect("a file");
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{:?} holds the secret", file.path());
    }
    let argv: Vec<_> = ran.report.destinations.iter().flat_map(|d| &d.processes).collect();
    assert!(argv.len() >= 3 && argv.iter().all(|p| p.argv[0] == "curl"), "{ran}");
}
