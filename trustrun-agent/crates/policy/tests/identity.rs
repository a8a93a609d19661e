//! A policy is known by what it says: no order, comment or place changes it, and everything that decides does.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{collections::BTreeMap, path::Path};

use jiff::civil::date;
use proptest::{prelude::*, sample::select};
use trustrun_policy::{Composer, Named, NoFiles, Opened, Opener, Policy, PolicyError};

struct Files(BTreeMap<&'static str, String>);

impl Opener for Files {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let octets = self.0[path.to_str().unwrap()].clone().into_bytes();
        Ok(Opened { octets, hidden: false, identity: None })
    }
}

fn compose(named: &[Named]) -> Policy {
    Composer::new(&mut NoFiles, date(2026, 11, 21)).compose(named).unwrap_or_else(|error| panic!("{error}"))
}

fn text(name: &str, text: &str) -> Named {
    Named::Text(format!("{name}.yaml"), format!("version: 1\nname: {name}\n{text}").into_bytes())
}

/// Rules with all that the language has, as they would be written.
fn rule() -> impl Strategy<Value = String> {
    let pattern = select(
        &[
            "a.test",
            "'*.b.test:443'",
            "10.0.0.0/8",
            "udp/10.1.2.3:53",
            "'*'",
            "':25'",
            "bücher.test",
            "'[2001:db8::]:1-9'",
        ][..],
    );
    let list = |action: &'static str| {
        prop::option::weighted(0.6, prop::collection::vec(pattern.clone(), 1..4))
            .prop_map(move |list| list.map(|list| format!("{action}: [{}]", list.join(", "))))
    };
    let rest = prop::collection::btree_map(
        0usize..8,
        select(&["one", "two \\\" three", "é ü"][..]),
        0..5,
    )
    .prop_map(|chosen| {
        let each = |(key, word): (usize, &str)| match key {
            0 => format!("name: \"{word}\""),
            1 => "private: allow".to_owned(),
            2 => "severity: low".to_owned(),
            3 => "expires: 2027-01-01".to_owned(),
            4 => format!("when: {{user: [root, \"{word}\"], exe: /usr/bin/x*}}"),
            5 => format!("except: [{{destination: c.test, reason: \"{word}\"}}, {{destination: 10.9.0.0/16, reason: x, expires: 2027-01-01}}]"),
            6 => format!("reason: \"{word}\""),
            _ => "require_private_ip: true".to_owned(),
        };
        chosen.into_iter().map(each).collect::<Vec<_>>()
    });
    (list("allow"), list("alert"), list("kill"), rest).prop_map(|(a, b, c, rest)| {
        let mut keys: Vec<String> = [a, b, c].into_iter().flatten().chain(rest).collect();
        if !keys.iter().any(|key| key.starts_with("a") || key.starts_with("k")) {
            keys.push("block: [d.test]".into());
        }
        format!("{{{}}}", keys.join(", "))
    })
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(rule(), 0..8)
}

fn document(rules: &[String]) -> String {
    let list = |rules: &[String]| rules.iter().map(|rule| format!("  - {rule}\n")).collect::<String>();
    format!("default: block\nunix_sockets: [/tmp/x]\nrules:\n{}", list(rules))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_rules_and_files_changes_a_byte(
        (one, shuffled, other) in rules().prop_flat_map(|rules| {
            (Just(rules.clone()), Just(rules).prop_shuffle(), rules_of_another())
        })
    ) {
        let policy = compose(&[text("one", &document(&one)), text("other", &document(&other))]);
        let same = compose(&[text("other", &document(&other)), text("one", &document(&shuffled)), text("other", &document(&other))]);
        prop_assert_eq!(&policy.canonical, &same.canonical);
        prop_assert_eq!(&policy.sha256, &same.sha256);
        let names = |policy: &Policy| policy.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&policy), names(&same), "nor what is reported");
    }

    #[test]
    fn the_canonical_form_says_what_the_policy_says(one in rules()) {
        let policy = compose(&[text("one", &document(&one))]);
        let read = Policy::parse_canonical(policy.canonical.as_bytes()).unwrap();
        prop_assert_eq!(read.default, policy.default);
        prop_assert_eq!(read.rules.len(), policy.rules.len());
        for (read, rule) in read.rules.iter().zip(&policy.rules) {
            prop_assert_eq!((&read.name, &read.patterns, &read.when), (&rule.name, &rule.patterns, &rule.when));
            prop_assert_eq!((read.private, read.severity, read.expires), (rule.private, rule.severity, rule.expires));
            prop_assert_eq!(read.except.len(), rule.except.len());
        }
        prop_assert_eq!(&trustrun_policy::sha256(policy.canonical.as_bytes()), &policy.sha256);
    }
}

fn rules_of_another() -> impl Strategy<Value = Vec<String>> {
    rules()
}

#[test]
fn what_decides_changes_the_identity_and_nothing_else_does() {
    let identity = |rules: &str| compose(&[text("p", &format!("default: block\n{rules}"))]).sha256;
    let plain = identity("rules: [{name: a, allow: [a.test, b.test]}]\n");
    for same in [
        "# a comment\nrules:\n  - name: a\n    allow: # here too\n      - b.test\n      - A.TEST.\n      - a.test\n",
        "description: what it is for\nrules: [{name: a, allow: [a.test, b.test], reason: ticket 812}]\n",
        "rules: [{name: gone, kill: [\"*\"], expires: 2026-11-20}, {name: a, allow: [a.test, b.test]}]\n",
        "parameters: {x: a}\nrules: [{name: a, allow: [\"{x}.test\", b.test]}]\n",
        "rules: [{name: a, allow: [a.test, b.test]}, {name: a, allow: [b.test, a.test]}]\n",
    ] {
        assert_eq!(identity(same), plain, "{same}");
    }
    for other in [
        "rules: [{name: b, allow: [a.test, b.test]}]\n",
        "rules: [{name: a, allow: [a.test]}]\n",
        "rules: [{name: a, allow: [a.test, b.test], severity: low}]\n",
        "rules: [{name: a, allow: [a.test, b.test], expires: 2026-11-21}]\n",
        "rules: [{name: a, allow: [a.test, b.test], private: allow}]\n",
        "rules: [{name: a, allow: [a.test, b.test], when: {user: x}}]\n",
        "rules: [{name: a, allow: [a.test, b.test], except: [{destination: c.a.test, reason: x}]}]\n",
        "rules: [{name: a, allow: [a.test, b.test]}]\nlisten: [{name: a, allow: [10.0.0.0/8]}]\n",
        "rules: [{name: a, allow: [a.test, b.test]}]\nunix_sockets: [/tmp/x]\n",
    ] {
        assert_ne!(identity(other), plain, "{other}");
    }
}

#[test]
fn a_change_of_what_is_extended_changes_it_and_its_place_does_not() {
    let with = |main: &'static str, path: &'static str, rule: &str| {
        let mut files = Files(BTreeMap::from([
            (main, format!("version: 1\nname: p\ndefault: block\nextends: [{path}]\n")),
            ("/etc/lib.yaml", format!("version: 1\nname: lib\n# {path}\nrules: [{{name: x, allow: [{rule}]}}]\n")),
        ]));
        let relative = files.0["/etc/lib.yaml"].clone();
        files.0.insert("lib.yaml", relative);
        Composer::new(&mut files, date(2026, 11, 21)).compose(&[Named::File(main.into())]).unwrap()
    };
    let one = with("p.yaml", "./lib.yaml", "a.test");
    let moved = with("/home/p.yaml", "/etc/lib.yaml", "a.test");
    assert_eq!(one.canonical, moved.canonical);
    assert_ne!(one.documents, moved.documents);
    assert_ne!(one.sha256, with("p.yaml", "./lib.yaml", "b.test").sha256);
    assert!(
        one.canonical.contains("  - name: \"lib/x\"\n    from: \"lib\"\n    allow:\n      - \"a.test\"\n"),
        "{}",
        one.canonical
    );
}
