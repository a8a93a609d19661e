//! What documents make of each other: extends, parameters, overlays, exceptions, expiry, agreements.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{collections::BTreeMap, path::Path};

use jiff::civil::{Date, date};
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Composer, Named, Opened, Opener, Policy, PolicyError};

const TODAY: Date = date(2026, 11, 21);

/// Files that are in memory.
struct Files(BTreeMap<String, String>);

impl Opener for Files {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let name = path.to_string_lossy();
        // As a file system resolves it.
        let mut parts: Vec<&str> = Vec::new();
        for part in name.split('/').filter(|part| *part != ".") {
            match part {
                ".." => _ = parts.pop(),
                part => parts.push(part),
            }
        }
        let name = parts.join("/");
        let text =
            self.0.get(&name).ok_or_else(|| PolicyError::unreadable(&name, std::io::ErrorKind::NotFound.into()))?;
        Ok(Opened { octets: text.clone().into_bytes(), hidden: false, identity: Some(name) })
    }
}

fn files(files: &[(&str, &str)]) -> Files {
    Files(files.iter().map(|(name, text)| ((*name).to_owned(), format!("version: 1\n{text}"))).collect())
}

/// Composes `a.yaml`.
fn try_compose(texts: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    Composer::new(&mut files(texts), TODAY).compose(&[Named::File("a.yaml".into())])
}

#[track_caller]
fn compose(texts: &[(&str, &str)]) -> Policy {
    try_compose(texts).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(texts: &[(&str, &str)], message: &str) {
    let error = try_compose(texts).unwrap_err().to_string();
    assert_eq!(error, message, "\n{error}");
}

fn tcp(policy: &Policy, host: &str) -> Action {
    policy.compile().decide(Some(host), None, 443, Protocol::Tcp).action
}

#[test]
fn a_document_is_its_rules_and_those_of_all_it_extends() {
    let policy = compose(&[
        (
            "a.yaml",
            "name: a\nextends: [./lib/b.yaml, ./lib/b.yaml]\ndefault: alert\nrules: [{name: own, allow: [a.test]}]\n",
        ),
        ("lib/b.yaml", "name: b\nextends: [../c.yaml]\ndefault: block\nrules: [{allow: [b.test]}]\n"),
        ("c.yaml", "rules: [{name: ours, kill: [c.test]}]\n"),
    ]);
    assert_eq!(policy.default, Action::Block, "the most severe default of files");
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["b/allow b.test", "c/ours", "own"]);
    assert_eq!(&*policy.rules[1].origin.document, "lib/../c.yaml");
    assert_eq!((tcp(&policy, "a.test"), tcp(&policy, "c.test")), (Action::Allow, Action::Kill));
    assert_eq!(policy.documents.len(), 3);
    let inherited = compose(&[("a.yaml", "extends: [./b.yaml]\n"), ("b.yaml", "default: kill\n")]);
    assert_eq!(inherited.default, Action::Kill);
}

#[test]
fn parameters_come_from_the_entry_the_document_or_their_default() {
    let policy = compose(&[
        (
            "a.yaml",
            "default: block\nparameters: {zone: own, other: x}\nextends:\n  - ./b.yaml\n  - file: b.yaml\n    parameters: {zone: given}\n",
        ),
        (
            "b.yaml",
            "parameters: {zone: {}, host: {default: db}, port: 8443}\nrules: [{allow: [\"{host}.{zone}.test:{port}\"]}]\n",
        ),
    ]);
    let allowed: Vec<String> = policy.rules.iter().map(|rule| rule.patterns[0].1.to_string()).collect();
    assert_eq!(allowed, ["db.given.test:8443", "db.own.test:8443"]);
}

#[test]
fn an_overlay_changes_the_named_document_alone() {
    let texts = [
        (
            "a.yaml",
            "default: block\nparameters: {zone: prod}\nextends: [./b.yaml]\nrules: [{allow: [\"{zone}.test\"]}]\noverlays:\n  \
             staging: {default: alert, parameters: {zone: stage}, rules: [{allow: [more.test]}]}\n",
        ),
        ("b.yaml", "overlays: {staging: {default: kill, rules: [{kill: [b.test]}]}}\n"),
    ];
    let with = |environment: Option<&str>| {
        let mut files = files(&texts);
        let composer = Composer::new(&mut files, TODAY).environment(environment.map(str::to_owned));
        composer.compose(&[Named::File("a.yaml".into())])
    };
    let plain = with(None).unwrap();
    assert_eq!(
        (plain.default, tcp(&plain, "prod.test"), tcp(&plain, "more.test")),
        (Action::Block, Action::Allow, Action::Block)
    );
    let staging = with(Some("staging")).unwrap();
    assert_eq!(
        (staging.default, tcp(&staging, "stage.test"), tcp(&staging, "more.test")),
        (Action::Alert, Action::Allow, Action::Allow)
    );
    assert_eq!((tcp(&staging, "prod.test"), tcp(&staging, "b.test")), (Action::Alert, Action::Alert));
    assert_ne!(plain.sha256, staging.sha256);
    let error = with(Some("stagin")).unwrap_err().to_string();
    assert_eq!(
        error,
        "--environment:1:1: no document has the environment `stagin`: wanted one of staging; did you mean `staging`?"
    );
}

#[test]
fn exceptions_go_to_every_rule_below_the_entry_and_expire() {
    let policy = compose(&[
        (
            "a.yaml",
            "default: alert\nextends:\n  - file: b.yaml\n    except:\n      - {destination: ok.test, reason: signed, expires: 2026-11-21}\n      \
             - {destination: old.test, reason: was signed, expires: 2026-11-20}\nrules:\n  - {name: gone, allow: [x.test], expires: 2026-11-20}\n",
        ),
        ("b.yaml", "rules: [{name: no, kill: [\"*.test\"], except: [{destination: own.test, reason: ours}]}]\n"),
    ]);
    let [rule] = &policy.rules[..] else { panic!("{:?}", policy.rules) };
    let except: Vec<String> = rule.except.iter().map(|except| except.pattern.to_string()).collect();
    assert_eq!(except, ["ok.test", "own.test"]);
    let expired: Vec<String> = policy.expired.iter().map(ToString::to_string).collect();
    assert_eq!(
        expired,
        [
            "the rule `gone` expired on 2026-11-20 and is left out",
            "the exception for `old.test` expired on 2026-11-20 and is left out"
        ]
    );
}

#[test]
fn under_an_agreement_that_ran_out_what_was_allowed_is_a_violation() {
    let preset =
        "name: ours\npreset: {kind: baa, form: tenant}\nrules: [{name: model, allow: [m.test], block: [n.test]}]\n";
    let with = |default: &str, expires: &str| {
        let a = format!(
            "default: {default}\nextends:\n  - file: b.yaml\n    baa: {{counterparty: Microsoft, reference: \"MCA\", expires: {expires}}}\n"
        );
        compose(&[("a.yaml", &a), ("b.yaml", preset)])
    };
    let good = with("block", "2026-11-21");
    assert_eq!((tcp(&good, "m.test"), tcp(&good, "n.test")), (Action::Allow, Action::Block));
    let baa = good.rules[0].baa.as_ref().unwrap();
    assert!(baa.tenant && baa.preset == "ours" && baa.agreement.as_ref().unwrap().counterparty == "Microsoft");
    assert_eq!(tcp(&with("block", "2026-11-20"), "m.test"), Action::Block);
    let over = with("allow", "2026-11-20");
    assert_eq!(tcp(&over, "m.test"), Action::Alert);
    assert_eq!(
        over.expired[0].to_string(),
        "the agreement for ours expired on 2026-11-20: what it allows is a violation"
    );
}

#[test]
fn cycles_and_missing_files_are_told_with_the_whole_chain() {
    refused(
        &[
            ("a.yaml", "default: block\nextends: [./b.yaml]\n"),
            ("b.yaml", "extends: [./c.yaml]\n"),
            ("c.yaml", "extends:\n  - ./a.yaml\n"),
        ],
        "c.yaml:3:5: `a.yaml` extends itself: a.yaml → b.yaml → c.yaml → ./a.yaml; leave one of them out\n 3 |   - ./a.yaml\n   |     \
         ^^^^^^^^",
    );
    refused(
        &[("a.yaml", "default: block\nextends: [./b.yaml]\n"), ("b.yaml", "extends: [../lost.yaml]\n")],
        "b.yaml:2:11: a.yaml → b.yaml → ../lost.yaml: ../lost.yaml cannot be read: entity not found; a file is looked for \
         beside the document that names it\n 2 | extends: [../lost.yaml]\n   |           ^^^^^^^^^^^^",
    );
    let mut deep: Vec<(String, String)> =
        (0..20).map(|i| (format!("d{i}.yaml"), format!("extends: [./d{}.yaml]\n", i + 1))).collect();
    deep.push(("a.yaml".into(), "default: block\nextends: [./d0.yaml]\n".into()));
    let deep: Vec<(&str, &str)> = deep.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let error = try_compose(&deep).unwrap_err().to_string();
    assert!(
        error
            .starts_with("d15.yaml:2:11: `./d16.yaml` is extended through more than 16 documents: a.yaml → d0.yaml → "),
        "{error}"
    );
}

#[test]
fn what_may_only_tighten_adds_refusals_and_nothing_else() {
    let base = "version: 1\nname: base\ndefault: alert\nrules: [{name: own, allow: [a.test]}]\n";
    let theirs = "version: 1\nname: theirs\ndefault: allow\nunix_sockets: [/tmp/x]\nrules:\n  - {name: open, allow: [\"*\"]}\n  - {name: no, \
                  block: [b.test], alert: [c.test]}\nlisten: [{allow: [10.0.0.0/8]}]\n";
    let text = |name: &str, text: &str| Named::Text(name.into(), text.as_bytes().to_vec());
    let mut files = Files(BTreeMap::new());
    let composer = Composer::new(&mut files, TODAY).tighten(vec![text("theirs.yaml", theirs)]);
    let policy = composer.compose(&[text("base.yaml", base)]).unwrap();
    assert_eq!((policy.default, policy.left_out, policy.unix_sockets.len()), (Action::Alert, 1, 0));
    assert_eq!(policy.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["no", "own"]);
    assert_eq!(
        (tcp(&policy, "a.test"), tcp(&policy, "b.test"), tcp(&policy, "x.test")),
        (Action::Allow, Action::Block, Action::Alert)
    );
    assert_eq!(policy.listen.len(), 1, "peers were not judged at all");
    // Where there is nothing to tighten, it is the policy, without its sockets.
    let composer = Composer::new(&mut files, TODAY).tighten(vec![text("theirs.yaml", theirs)]);
    let policy = composer.compose(&[]).unwrap();
    assert_eq!((policy.default, policy.rules.len(), policy.unix_sockets.len()), (Action::Allow, 2, 0));
}
