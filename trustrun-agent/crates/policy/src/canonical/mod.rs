//! The canonical form: what a composed policy says, as one text that depends on nothing else. Its SHA-256 is the
//! policy's identity.
//!
//! It has what decides and where each rule comes from, sorted; no comments, descriptions, lines or paths.

mod read;

use std::{cmp::Ordering, collections::BTreeMap, fmt::Write, sync::Arc};

use jiff::civil::Date;
use trustrun_model::Action;

use self::read::Lines;
use crate::{Baa, Except, Fault, Pattern, Policy, PolicyError, Private, Rule, When, compose::Made, text::Faults};

/// A policy's rules in their order, and the text.
pub(crate) struct Canonical {
    pub(crate) text: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) listen: Vec<Rule>,
}

/// Agreements, each with its number in the text.
type Agreements = BTreeMap<Arc<Baa>, usize>;

/// Writes the form, and puts the rules into its order.
pub(crate) fn write(policy: &Policy, rules: Vec<Made>, listen: Vec<Made>) -> Canonical {
    let mut agreements = Agreements::new();
    for baa in rules.iter().chain(&listen).filter_map(|made| made.rule.baa.as_ref()) {
        agreements.entry(baa.clone()).or_default();
    }
    agreements.values_mut().enumerate().for_each(|(at, number)| *number = at);
    // About as long as it will be: to grow by doubling would take three times that for a moment.
    let about = |made: &Made| 48 + made.rule.name.len() + made.from.len() + 40 * (1 + made.rule.patterns.len());
    let mut text = String::with_capacity(512 + rules.iter().chain(&listen).map(about).sum::<usize>());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "version: 1\nname: {}\ndefault: {}", quoted(&policy.name), policy.default);
    let _ = writeln!(text, "capture: {}", policy.capture.as_str());
    if !policy.unix_sockets.is_empty() {
        text.push_str("unix_sockets:\n");
        for path in &policy.unix_sockets {
            let _ = writeln!(text, "  - {}", quoted(&path.to_string_lossy()));
        }
    }
    if !agreements.is_empty() {
        text.push_str("agreements:\n");
        for baa in agreements.keys() {
            agreement(&mut text, baa);
        }
    }
    let rules = section(&mut text, "rules", rules, &agreements);
    let listen = section(&mut text, "listen", listen, &agreements);
    Canonical { text, rules, listen }
}

/// Reads what [`write`] wrote.
pub(crate) fn read(octets: &[u8]) -> Result<Policy, PolicyError> {
    let text = String::from_utf8_lossy(octets);
    read::policy(&text).map_err(|line| {
        let faults = Faults::default();
        faults.add_outside("<canonical>", Fault::NotCanonical { line });
        match faults.or::<()>(None) {
            Err(error) => error,
            Ok(()) => PolicyError::Invalid { faults: Vec::new(), more: 0 },
        }
    })
}

fn section(text: &mut String, key: &str, mut made: Vec<Made>, agreements: &Agreements) -> Vec<Rule> {
    made.sort_by(|a, b| order(a, b).then_with(|| a.rule.origin.cmp(&b.rule.origin)));
    made.dedup_by(|a, b| order(a, b).is_eq());
    if !made.is_empty() {
        let _ = writeln!(text, "{key}:");
    }
    let each = |made: Made| {
        rule(text, &made.rule, &made.from, agreements);
        made.rule
    };
    made.into_iter().map(each).collect()
}

/// By name, then by all else that is written: two that are equal are the same rule.
fn order(a: &Made, b: &Made) -> Ordering {
    let rest = |made: &Made| (made.rule.private as u8, made.rule.severity, made.rule.expires);
    let (x, y) = (&a.rule, &b.rule);
    x.name
        .cmp(&y.name)
        .then_with(|| a.from.cmp(&b.from))
        .then_with(|| x.patterns.cmp(&y.patterns))
        .then_with(|| rest(a).cmp(&rest(b)))
        .then_with(|| x.when.cmp(&y.when))
        .then_with(|| x.except.iter().map(said).cmp(y.except.iter().map(said)))
        .then_with(|| x.baa.cmp(&y.baa))
}

/// What an exception says.
fn said(except: &Except) -> (&Pattern, &str, Option<Date>) {
    (&except.pattern, &except.reason, except.expires)
}

fn agreement(text: &mut String, baa: &Baa) {
    let _ = write!(text, "  - preset: {}\n    tenant: {}\n", quoted(&baa.preset), baa.tenant);
    if let Some(agreement) = &baa.agreement {
        let expires = expires(agreement.expires);
        let (counterparty, reference) = (quoted(&agreement.counterparty), quoted(&agreement.reference));
        let _ = writeln!(text, "    agreement: {{counterparty: {counterparty}, reference: {reference}{expires}}}");
    }
}

fn expires(date: Option<Date>) -> String {
    date.map(|date| format!(", expires: {date}")).unwrap_or_default()
}

/// The text of a rule.
fn rule(text: &mut String, rule: &Rule, from: &str, agreements: &Agreements) {
    let _ = writeln!(text, "  - name: {}\n    from: {}", quoted(&rule.name), quoted(from));
    let mut action: Option<Action> = None;
    for (said, pattern) in &rule.patterns {
        if action.replace(*said) != Some(*said) {
            let _ = writeln!(text, "    {said}:");
        }
        let _ = writeln!(text, "      - \"{pattern}\"");
    }
    if !rule.except.is_empty() {
        text.push_str("    except:\n");
        for Except { pattern, reason, expires: date, .. } in &rule.except {
            let (reason, expires) = (quoted(reason), expires(*date));
            let _ = writeln!(text, "      - {{destination: \"{pattern}\", reason: {reason}{expires}}}");
        }
    }
    if let Some(when) = &rule.when {
        conditions(text, when);
    }
    match rule.private {
        Private::Refuse => {}
        Private::Allow => text.push_str("    private: allow\n"),
        Private::Require => text.push_str("    require_private_ip: true\n"),
    }
    if let Some(severity) = rule.severity {
        let _ = writeln!(text, "    severity: {severity}");
    }
    if let Some(date) = rule.expires {
        let _ = writeln!(text, "    expires: {date}");
    }
    if let Some(number) = rule.baa.as_ref().and_then(|baa| agreements.get(baa)) {
        let _ = writeln!(text, "    baa: {number}");
    }
}

fn conditions(text: &mut String, when: &When) {
    text.push_str("    when:\n");
    for (key, words) in [("exe", &when.exe), ("user", &when.user), ("unit", &when.unit), ("argument", &when.argument)] {
        if !words.is_empty() {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let _ = writeln!(text, "      {key}: [{}]", words.join(", "));
        }
    }
}

/// A YAML double-quoted scalar; the text holds nothing that a terminal would not show.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether the text, read again, says what the policy says; else the line at which it does not.
pub(crate) fn verify(text: &str, policy: &Policy) -> Result<(), u64> {
    let mut lines = Lines::new(text);
    let head = lines.head().ok_or(lines.number())?;
    let same = head.name == policy.name
        && head.default == policy.default
        && head.capture == policy.capture
        && head.unix_sockets.iter().eq(&policy.unix_sockets);
    if !same {
        return Err(1);
    }
    for (key, rules) in [("rules:", &policy.rules), ("listen:", &policy.listen)] {
        if lines.heading(key) == rules.is_empty() {
            return Err(lines.number());
        }
        for rule in rules {
            let at = lines.number();
            lines.rule(&head.agreements).filter(|read| same_rule(read, rule)).ok_or(at)?;
        }
    }
    if lines.ended() { Ok(()) } else { Err(lines.number()) }
}

fn same_rule(read: &Rule, rule: &Rule) -> bool {
    read.name == rule.name
        && read.patterns == rule.patterns
        && read.except.iter().map(said).eq(rule.except.iter().map(said))
        && read.when == rule.when
        && read.private == rule.private
        && read.severity == rule.severity
        && read.expires == rule.expires
        && read.baa == rule.baa
}
