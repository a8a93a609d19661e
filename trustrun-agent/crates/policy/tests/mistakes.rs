//! Mistakes of the whole language, each with the exact message: the place, what was found, what was wanted, what to write,
//! and the text that is meant underlined.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::collections::BTreeMap;

use jiff::civil::date;
use trustrun_policy::{Composer, Named, NoFiles, Pattern, Policy};

/// Composes a policy of this text; `version` and `default` are on the first two lines.
fn compose(text: &str) -> Result<Policy, String> {
    let text = format!("version: 1\ndefault: block\n{text}");
    let named = [Named::Text("p.yaml".into(), text.into_bytes())];
    Composer::new(&mut NoFiles, date(2026, 11, 21)).compose(&named).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, message: &str) {
    let error = compose(text).unwrap_err();
    assert_eq!(error, message, "\n{error}\n");
}

#[test]
fn all_mistakes_are_told_at_once() {
    refused(
        "capture: ful\nrules:\n  - name: lab\n    alow: [a.test]\n    block: [\"10.0.0.1/8\", {}, b.test:70000]\n    expires: soon\n  - when: {exe: python3}\n",
        "\
p.yaml:3:10: `capture: ful` is not known: wanted `metadata`, `headers` or `full`; did you mean `full`?
 3 | capture: ful
   |          ^^^
p.yaml:6:5: unknown key `alow`: wanted one of name, allow, alert, block, kill, except, when, private, require_private_ip, \
severity, reason, expires; did you mean `allow`?
 6 |     alow: [a.test]
   |     ^^^^
p.yaml:7:13: in rule `lab`: `10.0.0.1/8` has bits set beyond its prefix length: wanted a network; did you mean `10.0.0.0/8`?
 7 |     block: [\"10.0.0.1/8\", {}, b.test:70000]
   |             ^^^^^^^^^^^^
p.yaml:7:27: found a mapping: wanted text; what begins with `[`, `{` or `*` needs quotes, such as `\"[2001:db8::1]:443\"`
 7 |     block: [\"10.0.0.1/8\", {}, b.test:70000]
   |                           ^^
p.yaml:7:31: in rule `lab`: `70000` is not a port: wanted a number from 1 to 65535, or two with `-` between; ports end at 65535
 7 |     block: [\"10.0.0.1/8\", {}, b.test:70000]
   |                               ^^^^^^^^^^^^
p.yaml:8:14: `soon` is no date: wanted the last day on which it counts, as in `2027-03-01`
 8 |     expires: soon
   |              ^^^^
p.yaml:9:5: rule 2 has no pattern: wanted a list under allow, alert, block or kill, such as `allow: [\"example.org:443\"]`
 9 |   - when: {exe: python3}
   |     ^^^^^^^^^^^^^^^^^^^^
p.yaml:9:17: `python3` is no condition for exe: wanted the absolute path of an executable, as in `/usr/bin/python3*`
 9 |   - when: {exe: python3}
   |                 ^^^^^^^",
    );
    let many = (0..30).map(|i| format!("  - {{allow: [\"b d{i}\"]}}\n")).collect::<String>();
    let error = compose(&format!("rules:\n{many}")).unwrap_err();
    assert_eq!(error.lines().filter(|line| line.starts_with("p.yaml:")).count(), 20);
    assert!(error.ends_with("\n… and 10 more"), "{error}");
}

#[test]
fn keys_that_are_here_twice_and_tabs() {
    refused(
        "name: a\nname: b\n",
        "p.yaml:4:1: the key `name` is here a second time: put both into one\n 4 | name: b\n   | ^^^^",
    );
    refused(
        "rules:\n\t- allow: [a.test]\n",
        "p.yaml:4:1: not YAML as a policy wants it: tabs disallowed within this context (block indentation); YAML is indented \
         with spaces: replace the tab\n 4 | \\t- allow: [a.test]\n   | ^^",
    );
    refused(
        "rules:\n  - !!binary {allow: [a.test]}\n",
        "p.yaml:4:5: not YAML as a policy wants it: `!!binary` is a tag, which no policy needs; leave it out\n 4 |   - !!binary \
         {allow: [a.test]}\n   |     ^^^^^^^^",
    );
    refused(
        "%TAG ! x\n---\nname: x\n",
        "p.yaml:3:1: not YAML as a policy wants it: YAML directives are disallowed; leave out the line that begins with `%`\n 3 | \
         %TAG ! x\n   | ^",
    );
}

#[test]
fn aliases_that_explode() {
    let mut text = "rules:\n  - allow: &a [\"a.test\"]\n".to_owned();
    text.push_str(&format!("  - allow: [{}]\n", ["*a"; 30].join(", ")));
    assert!(
        compose(&text).unwrap_err().starts_with("p.yaml:5:13: found a list: wanted text"),
        "an alias is what it stands for"
    );
    let list = format!("rules:\n  - allow: &a [{}]\n", ["a.test"; 10_000].join(", "));
    refused(
        &format!("{list}{}", "  - allow: *a\n".repeat(20)),
        "p.yaml:13:12: not YAML as a policy wants it: its aliases stand for more than 100000 values; write out what they stand \
         for\n 13 |   - allow: *a\n    |            ^^",
    );
    assert_eq!(
        compose("rules:\n  - {name: a, allow: &a [a.test]}\n  - {name: b, allow: *a}\n").unwrap().rules.len(),
        2
    );
}

#[test]
fn names_that_are_written_otherwise() {
    for (written, pattern, unicode) in [
        ("Example.ORG.", "example.org", None),
        ("_dmarc.example.org", "_dmarc.example.org", None),
        ("München.example:443", "xn--mnchen-3ya.example:443", Some("münchen.example:443")),
        ("*.straße.example", "*.xn--strae-oqa.example", Some("*.straße.example")),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example", Some("münchen.example")),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah", Some("例え.テスト")),
        // What is mapped to something else is not shown as if it had been written.
        ("xn--a.example", "xn--a.example", None),
    ] {
        let parsed: Pattern = written.parse().unwrap();
        assert_eq!((parsed.to_string().as_str(), parsed.unicode().as_deref()), (pattern, unicode), "{written}");
    }
    let pattern = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
    assert_eq!(
        pattern("１.２.３.４"),
        "`１.２.３.４` is not an address and no host name: the last label of a host name is no number"
    );
    assert_eq!(pattern("℀.test"), "`℀.test` holds '/': wanted letters, digits, `-`, `_` and dots in a host name");
    assert_eq!(
        pattern("a.*.test"),
        "`a.*.test` has `*` in the wrong place: wanted it alone, or as the whole first label, as in \
         `*.example.org`"
    );
    assert_eq!(
        pattern("a*.test"),
        "`a*.test` has `*` in the wrong place: wanted it alone, or as the whole first label, as in \
         `*.example.org`"
    );
    assert_eq!("*".parse::<Pattern>().unwrap().to_string(), "*");
}

#[test]
fn parameters() {
    refused(
        "parameters: {resource: contoso.phi, zone: \"*\", more: \"\", odd: \"a b\"}\n",
        "\
p.yaml:3:24: `contoso.phi` cannot be the value of `resource`: it holds a dot, so it is more than one label of a name; wanted one \
label, one address, or a port
 3 | parameters: {resource: contoso.phi, zone: \"*\", more: \"\", odd: \"a b\"}
   |                        ^^^^^^^^^^^
p.yaml:3:43: `*` cannot be the value of `zone`: it holds a wildcard, which would widen the rule; wanted one label of a name, one \
address, or a port
 3 | parameters: {resource: contoso.phi, zone: \"*\", more: \"\", odd: \"a b\"}
   |                                           ^^^
p.yaml:3:54: `` cannot be the value of `more`: it is empty; wanted one label of a name, one address, or a port
 3 | parameters: {resource: contoso.phi, zone: \"*\", more: \"\", odd: \"a b\"}
   |                                                      ^^
p.yaml:3:63: `a b` cannot be the value of `odd`: wanted one label of a name (letters, digits, `-` and `_`), one address, or a port
 3 | parameters: {resource: contoso.phi, zone: \"*\", more: \"\", odd: \"a b\"}
   |                                                               ^^^^^",
    );
    refused(
        "parameters:\n  resource: {description: \"the account\"}\nrules:\n  - allow: [\"{resuorce}.test\", \"{resource.test\"]\n",
        "\
p.yaml:4:3: the parameter `resource` of p is missing (the account): write `parameters: {resource: VALUE}` in what extends it, or \
`--parameter` on the command line
 4 |   resource: {description: \"the account\"}
   |   ^^^^^^^^
p.yaml:6:13: `{resuorce}` is no parameter of this document: wanted one of resource; did you mean `{resource}`?
 6 |   - allow: [\"{resuorce}.test\", \"{resource.test\"]
   |             ^^^^^^^^^^^^^^^^^
p.yaml:6:32: `{resource.test` has `{` or `}` without the other: a parameter is written `{name}`
 6 |   - allow: [\"{resuorce}.test\", \"{resource.test\"]
   |                                ^^^^^^^^^^^^^^^^",
    );
    let text = b"version: 1\ndefault: block\nparameters: {zone: {}}\nrules: [{allow: [\"{zone}.test\"]}]\n".to_vec();
    let given = |name: &str, value: &str| {
        let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let mut files = NoFiles;
        let composed = Composer::new(&mut files, date(2026, 11, 21)).parameters(given);
        composed.compose(&[Named::Text("p.yaml".into(), text.clone())]).map_err(|error| error.to_string())
    };
    assert_eq!(given("zone", "a").unwrap().rules[0].name, "allow a.test");
    assert!(
        given("zome", "a")
            .unwrap_err()
            .contains("the parameter `zome` is not one of p: wanted one of zone; did you mean `zone`?")
    );
    assert!(
        given("zone", "a.b")
            .unwrap_err()
            .starts_with("--parameter:1:1: `a.b` cannot be the value of `zone`: it holds a dot")
    );
}

#[test]
fn entries_of_extends() {
    refused(
        "extends:\n  - deny/no-such\n  - {preset: a, file: b}\n  - {parameters: {x: y}}\n  - 5: 6\n  - [a]\n",
        "\
p.yaml:4:5: there is no preset `deny/no-such`: `trustrun policy presets` lists them; a file begins with `./`, `../` or `/`
 4 |   - deny/no-such
   |     ^^^^^^^^^^^^
p.yaml:5:23: `file` does not belong here: the entry names a preset already; write an entry for each
 5 |   - {preset: a, file: b}
   |                       ^
p.yaml:6:5: `preset` is missing: an entry names a preset, or with `file:` a file
 6 |   - {parameters: {x: y}}
   |     ^^^^^^^^^^^^^^^^^^^^
p.yaml:7:5: unknown key `5`: wanted one of preset, file, parameters, baa, except
 7 |   - 5: 6
   |     ^
p.yaml:7:5: `preset` is missing: an entry names a preset, or with `file:` a file
 7 |   - 5: 6
   |     ^^^^
p.yaml:8:5: found a list: wanted a preset's name, a file that begins with `./`, `../` or `/`, or a mapping with `preset:` or `file:`
 8 |   - [a]
   |     ^^^",
    );
}

#[test]
fn words_of_rules() {
    refused(
        "listen:\n  - allow: [a.test, \"10.0.0.0/8:8888\", \"*\"]\n    private: allow\nrules:\n  - allow: [a.test]\n    severity: hihg\n    \
         except: [{destination: b.test}]\n    when: {}\n    require_private_ip: yes\n    remedy: X=1\n",
        "\
p.yaml:4:13: in rule 1: `a.test` names a host: wanted a network of peers, an address or `*`, as in `10.20.0.0/16:8888`; who \
connects is known by its address alone
 4 |   - allow: [a.test, \"10.0.0.0/8:8888\", \"*\"]
   |             ^^^^^^
p.yaml:5:5: unknown key `private`: wanted one of name, allow, alert, block, kill, except, when, severity, reason, expires
 5 |     private: allow
   |     ^^^^^^^
p.yaml:8:15: `severity: hihg` is not known: wanted informational, low, medium, high or critical; did you mean `high`?
 8 |     severity: hihg
   |               ^^^^
p.yaml:9:14: `reason` is missing: an exception says why, such as `reason: \"ticket 812\"`
 9 |     except: [{destination: b.test}]
   |              ^^^^^^^^^^^^^^^^^^^^^
p.yaml:10:11: found a mapping: wanted at least one of exe, user, unit and argument
 10 |     when: {}
    |           ^^
p.yaml:11:25: found `yes`: wanted `true` or `false`
 11 |     require_private_ip: yes
    |                         ^^^
p.yaml:12:5: unknown key `remedy`: wanted one of name, allow, alert, block, kill, except, when, private, require_private_ip, \
severity, reason, expires
 12 |     remedy: X=1
    |     ^^^^^^",
    );
}

#[test]
fn heads_of_presets() {
    let composed = |text: &str| {
        let named = [Named::Text("p.yaml".into(), format!("version: 1\n{text}").into_bytes())];
        let mut files = NoFiles;
        let composer = Composer::new(&mut files, date(2026, 11, 21));
        composer.compose(&named).map(|policy| policy.rules.len()).map_err(|error| error.to_string())
    };
    assert_eq!(
        composed("default: block\npreset: {kind: baa, source: x, checked_on: 2026-11-20}\n").unwrap_err(),
        "\
p.yaml:2:10: `default` does not belong here: the policy that extends a preset says what happens to the rest
 2 | default: block
   |          ^^^^^
p.yaml:3:9: `form` is missing: write `form: tenant` where its names belong to one tenant, else `form: provider`
 3 | preset: {kind: baa, source: x, checked_on: 2026-11-20}
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    );
}

#[test]
fn a_million_rules_are_read() {
    let rules: String = (0..1_000_000).map(|i| format!("- {{name: n{i}, allow: [h{i}.test]}}\n")).collect();
    let text = format!("version: 1\ndefault: block\nrules:\n{rules}");
    let policy = Policy::parse("p.yaml", text.as_bytes()).unwrap();
    assert_eq!(policy.rules.len(), 1_000_000);
}
