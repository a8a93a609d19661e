//! The canonical form: what a composed policy says, as one text that depends on nothing else. Its SHA-256 is the
//! policy's identity.
//!
//! It has what decides and where each rule comes from, sorted; no comments, descriptions, lines or paths.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use jiff::civil::Date;
use trustrun_model::Action;

use crate::{
    Baa, Except, Policy, PolicyError, Private, Rule, When,
    compose::{Made, alone},
    document::Form,
};

/// A policy's rules in their order, and the text.
pub(crate) struct Canonical {
    pub(crate) text: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) listen: Vec<Rule>,
}

/// Agreements by what they say, each with its number in the text.
type Agreements = BTreeMap<(String, bool, Option<(String, String, Option<Date>)>), (usize, Arc<Baa>)>;

/// Writes the form, and puts the rules into its order.
pub(crate) fn write(policy: &Policy, rules: Vec<Made>, listen: Vec<Made>) -> Canonical {
    let mut agreements = Agreements::new();
    for baa in rules.iter().chain(&listen).filter_map(|made| made.rule.baa.as_ref()) {
        agreements.entry(key(baa)).or_insert_with(|| (0, Arc::clone(baa)));
    }
    agreements.values_mut().enumerate().for_each(|(at, (number, _))| *number = at);
    let mut text = String::new();
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
        for (_, baa) in agreements.values() {
            agreement(&mut text, baa);
        }
    }
    let rules = section(&mut text, "rules", rules, &agreements);
    let listen = section(&mut text, "listen", listen, &agreements);
    Canonical { text, rules, listen }
}

fn key(baa: &Baa) -> (String, bool, Option<(String, String, Option<Date>)>) {
    let agreement = baa.agreement.clone().map(|a| (a.counterparty, a.reference, a.expires));
    (baa.preset.clone(), baa.tenant, agreement)
}

/// Reads what [`write`] wrote.
pub(crate) fn read(octets: &[u8]) -> Result<Policy, PolicyError> {
    alone("<canonical>", octets, Form::Canonical)
}

fn section(text: &mut String, key: &str, made: Vec<Made>, agreements: &Agreements) -> Vec<Rule> {
    let mut written: Vec<(String, Rule)> =
        made.into_iter().map(|made| (rule(&made.rule, &made.from, agreements), made.rule)).collect();
    written.sort_by(|(one, a), (other, b)| (&a.name, one, &a.origin).cmp(&(&b.name, other, &b.origin)));
    written.dedup_by(|(one, _), (other, _)| one == other);
    if !written.is_empty() {
        text.reserve(written.iter().map(|(rule, _)| rule.len()).sum::<usize>() + 16);
        let _ = writeln!(text, "{key}:");
    }
    let each = |(written, rule): (String, Rule)| {
        text.push_str(&written);
        rule
    };
    written.into_iter().map(each).collect()
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

/// The text of a rule; two that are the same say the same.
fn rule(rule: &Rule, from: &str, agreements: &Agreements) -> String {
    let mut text = String::with_capacity(96 + 32 * rule.patterns.len());
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
        conditions(&mut text, when);
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
    if let Some((number, _)) = rule.baa.as_ref().and_then(|baa| agreements.get(&key(baa))) {
        let _ = writeln!(text, "    baa: {number}");
    }
    text
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

/// Whether a form that was read says what the policy says.
pub(crate) fn same(read: &Policy, policy: &Policy) -> bool {
    let list = |read: &[Rule], policy: &[Rule]| {
        read.len() == policy.len() && read.iter().zip(policy).all(|(read, rule)| same_rule(read, rule))
    };
    read.name == policy.name
        && read.default == policy.default
        && read.capture == policy.capture
        && read.unix_sockets == policy.unix_sockets
        && list(&read.rules, &policy.rules)
        && list(&read.listen, &policy.listen)
}

fn same_rule(read: &Rule, rule: &Rule) -> bool {
    let except = |e: &Except| (e.pattern.clone(), e.reason.clone(), e.expires);
    read.name == rule.name
        && read.patterns == rule.patterns
        && read.except.iter().map(except).eq(rule.except.iter().map(except))
        && read.when == rule.when
        && read.private == rule.private
        && read.severity == rule.severity
        && read.expires == rule.expires
        && read.baa == rule.baa
}
