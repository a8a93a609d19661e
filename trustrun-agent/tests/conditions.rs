//! Rules that speak about some processes (`when`), that are silent about something (`except`), and about who connects to
//! the command (`listen`), on the real kernel.

mod support;

use std::fs;

use support::{Run, lab, lab_with, text};
use trustrun_lab::{ALLOWED, Lab};
use trustrun_model::{Action, Direction, Severity};

/// A policy that lets curl alone reach a host, and everybody one address.
fn for_curl(curl: &str) -> String {
    format!(
        "version: 1\nname: test\ndefault: block\nrules:\n  - name: curl alone\n    allow: [\"api.allowed.test:443\"]\n    \
         when: {{exe: \"{curl}\"}}\n    reason: a test\n    severity: low\n"
    )
}

/// A copy of curl in a folder of its own, and the folder.
fn copied(lab: &Lab, name: &str) -> String {
    let folder = lab.folder().join("bin");
    let _ = fs::create_dir(&folder);
    let file = folder.join(name);
    fs::copy("/usr/bin/curl", &file).expect("a copy");
    text(&file).to_string()
}

const FETCH: &str = "-4 -sS -m 20 -o /dev/null https://api.allowed.test/";

#[test]
fn a_rule_with_a_condition_speaks_about_that_executable_alone() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let (known, other) = (copied(&lab, "known"), copied(&lab, "other"));
    let link = lab.folder().join("link");
    std::os::unix::fs::symlink(&known, &link).expect("a link");
    let link = text(&link).to_string();
    // A shell in between, a link and another name given to execve change nothing; another file is another program.
    let script = format!(
        "{known} {FETCH} && sh -c '{link} {FETCH}; exit $?' && (exec -a other {known} {FETCH}) && ! {other} {FETCH}"
    );
    let ran = Run::new(&lab).policy(for_curl(&known)).command(&["bash", "-c", &script]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    let d = ran.one(ALLOWED, 443);
    assert_eq!((d.action, d.rule.as_str(), d.connections), (Action::Allow, "curl alone", 3), "{ran}");
    let refused: Vec<_> = ran.report.violations.iter().map(|v| (v.rule.as_str(), v.process.exe.as_str())).collect();
    assert!(!refused.is_empty() && refused.iter().all(|r| *r == ("default", &other)), "{refused:?} {ran}");
    assert!(ran.report.gaps.is_empty(), "{ran}");
}

#[test]
fn a_file_that_comes_later_is_not_classified() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let known = copied(&lab, "known");
    let glob = known.replace("/known", "/*");
    let later = known.replace("/known", "/later");
    // It matches the glob, but was not there: what is blocked for some stays blocked for it.
    let policy = format!(
        "version: 1\nname: test\ndefault: allow\nrules:\n  - name: not by these\n    block: [\"api.allowed.test\"]\n    \
         when: {{exe: \"{glob}\"}}\n"
    );
    let script = format!("! {known} {FETCH} && cp {known} {later} && ! {later} {FETCH} && curl {FETCH}");
    let ran = Run::new(&lab).policy(policy).command(&["sh", "-c", &script]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(ran.one(ALLOWED, 443).connections, 1, "{ran}");
    assert!(ran.report.limits.iter().any(|l| l.kind == "class-file-writable"), "{ran}");
}

#[test]
fn users_and_arguments_are_conditions_too() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let policy = "version: 1\nname: test\ndefault: block\nrules:\n  - name: with the word\n    \
                  allow: [\"api.allowed.test:443\"]\n    when: {argument: \"--tcp-nodelay\", user: root}\n";
    let script = format!("curl --tcp-nodelay {FETCH} && ! curl --tcp-nodelay=1 {FETCH} && ! curl {FETCH}");
    let ran = Run::new(&lab).policy(policy).option("--run-as").option("root").command(&["sh", "-c", &script]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(ran.one(ALLOWED, 443).rule, "with the word", "{ran}");
    let ran = Run::new(&lab).policy(policy).option("--run-as").option("nobody").command(&["sh", "-c", &script]);
    assert_ne!(ran.code(), Some(0), "{ran}");
    assert!(ran.report.destinations.is_empty(), "{ran}");
}

#[test]
fn an_excepted_name_is_refused_though_its_address_is_allowed() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let policy = format!(
        "version: 1\nname: test\ndefault: block\nrules:\n  - name: the net\n    allow: [\"203.0.113.0/24\", \"*.allowed.test\"]\n    \
         except: [{{destination: \"api.allowed.test:443\", reason: x}}, {{destination: \"{ALLOWED}/32:8080\", reason: y}}]\n"
    );
    let script = "! curl -4 -sS -m 20 https://api.allowed.test/ && curl -4 -sS -m 20 http://api.allowed.test/ && \
                  ! curl -4 -sS -m 20 http://api.allowed.test:8080/";
    let ran = Run::new(&lab).policy(policy).command(&["sh", "-c", script]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(ran.one(ALLOWED, 443).action, Action::Block, "{ran}");
    assert_eq!((ran.one(ALLOWED, 80).action, ran.one(ALLOWED, 80).rule.as_str()), (Action::Allow, "the net"), "{ran}");
    assert_eq!(ran.one(ALLOWED, 8080).action, Action::Block, "{ran}");
    assert!(ran.report.gaps.is_empty(), "{ran}");
}

#[test]
fn what_this_host_cannot_tell_is_a_limit_where_nothing_is_refused() {
    let Some(lab) = lab() else { return };
    for when in ["{exe: /no/such/program}", "{user: no-such-user}"] {
        let policy =
            format!("version: 1\nname: test\ndefault: block\nrules:\n  - allow: [\"a.test\"]\n    when: {when}\n");
        let ran = Run::new(&lab).policy(&*policy).option("--observe").command(&["true"]);
        assert_eq!(ran.code(), Some(0), "{ran}");
        assert!(ran.report.limits.iter().any(|l| l.kind == "conditions-not-told"), "{ran}");
    }
}

#[test]
fn violations_say_how_bad_they_are_and_where_the_rule_is() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let policy = "version: 1\nname: test\ndefault: allow\nrules:\n  - name: no fetching\n    alert: [\"api.allowed.test\"]\n    \
                  severity: critical\n    reason: ticket 812\n";
    let ran = Run::new(&lab).policy(policy).command(&["sh", "-c", &format!("curl {FETCH}")]);
    let v = ran.report.violations.iter().find(|v| v.address == Some(ALLOWED.into())).expect("a violation");
    assert_eq!((v.severity, v.reason.as_deref()), (Severity::Critical, Some("ticket 812")), "{ran}");
    assert_eq!(v.direction, Direction::Out);
    assert!(v.source.as_deref().is_some_and(|s| s.ends_with(":5")), "{ran}");
}

/// A server inside that takes one connection, and says at which port it waits; the other side connects from outside.
const SERVER: &str = "import socket, sys\ns = socket.socket()\ns.bind(('0.0.0.0', 8888))\ns.listen()\n\
    c = socket.create_connection(('127.0.0.1', 8888))\ns.accept()\n";

#[test]
fn the_commands_own_connections_to_itself_are_not_judged_by_listen_rules() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let policy = "version: 1\nname: test\ndefault: alert\nlisten:\n  - name: nobody\n    alert: [\"*\"]\n";
    let ran = Run::new(&lab).policy(policy).command(&["python3", "-c", SERVER]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert!(ran.report.violations.is_empty(), "{ran}");
    assert!(ran.report.destinations.iter().any(|d| d.direction == Direction::In), "{ran}");
}
