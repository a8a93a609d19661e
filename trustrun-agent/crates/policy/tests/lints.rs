//! What `policy check` says about a policy that is well-formed and hardly meant.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{collections::BTreeMap, path::Path};

use jiff::civil::{Date, date};
use trustrun_policy::{Composer, Facts, LintKind, Named, Opened, Opener, PolicyError};

const TODAY: Date = date(2026, 11, 21);

struct Files(BTreeMap<String, String>);

impl Opener for Files {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let octets = self.0[path.to_str().unwrap()].clone().into_bytes();
        Ok(Opened { octets, hidden: false, identity: None })
    }
}

/// Lints of `a.yaml`, as `document:line: kind: message`.
fn lints(files: &[(&str, &str)]) -> Vec<String> {
    let mut files = Files(files.iter().map(|(name, text)| ((*name).into(), format!("version: 1\n{text}"))).collect());
    let policy = Composer::new(&mut files, TODAY).compose(&[Named::File("a.yaml".into())]);
    let policy = policy.unwrap_or_else(|error| panic!("{error}"));
    let user = |name: &str| name == "root";
    let exe = |glob: &str| glob == "/bin/sh";
    let lints = policy.lints(TODAY, Facts { user: Some(&user), exe: Some(&exe) });
    let kind = |kind: LintKind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
    lints.iter().map(|l| format!("{}:{}: {}: {}", l.document, l.line, kind(l.kind), l.message)).collect()
}

fn of_rules(rules: &str) -> Vec<String> {
    lints(&[("a.yaml", &format!("default: block\nrules:\n{rules}"))])
}

#[test]
fn wildcards_that_anybody_can_be_under() {
    let lints = of_rules(
        "  - {allow: [\"*.com\", \"*.windows.net:443\", \"*\", \":443\", \"0.0.0.0/1\", \"10.0.0.0/8\", \"*.contoso.com\"]}\n  - \
         {block: [\"*.googleapis.com\"]}\n",
    );
    assert_eq!(
        lints,
        [
            "a.yaml:4: over-broad: `*.com` is every name under `com`, where anybody can have one; write the names that are meant",
            "a.yaml:4: over-broad: `*` is every destination there is; write the names and networks that are meant",
            "a.yaml:4: over-broad: `0.0.0.0/1` is a large part of the Internet; write the networks that are meant",
            "a.yaml:4: over-broad: anybody who is a customer can have a name under `windows.net`, so `*.windows.net:443` lets their \
             machines through too; write the names that are meant, or `require_private_ip: true` where yours is a private link",
        ]
    );
}

#[test]
fn rules_that_never_win_and_documents_that_contradict() {
    assert_eq!(
        of_rules("  - {name: no, kill: [\"*.b.test\"]}\n  - {name: yes, allow: [a.b.test, c.test]}\n"),
        [
            "a.yaml:5: shadowed: `allow: a.b.test` never counts: `kill: *.b.test` of `no` (line 4) is more severe; take one of them out"
        ]
    );
    for fine in [
        "  - {kill: [\"*.b.test:80\"]}\n  - {allow: [a.b.test]}\n",
        "  - {kill: [\"*.b.test\"], when: {user: root}}\n  - {allow: [a.b.test]}\n",
        "  - {kill: [\"*.b.test\"], except: [{destination: a.b.test, reason: x}]}\n  - {allow: [a.b.test]}\n",
        "  - {kill: [a.b.test]}\n  - {allow: [\"*.b.test\"]}\n",
        "  - {kill: [10.1.0.0/16]}\n  - {allow: [10.0.0.0/8]}\n",
        "  - {kill: [\"::/0\"]}\n  - {allow: [10.0.0.0/8]}\n",
    ] {
        assert_eq!(of_rules(fine), [""; 0], "{fine}");
    }
    assert_eq!(of_rules("  - {kill: [10.0.0.0/8]}\n  - {allow: [10.1.0.0/16]}\n").len(), 1);
    let both = lints(&[
        ("a.yaml", "default: block\nextends: [./b.yaml, ./c.yaml]\n"),
        ("b.yaml", "name: b\nrules: [{name: model, allow: [api.test:443]}]\n"),
        ("c.yaml", "name: c\nrules: [{name: models, block: [api.test]}]\n"),
    ]);
    assert_eq!(
        both,
        [
            "b.yaml:3: contradiction: `allow: api.test:443` never counts: `block: api.test` of `c/models` (c.yaml) wins, being more \
          severe; to let it through, write `except: [{destination: \"api.test:443\", reason: …}]` at the entry that extends c.yaml"
        ]
    );
}

#[test]
fn what_expires_and_what_nothing_here_matches() {
    assert_eq!(
        of_rules(
            "  - {name: gone, allow: [a.test], expires: 2026-11-20}\n  - {name: soon, allow: [b.test], expires: 2026-12-21}\n  - {name: \
             later, allow: [c.test], expires: 2026-12-22}\n  - {name: w, allow: [d.test], when: {user: [root, ghost], exe: [/bin/sh, \
             /no/such*]}}\n"
        ),
        [
            "a.yaml:4: expired: the rule `gone` expired on 2026-11-20 and is left out; renew it, or take it out",
            "a.yaml:5: expires-soon: the rule `soon` counts until 2026-12-21 only",
            "a.yaml:7: nothing-matches: no executable here is `/no/such*`: on this host `when` keeps the rule from counting",
            "a.yaml:7: nothing-matches: no user here is `ghost`: on this host `when` keeps the rule from counting",
        ]
    );
}

#[test]
fn resolvers_names_in_other_scripts_and_presets() {
    let lints = of_rules("  - {allow: [\"udp/8.8.8.8:53\", münchen.test, \"раypal.test\"]}\n");
    assert_eq!(lints.len(), 4, "{lints:#?}");
    assert!(lints.iter().any(|l| l.contains("public-resolver: `allow: udp/8.8.8.8:53` lets a public resolver through (dns.google)")));
    assert!(lints.iter().any(|l| l.contains("idn: `xn--mnchen-3ya.test` reads `münchen.test`")));
    assert!(lints.iter().any(|l| l.contains("mixed-scripts: `раypal` mixes Cyrillic and Latin letters")));
    let preset = "name: baa/x-any-tenant\npreset: {kind: baa, form: provider}\nrules: [{allow: [x.test]}]\n";
    let said = self::lints(&[("a.yaml", "default: block\nextends: [./b.yaml]\n"), ("b.yaml", preset)]);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("b.yaml:1: any-tenant: baa/x-any-tenant names every tenant of its provider"));
    assert!(said[1].starts_with("b.yaml:1: no-agreement: no agreement is named for baa/x-any-tenant"));
}
