//! What a policy means, by example.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::net::IpAddr;

use trustrun_common::{ACTION_ALLOW, ACTION_BLOCK, NetValue, PortValue, port_key};
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Class, Decision, Matcher, Policy, RuleIndex};

const LAB: &str = r#"# yaml-language-server: $schema=https://example.org/policy.json
version: 1
name: cohort-notebook
description: for tests
default: block
capture: metadata
rules:
  - name: lab network
    allow: ["10.20.0.0/16", "fhir.example.org:443", "udp/10.20.0.53:53", "[2001:db8::/32]:8000-8100"]
  - kill: ["*.doubleclick.net"]
    alert: ["any/ping.example.org", ":8443"]
"#;

fn parse(text: &str) -> Policy {
    Policy::parse("lab.yaml", text.as_bytes()).unwrap()
}

/// A policy of these rules, each `action: [patterns]`.
fn rules(default: &str, rules: &[&str]) -> Policy {
    let rules: String = rules.iter().map(|r| format!("  - {r}\n")).collect();
    parse(&format!("version: 1\ndefault: {default}\nrules:\n{rules}"))
}

fn addr(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn said(action: Action, rule: u32) -> Decision {
    Decision { action, rule: Some(RuleIndex(rule)) }
}

fn tcp(matcher: &Matcher, host: &str, port: u16) -> Action {
    matcher.decide(Some(host), None, port, Protocol::Tcp).action
}

#[test]
fn the_example_of_the_design() {
    let policy = parse(LAB);
    assert_eq!((policy.name.as_str(), policy.default), ("cohort-notebook", Action::Block));
    assert_eq!(policy.rules[1].name, "rule 2");
    assert_eq!(policy.rules[1].origin.line, 10);
    assert!(policy.enforcing());
    assert_eq!(policy.sha256.len(), 64);
    let matcher = policy.compile();
    let block = Decision { action: Action::Block, rule: None };
    assert_eq!(matcher.decide(None, addr("10.20.9.9"), 5432, Protocol::Tcp), said(Action::Allow, 0));
    assert_eq!(matcher.decide(None, addr("::ffff:10.20.9.9"), 5432, Protocol::Tcp), said(Action::Allow, 0));
    assert_eq!(matcher.decide(None, addr("10.20.9.9"), 5432, Protocol::Udp), block);
    assert_eq!(matcher.decide(None, addr("10.20.0.53"), 53, Protocol::Udp), said(Action::Allow, 0));
    assert_eq!(matcher.decide(Some("FHIR.example.org."), None, 443, Protocol::Tcp), said(Action::Allow, 0));
    assert_eq!(matcher.decide(Some("fhir.example.org"), None, 80, Protocol::Tcp), block);
    assert_eq!(matcher.decide(Some("ad.g.doubleclick.net"), None, 443, Protocol::Tcp), said(Action::Kill, 1));
    assert_eq!(matcher.decide(Some("doubleclick.net"), None, 443, Protocol::Tcp), block);
    assert_eq!(matcher.decide(Some("ping.example.org"), None, 0, Protocol::Other(1)), said(Action::Alert, 1));
    assert_eq!(matcher.decide(None, addr("2001:db8:7::1"), 8100, Protocol::Tcp), said(Action::Allow, 0));
    assert_eq!(matcher.decide(None, addr("192.0.2.1"), 8443, Protocol::Tcp), said(Action::Alert, 1));
    assert_eq!(matcher.rule_name(RuleIndex(0)), "lab network");
    assert_eq!(matcher.rule_name(RuleIndex(9)), "");
}

#[test]
fn the_most_severe_rule_wins_for_a_name_and_its_address_together() {
    let matcher =
        rules("allow", &["allow: [\"a.test\"]", "block: [\"192.0.2.0/24\"]", "block: [\"192.0.2.1\"]"]).compile();
    assert_eq!(matcher.decide(Some("a.test"), addr("192.0.2.1"), 80, Protocol::Tcp), said(Action::Block, 1));
    assert_eq!(matcher.decide(Some("a.test"), addr("198.51.100.1"), 80, Protocol::Tcp), said(Action::Allow, 0));
}

#[test]
fn every_ipv6_address_is_no_ipv4_address() {
    let policy = rules("block", &["allow: [\"::/0\"]"]);
    let matcher = policy.compile();
    assert_eq!(matcher.decide(None, addr("2001:db8::1"), 1, Protocol::Tcp).action, Action::Allow);
    assert_eq!(matcher.decide(None, addr("192.0.2.1"), 1, Protocol::Tcp).action, Action::Block);
    // The kernel finds a set that says nothing where IPv4 begins.
    let tables = policy.tables().unwrap();
    let (_, bits, NetValue { set, .. }) = tables.nets[1];
    assert_eq!((tables.nets.len(), bits), (2, 96));
    assert!(tables.ports.iter().all(|(key, ..)| key[..4] != set.to_be_bytes()));
}

#[test]
fn lookups_are_allowed_where_some_connection_would_be() {
    let matcher =
        rules("block", &["allow: [\"a.test:443\"]", "block: [\"a.test\"]", "alert: [\"udp/*.b.test:443\"]"]).compile();
    // Blocked on every TCP port, the one that is allowed too.
    assert_eq!(matcher.decide_query("a.test"), said(Action::Block, 1));
    assert_eq!(matcher.decide_query("x.b.test"), said(Action::Alert, 2));
    assert_eq!(matcher.decide_query("b.test"), Decision { action: Action::Block, rule: None });
    let open = rules("block", &["allow: [\":443\"]"]).compile();
    assert_eq!(open.decide_query("anything.test"), said(Action::Allow, 0));
    // An address rule makes no name askable.
    let address = rules("block", &["allow: [\"10.0.0.0/8\"]"]).compile();
    assert!(address.decide_query("anything.test").action.refuses());
}

#[test]
fn refused_lookups_are_as_severe_as_what_names_the_host() {
    let matcher = rules("block", &["kill: [\"evil.test:443\"]", "kill: [\":25\"]"]).compile();
    assert_eq!(matcher.decide_query("evil.test"), said(Action::Kill, 0));
    // `kill: [":25"]` is about mail, not about every lookup of a name outside the policy.
    assert_eq!(matcher.decide_query("stray.test"), Decision { action: Action::Block, rule: None });
    let open = rules("allow", &["kill: [\"evil.test:443\"]", "block: [\"bad.test\"]"]).compile();
    assert_eq!(open.decide_query("evil.test").action, Action::Allow);
    assert_eq!(open.decide_query("bad.test").action, Action::Block);
    assert_eq!(rules("alert", &["kill: [\"*\"]"]).compile().decide_query("x.test"), said(Action::Kill, 0));
}

#[test]
fn search_expansions_of_allowed_names_are_known() {
    let matcher = rules("block", &["allow: [\"api.test\", \"*.wide.test\"]"]).compile();
    let search = ["ns.svc.cluster.local", "Cluster.Local."];
    let original = |name| matcher.is_search_expansion(Class(0), name, &search);
    assert_eq!(original("api.test.ns.svc.cluster.local"), Some("api.test"));
    assert_eq!(original("API.test.cluster.LOCAL."), Some("API.test"));
    assert_eq!(original("x.wide.test.cluster.local"), Some("x.wide.test"));
    assert_eq!(original("api.test"), None, "allowed by itself");
    assert_eq!(original("evil.test.cluster.local"), None);
    assert_eq!(original("api.testcluster.local"), None, "the suffix begins at a label");
    assert_eq!(original("cluster.local"), None);
    assert_eq!(original("é.cluster.local"), None);
    assert_eq!(matcher.is_search_expansion(Class(0), "api.test.", &[""]), None);
    // The name that is meant comes from the list itself: `db.other`, whose second expansion is the allowed one.
    let matcher = rules("block", &["allow: [\"db.other.svc.cluster.local\"]"]).compile();
    let search = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    let original = |name| matcher.is_search_expansion(Class(0), name, &search);
    assert_eq!(original("db.other.ns.svc.cluster.local"), Some("db.other"));
    assert_eq!(original("db.other.cluster.local"), Some("db.other"));
    assert_eq!(original("db.another.ns.svc.cluster.local"), None);
    assert_eq!(original("db.other.svc.cluster.local"), None, "allowed by itself");
}

#[test]
fn tables_have_the_keys_that_the_kernel_looks_up() {
    let tables =
        rules("block", &["allow: [\"a.bc:443\", \"*.bc\"]", "allow: [\"192.0.2.0/24:8000-8001\"]"]).tables().unwrap();
    let key = |text: &[u8]| {
        let (key, value) = tables.names.iter().find(|(k, _)| k.bytes.starts_with(text)).unwrap();
        assert!(key.bytes[text.len()..].iter().all(|b| *b == 0));
        assert_eq!(key.bits as usize, text.len() * 8);
        *value
    };
    assert_eq!((tables.default, tables.names.len()), (ACTION_BLOCK, 2));
    // Both say `allow` by rule 0 on all ports, since the wildcard holds for the name inside it.
    let set = key(b"cb.a\0").set;
    assert_eq!((set, key(b"cb.").set, key(b"cb.").ask), (1, 1, ACTION_ALLOW));
    let allow = |rule| PortValue { rule, action: ACTION_ALLOW, ..PortValue::default() };
    assert_eq!(
        tables.nets,
        [([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 0], 120, NetValue { set: 2, skip: 0 })]
    );
    assert_eq!(tables.ports, [(port_key(1, 6, 0), 40, allow(0)), (port_key(2, 6, 8000), 55, allow(1))]);
}

#[test]
fn a_hundred_thousand_names_of_one_rule_share_a_set() {
    let names: String = (0..100_000).map(|i| format!("      - \"h{i}.example.org:443\"\n")).collect();
    let policy = parse(&format!("version: 1\ndefault: block\nrules:\n  - name: all\n    allow:\n{names}"));
    let tables = policy.tables().unwrap();
    assert_eq!((tables.names.len(), tables.ports.len()), (100_000, 1));
    assert_eq!(tcp(&policy.compile(), "h99999.example.org", 443), Action::Allow);
}

#[test]
fn a_hundred_thousand_rules_work() {
    let rules: String = (0..100_000).map(|i| format!("  - allow: [\"h{i}.example.org\"]\n")).collect();
    let policy = parse(&format!("version: 1\ndefault: block\nrules:\n{rules}"));
    assert_eq!(policy.tables().unwrap().ports.len(), 100_000);
    let decision = policy.compile().decide(Some("h77777.example.org"), None, 1, Protocol::Tcp);
    assert_eq!(decision, said(Action::Allow, 77_777));
}

#[test]
fn rules_that_multiply_beyond_the_kernel_are_an_error_not_a_hang() {
    let ports: String = (0..20_000).map(|i| format!("  - alert: [\"*.wide.test:{}\"]\n", i * 2 + 1)).collect();
    let names: String = (0..20_000).map(|i| format!("  - block: [\"udp/h{i}.wide.test\"]\n")).collect();
    let policy = parse(&format!("version: 1\ndefault: block\nrules:\n{ports}{names}"));
    assert!(policy.tables().unwrap_err().to_string().contains("more than 4194304 entries"));
}

#[test]
fn a_public_name_is_not_granted_a_private_address_unless_the_rule_says_so() {
    let policy = rules(
        "block",
        &[
            "allow: [\"api.example.org\", \"*.internal\"]",
            "{allow: [\"db.example.org\"], private: allow}",
            "{allow: [\"phi.example.org\"], require_private_ip: true}",
            "allow: [\"10.9.0.0/16\"]",
        ],
    );
    let matcher = policy.compile();
    let at = |host: &str, address: &str| matcher.decide(Some(host), addr(address), 443, Protocol::Tcp).action;
    for inside in ["10.1.2.3", "127.0.0.1", "::1", "169.254.169.254", "64:ff9b::10.1.2.3", "fd00:ec2::254"] {
        assert_eq!(at("api.example.org", inside), Action::Block, "{inside}");
        assert_eq!(at("fhir.internal", inside), Action::Allow, "{inside}");
        assert_eq!(at("db.example.org", inside), Action::Allow, "{inside}");
        assert_eq!(at("phi.example.org", inside), Action::Allow, "{inside}");
    }
    assert_eq!(at("api.example.org", "203.0.113.5"), Action::Allow);
    assert_eq!(at("db.example.org", "203.0.113.5"), Action::Allow);
    assert_eq!(at("phi.example.org", "203.0.113.5"), Action::Block);
    assert_eq!(at("api.example.org", "10.9.0.1"), Action::Allow, "by the rule about the address");
    assert_eq!(matcher.decide_query("phi.example.org").action, Action::Allow, "its address is not known yet");

    let why = |host: &str, address: &str| {
        matcher.refused_for_address(Class(0), host, addr(address).unwrap(), 443, Protocol::Tcp)
    };
    assert_eq!(why("api.example.org", "10.1.2.3"), Some(RuleIndex(0)));
    assert_eq!(why("phi.example.org", "203.0.113.5"), Some(RuleIndex(2)));
    assert_eq!(why("other.example.org", "10.1.2.3"), None);
    assert_eq!(why("api.example.org", "203.0.113.5"), None);
}
