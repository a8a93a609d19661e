//! What explains and compares policies agrees with what decides.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod support;

use std::net::IpAddr;

use jiff::civil::{Date, date};
use proptest::prelude::*;
use trustrun_model::{Action, BaaClass, Protocol};
use trustrun_policy::{
    Change, Composer, Counts, Destination, DiffRow, Expectations, Lock, Matcher, Named, NoFiles, Policy, Profile,
    Reader, Seen, Who, write_profile,
};

const TODAY: Date = date(2026, 11, 21);

#[track_caller]
fn policy(text: &str) -> Policy {
    let named = [Named::Text("p.yaml".into(), format!("version: 1\n{text}").into_bytes())];
    Composer::new(&mut NoFiles, TODAY).compose(&named).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn destination(text: &str) -> Destination {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_destination_is_one_host_or_address_with_a_port() {
    for (text, shown) in [
        ("API.example.org.", "api.example.org:443"),
        ("example.org:22", "example.org:22"),
        ("udp/10.0.0.53:53", "udp/10.0.0.53:53"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("2001:db8::1", "[2001:db8::1]:443"),
        ("db.test@10.0.0.7:5432", "db.test@10.0.0.7:5432"),
        ("udp/db.test@[fd00::1]:53", "udp/db.test@[fd00::1]:53"),
        ("icmp/10.0.0.1", "icmp/10.0.0.1"),
    ] {
        assert_eq!(destination(text).to_string(), shown);
    }
    for wrong in [
        "*.example.org",
        "10.0.0.0/8",
        "example.org:80-90",
        "any/example.org",
        "*",
        "10.0.0.1@a.test",
        "a.test@b.test",
        "",
    ] {
        assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
    }
}

#[test]
fn explains_who_won_and_why_the_others_did_not() {
    let p = policy(
        "default: block\nextends:\n  - preset: deny/public-llm\n    except: [{destination: api.openai.com, reason: signed, expires: 2027-03-01}]\n\
         rules:\n  - {name: ours, allow: [\"api.openai.com:443\"], reason: ticket 1}\n  - {name: python, kill: [\"*.openai.com\"], when: {exe: \"/usr/bin/python3*\"}}\n",
    );
    let explain = |who: &str| p.explain(&destination("api.openai.com"), &who.parse().unwrap(), TODAY);
    let curl = explain("/usr/bin/curl");
    assert_eq!((curl.action, curl.lock), (Action::Allow, Lock::Connect));
    assert_eq!(curl.winner.as_ref().map(|w| (w.rule.as_str(), w.origin.line)), Some(("ours", 7)));
    let counts: Vec<(&str, bool)> =
        curl.matched.iter().map(|m| (m.rule.as_str(), matches!(m.counts, Counts::Yes))).collect();
    assert_eq!(counts, [("ours", true), ("deny/public-llm/OpenAI", false), ("python", false)]);
    assert!(matches!(&curl.matched[1].counts, Counts::Excepted { reason, .. } if reason == "signed"));
    assert_eq!(curl.literal, Some(Action::Block));
    let python = explain("/usr/bin/python3.11,analyst");
    assert_eq!((python.action, python.lock), (Action::Kill, Lock::Lookup));
    let anybody = p.explain(&destination("api.openai.com"), &Who::default(), TODAY);
    assert_eq!(anybody.action, Action::Kill, "of processes that are not known the most severe");
    assert_eq!(anybody.winner.unwrap().counts, Counts::Perhaps);
    let other = p.explain(&destination("example.org"), &Who::default(), TODAY);
    assert_eq!((other.action, other.winner, other.lock), (Action::Block, None, Lock::Lookup));
}

#[test]
fn says_how_far_an_agreement_covers() {
    let with = |preset: &str, parameters: &str, baa: &str, dest: &str| {
        let text = format!("default: block\nextends:\n  - {{preset: {preset}, parameters: {parameters}{baa}}}\n");
        policy(&text).explain(&destination(dest), &Who::default(), TODAY)
    };
    let signed = |on: &str| format!(", baa: {{counterparty: Microsoft, reference: \"1\", expires: {on}}}");
    let (own, host) = ("{resource: mine}", "mine.openai.azure.com");
    assert_eq!(
        with("baa/azure-openai", own, &signed("2027-01-01"), host).baa.map(|b| b.status),
        Some(BaaClass::Covered)
    );
    assert_eq!(with("baa/azure-openai", own, "", host).baa.map(|b| b.status), Some(BaaClass::Capable));
    assert_eq!(
        with("baa/azure-openai-any-tenant", "{}", &signed("2027-01-01"), host).baa.map(|b| b.status),
        Some(BaaClass::Capable)
    );
    let over = with("baa/azure-openai", own, &signed("2026-11-20"), host);
    assert_eq!(
        (over.baa.map(|b| b.status), over.action),
        (Some(BaaClass::Expired), Action::Block),
        "the default is block"
    );
}

fn shown(rows: &[DiffRow]) -> Vec<String> {
    let word = |word: &trustrun_policy::Word| {
        let severity = word.severity.map(|s| format!("/{s}")).unwrap_or_default();
        format!("{}{severity}", word.action)
    };
    let who = |row: &DiffRow| row.processes.clone().map(|w| format!(" {w}")).unwrap_or_default();
    let side = |row: &DiffRow| row.side.map(|s| format!(" {s}")).unwrap_or_default();
    let all = rows.iter();
    let all = all.map(|r| {
        format!(
            "{}:{}-{}{}{} {}>{}",
            r.destination,
            r.ports.0,
            r.ports.1,
            who(r),
            side(r),
            word(&r.before),
            word(&r.after)
        )
    });
    all.collect()
}

#[track_caller]
fn differ(a: &str, b: &str, expected: &[&str]) {
    let difference = policy(a).compare(&policy(b));
    assert!(difference.complete);
    assert_eq!(shown(&difference.rows), expected, "{:#?}", difference.rows);
}

#[test]
fn a_difference_is_what_is_decided_otherwise_and_not_how_it_is_written() {
    let a = "default: block\nrules: [{name: x, allow: [\"a.test:443\", \"b.test:443\"]}]\n";
    let same =
        "default: block\nrules: [{name: y, allow: [\"b.test:443\"]}, {allow: [\"a.test:443\"], reason: because}]\n";
    differ(a, same, &[]);
    differ(
        a,
        "default: block\nrules: [{allow: [\"a.test:440-443\"]}]\n",
        &["a.test:440-442 block>allow", "b.test:443-443 allow>block"],
    );
    differ(
        a,
        "default: alert\nrules: [{allow: [\"a.test:443\", \"b.test:443\"]}]\n",
        &["whatever no rule names:0-65535 block>alert"],
    );
}

#[test]
fn a_difference_is_found_below_a_wildcard_beside_it_and_at_a_networks_edge() {
    differ(
        "default: block\nrules: [{allow: [\"*.a.test\"]}, {kill: [\"x.a.test\"]}]\n",
        "default: block\nrules: [{allow: [\"*.b.a.test\"]}, {kill: [\"x.a.test\"]}]\n",
        &["*.a.test:0-65535 allow>block"],
    );
    differ(
        "default: block\nrules: [{allow: [\"10.0.0.0/8\"]}, {kill: [\"10.1.0.0/16\"]}]\n",
        "default: block\nrules: [{allow: [\"10.0.0.0/9\"]}, {kill: [\"10.1.0.0/16\"]}]\n",
        &["10.0.0.0/8:0-65535 allow>block"],
    );
    differ(
        "default: block\nrules: [{allow: [\"10.0.0.0/8\"], except: [{destination: \"10.9.0.0/16\", reason: x}]}]\n",
        "default: block\nrules: [{allow: [\"10.0.0.0/8\"]}]\n",
        &["10.9.0.0/16:0-65535 block>allow"],
    );
}

#[test]
fn a_difference_shows_where_a_name_and_a_network_meet() {
    differ(
        "default: kill\nrules: [{allow: [db.internal]}, {name: net, kill: [\"10.0.0.0/8\"]}]\n",
        "default: kill\nrules: [{allow: [db.internal]}]\n",
        &["db.internal at 10.0.0.0/8:0-65535 kill>allow"],
    );
}

#[test]
fn a_difference_depends_on_the_process_where_a_rule_does() {
    differ(
        "default: block\nrules: [{allow: [a.test]}]\n",
        "default: block\nrules: [{allow: [a.test], when: {exe: /usr/bin/curl}}]\n",
        &["a.test:0-65535 not (exe=/usr/bin/curl) allow>block"],
    );
    differ(
        "default: allow\nrules: [{alert: [a.test]}]\n",
        "default: allow\nrules: [{alert: [a.test], severity: critical}]\n",
        &["a.test:0-65535 alert>alert/critical"],
    );
    differ(
        "default: block\nrules: [{allow: [a.org]}]\n",
        "default: block\nrules: [{allow: [a.org], private: allow}]\n",
        &["a.org:0-65535 a private address block>allow"],
    );
}

#[test]
fn expectations_say_all_that_is_wrong_with_them() {
    let good =
        b"policy: notebook.yaml\nexpect:\n  - {destination: a.test, action: allow, as: \"/usr/bin/x,ann\", rule: r}\n";
    let read = Expectations::parse("t.yaml", good).unwrap();
    assert_eq!((read.policy.len(), read.expect[0].line, read.expect[0].who.user.len()), (1, 3, 1));
    let bad =
        b"polcy: x\nexpect:\n  - {destination: \"*.test\", action: allow}\n  - {destination: a.test, action: alow}\n";
    let error = Expectations::parse("t.yaml", bad).unwrap_err();
    assert_eq!(error.faults().len(), 4, "{error}");
}

#[test]
fn a_profile_is_wide_enough_for_what_was_seen_and_grants_no_name_that_was_only_asked_for() {
    let mut profile = Profile::default();
    let addr: Option<IpAddr> = Some([10, 0, 0, 7].into());
    let seen = Seen { host: Some("db.example.org"), addr, port: 5432, count: 1, session: "s1", ..Seen::default() };
    profile.add(&seen);
    profile.add(&Seen { host: Some("asked.example.org"), count: 3, session: "s1", ..Seen::default() });
    let text = write_profile("x", &profile.lines(), &[]);
    let policy = Policy::parse("x", text.as_bytes()).unwrap();
    let matcher = policy.compile();
    let decide = |host: &str, port| matcher.decide(Some(host), addr, port, Protocol::Tcp).action;
    assert_eq!((decide("db.example.org", 5432), decide("db.example.org", 443)), (Action::Allow, Action::Block));
    assert_eq!(decide("asked.example.org", 443), Action::Block);
    assert_eq!(matcher.decide_query("asked.example.org").action, Action::Allow);
    // A second time there is nothing new.
    let reader = Reader::new(&policy);
    assert!(profile.lines().iter().all(|line| line.is_in(&reader)), "{text}");
}

fn decide(matcher: &Matcher, row: &DiffRow) -> Action {
    let example = &row.example;
    // Of a name without an address: one of the kind that is meant, in no network.
    matcher.decide(example.host.as_deref(), example.address, example.port, example.protocol).action
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn explains_as_it_decides((rules, default, dests) in support::scene()) {
        let policy = support::policy(&rules, default);
        let matcher = policy.compile();
        for d in dests {
            let protocol = Protocol::from_number(d.protocol);
            if d.host.is_none() && d.addr.is_none() {
                continue;
            }
            let host = d.host.as_ref().map(|host| host.to_lowercase().trim_end_matches('.').to_owned());
            let asked = Destination { host, address: d.addr, port: d.port, port_given: true, protocol };
            let decided = matcher.decide(d.host.as_deref(), d.addr, d.port, protocol);
            let explained = policy.explain(&asked, &Who::default(), TODAY);
            prop_assert_eq!(explained.action, decided.action, "{:?}", d);
            prop_assert_eq!(explained.winner.is_some(), decided.rule.is_some());
            if let Some(host) = &d.host {
                prop_assert_eq!(explained.lookup.map(|(action, _)| action), Some(matcher.decide_query(host).action));
            }
        }
    }

    #[test]
    fn no_difference_is_missed_and_none_is_made_up(
        (a, default, dests) in support::scene(), (b, other, more) in support::scene(), shared in support::rules_of(3, true), same in any::<bool>(),
    ) {
        // Mostly alike, as two versions of one policy are.
        let a = support::policy(&[a, shared.clone()].concat(), default);
        let b = support::policy(&[shared, b].concat(), if same { default } else { other });
        let difference = a.compare(&b);
        prop_assert!(difference.complete);
        let (before, after) = (a.compile(), b.compile());
        for row in &difference.rows {
            let nowhere = row.example.host.is_none() && row.example.address.is_none();
            if row.example.private || nowhere || row.processes.is_some() {
                continue; // no such address is at hand, it is about the defaults, or about some processes
            }
            let said = (decide(&before, row), decide(&after, row));
            prop_assert_eq!(said, (row.before.action, row.after.action), "{:?}", row);
            prop_assert!(row.before.action != row.after.action);
            prop_assert_eq!(row.change() == Change::Refused, !row.before.action.refuses() && row.after.action.refuses());
        }
        let processes = support::processes();
        for d in dests.into_iter().chain(more) {
            let protocol = Protocol::from_number(d.protocol);
            for process in &processes {
                let classes = [&before, &after].map(|m| support::class_of(m.classes(), process));
                let said = |m: &Matcher, class| m.decide_as(class, d.host.as_deref(), d.addr, d.port, protocol).action;
                let (one, two) = (said(&before, classes[0]), said(&after, classes[1]));
                if one != two {
                    let found = difference.rows.iter().any(|r| (r.before.action, r.after.action) == (one, two));
                    prop_assert!(found, "{:?}: {} then {}\n{:#?}", d, one, two, shown(&difference.rows));
                }
            }
        }
    }
}
