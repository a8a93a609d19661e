//! Watching without refusing, and the two actions that are neither `allow` nor `block`.

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use support::{AT_ONCE, Run, arrived, client, lab_with, only, policy, python, python_step, step};
use trustrun_lab::{ALLOWED, EVIL, HOSPITAL, TRACKER};
use trustrun_model::{Action, Assurance, Evidence, Verdict};

#[test]
fn without_a_policy_everything_works_and_is_reported() {
    let Some(lab) = lab_with(&["curl", "python3"]) else { return };
    let evil = EVIL.to_string();
    let steps = [
        step(&["curl", "-4", "-sS", "https://evil.test/"]),
        step(&["curl", "-4", "-sS", "https://api.allowed.test/"]),
        python_step("socket_kinds.py", &["udp-echo", &evil, "7"]),
        python_step("socket_kinds.py", &["icmp-raw", &evil, "0"]),
    ];
    let (ran, results) = Run::new(&lab).steps(&steps);
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [0, 0, 0, 0], "{results:?}\n{ran}");
    ran.verdict(Verdict::Observed).no_gaps();
    assert_eq!(ran.report.session.assurance, Assurance::Observed);
    assert!(ran.report.violations.is_empty() && ran.report.session.policy.is_none(), "{ran}");
    let d = ran.one(EVIL, 443);
    assert_eq!(
        (d.host.as_deref(), d.evidence, d.action),
        (Some("evil.test"), Evidence::DnsSni, Action::Allow),
        "{ran}"
    );
    assert_eq!(ran.one(ALLOWED, 443).host.as_deref(), Some("api.allowed.test"), "{ran}");
    assert_eq!(ran.one(EVIL, 7).bytes_received, 5, "{ran}");
    assert_eq!(ran.one(EVIL, 0).protocol.to_string(), "icmp", "{ran}");
    assert!(ran.stderr.contains("--learn"), "the summary offers to learn a policy\n{ran}");
}

/// Root, whom nothing holds here, could do what nobody sees.
const SOMEBODY: &str = "--run-as=nobody";

#[test]
fn observing_under_a_blocking_policy_refuses_nothing_and_reports_violations() {
    let Some(lab) = lab_with(&["curl", "python3"]) else { return };
    let evil = EVIL.to_string();
    let steps = [
        step(&["curl", "-4", "-sS", "https://evil.test/"]),
        step(&["curl", "-4", "-sS", "https://api.allowed.test/"]),
        step(&["curl", "-4", "-sS", "http://203.0.113.66/"]),
        python_step("socket_kinds.py", &["udp-sendto", &evil, "9"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test:443"])).option("--observe").steps(&steps);
    assert!(results.iter().all(|r| r.code == 0), "{results:?}\n{ran}");
    ran.verdict(Verdict::Fail);
    assert!(ran.report.gaps.iter().all(|g| g.kind == "root-target"), "{ran}");
    assert_eq!(ran.report.session.assurance, Assurance::Observed);
    assert_eq!(arrived(&lab).len(), 4, "{ran}");
    assert_eq!(ran.one(EVIL, 443).action, Action::Block, "{ran}");
    assert_eq!(ran.one(EVIL, 443).host.as_deref(), Some("evil.test"), "{ran}");
    assert!(ran.violations_of(EVIL).len() >= 3 && ran.violations_of(ALLOWED).is_empty(), "{ran}");
}

#[test]
fn an_observed_session_inside_its_policy_passes() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).option("--observe").option(SOMEBODY).command(&[
        "curl",
        "-4",
        "-sS",
        "https://api.allowed.test/",
    ]);
    ran.passed();
}

#[test]
fn alert_lets_through_and_records() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let ran = Run::new(&lab)
        .option(SOMEBODY)
        .policy(policy(Action::Allow, Action::Alert, &["tracker.test", "203.0.113.66"]))
        .command(&[
            "curl",
            "-4",
            "-sS",
            "https://tracker.test/",
            "http://203.0.113.66/",
            "https://fhir.hospital.test/",
        ]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(arrived(&lab).len(), 3, "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
    assert_eq!(
        (ran.one(TRACKER, 443).action, ran.one(TRACKER, 443).rule.as_str()),
        (Action::Alert, "the rule"),
        "{ran}"
    );
    assert_eq!(ran.one(EVIL, 80).action, Action::Alert, "{ran}");
    assert_eq!(ran.one(HOSPITAL, 443).action, Action::Allow, "{ran}");
    let alerts: Vec<_> = ran.report.violations.iter().map(|v| (v.action, v.host.as_deref())).collect();
    assert!(alerts.contains(&(Action::Alert, Some("tracker.test"))), "{ran}");
    assert_eq!(ran.report.violations.len(), 2, "{ran}");
}

#[test]
fn kill_refuses_and_ends_the_session_at_once() {
    let Some(lab) = lab_with(&["bash", "python3"]) else { return };
    let evil = EVIL.to_string();
    // It would go on for a minute, and so would the process that it left behind.
    let script = format!("sleep 61 & {} {} tcp {evil} 9; sleep 60", python(), client("socket_kinds.py"));
    let ran =
        Run::new(&lab).policy(policy(Action::Allow, Action::Kill, &["203.0.113.66"])).command(&["bash", "-c", &script]);
    assert_eq!(ran.status.signal(), Some(9), "{ran}");
    assert!(ran.took < Duration::from_secs(8), "{ran}");
    support::nothing_arrived(&lab, &ran);
    ran.verdict(Verdict::Fail).no_gaps();
    assert_eq!(ran.one(EVIL, 9).action, Action::Kill, "{ran}");
    assert_eq!(ran.violations_of(EVIL)[0].action, Action::Kill, "{ran}");
    assert_eq!(ran.report.session.exit.signal, Some(9), "{ran}");
}

#[test]
fn kill_ends_the_session_for_the_lookup_of_a_name() {
    let Some(lab) = lab_with(&["bash", "getent"]) else { return };
    let ran = Run::new(&lab).policy(policy(Action::Block, Action::Kill, &["*.evil.test"])).command(&[
        "bash",
        "-c",
        "getent ahosts www.evil.test; sleep 60",
    ]);
    assert_eq!(ran.status.signal(), Some(9), "{ran}");
    assert!(ran.took < Duration::from_secs(8), "{ran}");
    assert!(!lab.dns().was_asked("www.evil.test"), "{ran}");
    assert!(ran.lookup_refused("www.evil.test"), "{ran}");
    ran.verdict(Verdict::Fail);
}

#[test]
fn observing_kills_nobody() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let evil = EVIL.to_string();
    let ran = Run::new(&lab)
        .policy(policy(Action::Allow, Action::Kill, &["203.0.113.66"]))
        .option("--observe")
        .python("socket_kinds.py", &["tcp", &evil, "9"]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(arrived(&lab).len(), 1, "{ran}");
    assert_eq!(ran.violations_of(EVIL)[0].action, Action::Kill, "{ran}");
    ran.verdict(Verdict::Fail);
    assert!(ran.report.gaps.iter().all(|g| g.kind == "root-target"), "{ran}");
}

#[test]
fn severity_wins_whatever_the_order() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let text = "version: 1\ndefault: allow\nrules:\n  - name: narrow\n    allow: [\"api.allowed.test:443\"]\n  \
                - name: wide\n    block: [\"*.allowed.test\"]\n";
    let ran = Run::new(&lab).policy(text).command(&["curl", "-4", "-sS", "https://api.allowed.test/"]);
    assert!(ran.code() == Some(6) && ran.took < AT_ONCE * 4, "{ran}");
    support::nothing_arrived(&lab, &ran);
    ran.verdict(Verdict::Fail);
}
