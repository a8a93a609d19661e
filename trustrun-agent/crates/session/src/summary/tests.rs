use trustrun_model::{
    Assurance, Counters, Coverage, Destination, Direction, Evidence, Exit, Gap, Limit, Operator, PolicyRef, Process,
    Protocol, Report, SCHEMA, SessionInfo, Severity, ToolInfo, Verdict, Violation,
};

use super::*;

const NARROW: Style<'_> = Style { color: false, width: 100, full: false, db: None };

fn report(verdict: Verdict) -> Report {
    Report {
        schema: SCHEMA.into(),
        tool: ToolInfo::default(),
        session: SessionInfo {
            id: "20261120T215534Z-7f3a9c".into(),
            labels: Default::default(),
            command: ["python3", "train.py"].map(String::from).into(),
            exe_sha256: String::new(),
            user: "analyst".into(),
            operator: Operator::default(),
            host: "lab".into(),
            boot_id: String::new(),
            kernel: String::new(),
            sensor: "ebpf".into(),
            assurance: Assurance::Enforced,
            policy: (verdict != Verdict::Observed)
                .then(|| PolicyRef { name: "cohort-notebook".into(), ..PolicyRef::default() }),
            started_at: String::new(),
            ended_at: String::new(),
            exit: Exit { code: Some(0), signal: None },
        },
        verdict,
        coverage: Coverage::default(),
        destinations: vec![],
        queries: vec![],
        violations: vec![],
        gaps: vec![],
        limits: vec![],
        counters: Counters::default(),
    }
}

fn python() -> Process {
    Process { pid: 4242, exe: "/usr/bin/python3.12".into(), argv: vec!["python3".into(), "train.py".into()] }
}

fn destination(host: Option<&str>, address: &str, action: Action, connections: u64, rule: &str) -> Destination {
    let address: std::net::SocketAddr = address.parse().unwrap();
    Destination {
        host: host.map(Into::into),
        evidence: if host.is_some() { Evidence::DnsSni } else { Evidence::None },
        sni: None,
        address: address.ip(),
        port: address.port(),
        protocol: if address.port() == 53 { Protocol::Udp } else { Protocol::Tcp },
        direction: Direction::Out,
        local: String::new(),
        action,
        rule: rule.into(),
        baa: None,
        connections,
        bytes_sent: connections * 1_234,
        bytes_received: connections * 3_456_789,
        first_seen: String::new(),
        last_seen: String::new(),
        processes: vec![python()],
    }
}

fn violation(action: Action, host: &str, count: u64) -> Violation {
    Violation {
        at: String::new(),
        action,
        host: Some(host.into()),
        address: Some([198, 51, 100, 7].into()),
        port: 443,
        protocol: "tcp".into(),
        rule: "no trackers".into(),
        process: python(),
        suggestion: format!("if the program needs it, add to your policy: allow: [\"{host}:443\"]"),
        count,
        direction: Direction::Out,
        severity: Severity::of(action),
        reason: None,
        remedy: None,
        source: None,
    }
}

fn talked() -> Vec<Destination> {
    vec![
        destination(Some("phi.openai.azure.com"), "203.0.113.5:443", Action::Allow, 7, "azure"),
        destination(Some("phi.openai.azure.com"), "[2001:db8::5]:443", Action::Allow, 3, "azure"),
        destination(None, "10.20.0.9:5432", Action::Allow, 2, "lab network"),
        destination(None, "10.20.0.53:53", Action::Allow, 24, "resolver"),
        destination(None, "127.0.0.1:8888", Action::Allow, 3, "internal"),
    ]
}

#[test]
fn a_pass() {
    let report = Report { destinations: talked(), ..report(Verdict::Pass) };
    let expected = "\
PASS  12 connections to 2 destinations, all inside policy cohort-notebook
  session 20261120T215534Z-7f3a9c (enforced, ebpf, exit 0)

Destinations
  allow  10.20.0.9             2 connections, 2.5 kB out, 6.9 MB in  by python3.12 (4242)
         10.20.0.9:5432/tcp
  allow  phi.openai.azure.com  10 connections, 12.3 kB out, 34.6 MB in  by python3.12 (4242)
         203.0.113.5:443/tcp and 1 more
  and 3 connections inside the session itself
  and 24 connections to the resolver 10.20.0.53:53/udp

All of it: trustrun session show 20261120T215534Z-7f3a9c
";
    assert_eq!(render(&report, NARROW), expected);
}

#[test]
fn a_fail() {
    let mut destinations = talked();
    destinations.push(Destination {
        bytes_sent: 0,
        bytes_received: 0,
        ..destination(Some("stats.doubleclick.net"), "198.51.100.7:443", Action::Block, 3, "no trackers")
    });
    let lookup =
        Violation { address: None, port: 0, protocol: "dns".into(), ..violation(Action::Alert, "api.openai.com", 1) };
    let report = Report {
        destinations,
        violations: vec![violation(Action::Block, "stats.doubleclick.net", 3), lookup],
        ..report(Verdict::Fail)
    };
    let expected = "\
FAIL  4 violations of policy cohort-notebook, 3 refused, 1 let through
  session 20261120T215534Z-7f3a9c (enforced, ebpf, exit 0)

Destinations
  block  stats.doubleclick.net  3 connections  by python3.12 (4242)
         198.51.100.7:443/tcp
  allow  10.20.0.9              2 connections, 2.5 kB out, 6.9 MB in  by python3.12 (4242)
         10.20.0.9:5432/tcp
  allow  phi.openai.azure.com   10 connections, 12.3 kB out, 34.6 MB in  by python3.12 (4242)
         203.0.113.5:443/tcp and 1 more
  and 3 connections inside the session itself
  and 24 connections to the resolver 10.20.0.53:53/udp

Violations
  block  stats.doubleclick.net (198.51.100.7:443/tcp)  by rule no trackers, 3 times
         by /usr/bin/python3.12 (pid 4242): python3 train.py
         -> if the program needs it, add to your policy: allow: [\"stats.doubleclick.net:443\"]
  alert  lookup of api.openai.com  by rule no trackers
         by /usr/bin/python3.12 (pid 4242): python3 train.py
         -> if the program needs it, add to your policy: allow: [\"api.openai.com:443\"]

All of it: trustrun session show 20261120T215534Z-7f3a9c
";
    assert_eq!(render(&report, NARROW), expected);
}

#[test]
fn an_incomplete() {
    let gap = |kind: &str, count, detail: &str| Gap { kind: kind.into(), count, detail: detail.into() };
    let report = Report {
        gaps: vec![
            gap("events-dropped", 3, "3 events were dropped before they could be read"),
            gap("proxy-hides-destination", 1, "what 10.0.0.8:3128 was asked for could not be read"),
            gap("leftovers", 2, "2 processes went on after the command ended"),
        ],
        limits: vec![Limit {
            kind: "unix-sockets".into(),
            detail: "the target may ask a daemon to connect for it".into(),
        }],
        ..report(Verdict::Incomplete)
    };
    let expected = "\
INCOMPLETE  no violation seen, but: 3 events were dropped before they could be read; what
  10.0.0.8:3128 was asked for could not be read; 1 more
  session 20261120T215534Z-7f3a9c (enforced, ebpf, exit 0)

Gaps: what may have been missed
  events-dropped (3 times): 3 events were dropped before they could be read
  proxy-hides-destination: what 10.0.0.8:3128 was asked for could not be read
  leftovers (2 times): 2 processes went on after the command ended

All of it, with 1 limit of this kind of watching: trustrun session show 20261120T215534Z-7f3a9c
";
    assert_eq!(render(&report, NARROW), expected);
}

#[test]
fn nothing_is_called_refused_where_nothing_was_enforced() {
    let mut report = Report { violations: vec![violation(Action::Block, "x.org", 2)], ..report(Verdict::Fail) };
    report.session.assurance = Assurance::Observed;
    let text = render(&report, NARROW);
    assert!(text.starts_with("FAIL  2 violations of policy cohort-notebook, let through\n"), "{text}");
}

#[test]
fn limits_are_counted_in_the_short_form_and_told_in_the_full_one() {
    let mut report = report(Verdict::Pass);
    for n in 0..2 {
        report.limits.push(Limit { kind: format!("way-{n}"), detail: format!("the target may take way {n}") });
    }
    let short = render(&report, NARROW);
    assert!(
        short.contains("\nAll of it, with 2 limits of this kind of watching: trustrun session show 2026"),
        "{short}"
    );
    assert!(!short.contains("way-0"), "{short}");
    let full = render(&report, Style { full: true, ..NARROW });
    assert!(full.contains("\nLimits: ") && full.contains("  way-1: the target may take way 1\n"), "{full}");
}

#[test]
fn a_database_of_ones_own_is_named_in_what_to_type() {
    let text = render(&report(Verdict::Pass), Style { db: Some("/tmp/my.db"), ..NARROW });
    assert!(
        text.ends_with("\nAll of it:\n  trustrun session show 20261120T215534Z-7f3a9c --db /tmp/my.db\n"),
        "{text}"
    );
}

#[test]
fn there_is_no_policy_to_learn_from_nothing() {
    let lookups = vec![destination(None, "10.20.0.53:53", Action::Allow, 2, "resolver")];
    let text = render(&Report { destinations: lookups, ..report(Verdict::Observed) }, NARROW);
    assert!(!text.contains("To learn a policy"), "{text}");
}

#[test]
fn an_observed() {
    let mut claimed = destination(Some("example.org"), "203.0.113.5:443", Action::Allow, 1, "");
    claimed.evidence = Evidence::Claim;
    let accepted =
        Destination { direction: Direction::In, ..destination(None, "10.0.0.4:51000", Action::Allow, 1, "") };
    let mut report = Report { destinations: vec![claimed, accepted], ..report(Verdict::Observed) };
    report.session.assurance = Assurance::Observed;
    report.session.exit = Exit { code: None, signal: Some(15) };
    let expected = "\
OBSERVED  no policy to judge by: 1 connection to 1 destination
  session 20261120T215534Z-7f3a9c (observed only, ebpf, ended by signal 15)

Destinations
  allow  example.org (claimed)  1 connection, 1.2 kB out, 3.5 MB in  by python3.12 (4242)
         203.0.113.5:443/tcp
  allow  from 10.0.0.4          1 connection, 1.2 kB out, 3.5 MB in  by python3.12 (4242)
         10.0.0.4:51000/tcp

To learn a policy from this: trustrun run --learn policy.yaml -- python3 train.py
All of it: trustrun session show 20261120T215534Z-7f3a9c
";
    assert_eq!(render(&report, NARROW), expected);
}

/// A hostile report, and as large as they come.
fn hostile() -> Report {
    let evil = "\x1b[2J\u{202e}evil\r\nPASS  all fine";
    let mut report = report(Verdict::Fail);
    report.session.command = vec![evil.into()];
    report.session.sensor = evil.into();
    report.session.policy = Some(PolicyRef { name: evil.into(), sha256: evil.into(), ..PolicyRef::default() });
    for n in 0..500 {
        let mut to = destination(Some(&format!("{evil}{n}")), "198.51.100.7:443", Action::Alert, 1, evil);
        to.processes = vec![Process { pid: n, exe: format!("/{evil}"), argv: vec![evil.repeat(100)] }];
        report.destinations.push(to.clone());
        let mut violation = violation(Action::Kill, evil, 1);
        (violation.process, violation.suggestion, violation.rule) =
            (to.processes[0].clone(), evil.repeat(50), evil.into());
        report.violations.push(violation);
        report.gaps.push(Gap { kind: evil.into(), count: 2, detail: evil.repeat(50) });
        report.limits.push(Limit { kind: evil.into(), detail: evil.repeat(50) });
    }
    report
}

#[test]
fn a_hostile_report_stays_harmless_and_short() {
    for width in [0, 1, 40, 80, 200] {
        let text = render(&hostile(), Style { width, ..NARROW });
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text}");
        assert!(text.lines().skip(1).all(|line| !line.starts_with("PASS")), "{text}");
        assert!(width != 80 || text.lines().count() <= 100, "{} lines\n{text}", text.lines().count());
        assert!((1..80).contains(&width) || text.contains("more: trustrun session show 20261120T215534Z-7f3a9c"));
    }
}

#[test]
fn colour_adds_nothing_but_colour() {
    let report = Report {
        destinations: talked(),
        violations: vec![violation(Action::Kill, "x.org", 1)],
        ..report(Verdict::Fail)
    };
    let painted = render(&report, Style { color: true, ..NARROW });
    assert!(painted.starts_with("\x1b[1;31mFAIL\x1b[0m"));
    let mut plain = painted.clone();
    for code in ["1;31", "31", "32", "33", "1", "2", "0"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, render(&report, NARROW));
}

#[test]
fn the_full_form_leaves_nothing_out() {
    let mut report = Report { destinations: talked(), ..report(Verdict::Fail) };
    report.violations = (0..100).map(|n| violation(Action::Block, &format!("v{n}.example.org"), 1)).collect();
    let full = render(&report, Style { full: true, ..NARROW });
    assert!((0..100).all(|n| full.contains(&format!("v{n}.example.org ("))) && full.contains("[2001:db8::5]:443/tcp"));
    let short = render(&report, NARROW);
    assert!(short.lines().count() <= 64, "{} lines", short.lines().count());
    assert!(short.contains("more: trustrun session show"));
}

#[test]
fn a_session_without_any_connection_says_so() {
    assert!(
        render(&report(Verdict::Pass), NARROW)
            .starts_with("PASS  no connection was made, under policy cohort-notebook\n")
    );
    let mut sampled = report(Verdict::Incomplete);
    sampled.session.assurance = Assurance::Sampled;
    assert!(
        render(&sampled, NARROW).starts_with("INCOMPLETE  no violation seen, but: connections were only sampled\n")
    );
}
