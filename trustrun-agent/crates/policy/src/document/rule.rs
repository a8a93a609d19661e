//! One rule as it is written.

use std::sync::Arc;

use jiff::civil::Date;
use trustrun_model::{Action, Severity};

use super::fields::{Fields, Reading};
use crate::{
    Agreement, Fault, Pattern, Private, Rule, When,
    pattern::{Target, shown},
    text::Spot,
    yaml::Node,
};

/// A rule, with what is not known yet apart from what is.
#[derive(Clone, Debug)]
pub(crate) struct RawRule {
    /// Without exceptions, and with the patterns that need no values.
    pub(crate) rule: Rule,
    /// Whether it was given a name; else its name is `rule N`.
    pub(crate) named: bool,
    pub(crate) at: Spot,
    pub(crate) open: Vec<(Action, Template)>,
    pub(crate) except: Vec<RawExcept>,
    /// Whether its patterns are peers'.
    pub(crate) to_peers: bool,
}

/// A pattern with parameters in it.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) text: Box<str>,
    pub(crate) at: Spot,
}

/// A pattern, or one that needs values.
#[derive(Clone, Debug)]
pub(crate) enum Hole {
    Pattern(Pattern),
    Template(Template),
}

/// An exception as it is written.
#[derive(Clone, Debug)]
pub(crate) struct RawExcept {
    pub(crate) target: Hole,
    pub(crate) reason: Arc<str>,
    pub(crate) expires: Option<Date>,
    pub(crate) at: Spot,
}

pub(super) const KEYS: [&str; 13] = [
    "name",
    "allow",
    "alert",
    "block",
    "kill",
    "except",
    "when",
    "private",
    "require_private_ip",
    "severity",
    "reason",
    "expires",
    "remedy",
];
const LISTEN_KEYS: [&str; 10] =
    ["name", "allow", "alert", "block", "kill", "except", "when", "severity", "reason", "expires"];
const ACTIONS: [(&str, Action); 4] =
    [("allow", Action::Allow), ("alert", Action::Alert), ("block", Action::Block), ("kill", Action::Kill)];

pub(super) fn read(reading: &Reading<'_>, index: usize, node: &Node<'_>, to_peers: bool) -> Option<RawRule> {
    let keys = if to_peers { &LISTEN_KEYS[..] } else { &KEYS[..] };
    let fields = reading.map(node, keys, "a mapping with a rule's keys, such as `allow: [\"example.org:443\"]`")?;
    reading.remedies.borrow_mut().extend(fields.key("remedy"));
    let given = fields.get("name").and_then(|node| reading.name(node));
    let rule = Rule {
        name: given.clone().unwrap_or_else(|| format!("rule {}", index + 1)),
        origin: reading.text.origin(node.at),
        private: private(reading, &fields),
        when: fields.get("when").and_then(|node| when(reading, node)).map(Arc::new),
        severity: fields.get("severity").and_then(|node| severity(reading, node)),
        reason: fields.get("reason").and_then(|node| reason(reading, node)),
        expires: fields.get("expires").and_then(|node| reading.date(node)),
        remedy: fields.get("remedy").and_then(|node| reading.line(node, "the remedy", 500)).map(Into::into),
        ..Rule::default()
    };
    let mut raw = RawRule { rule, named: given.is_some(), at: node.at, open: Vec::new(), except: Vec::new(), to_peers };
    patterns(reading, &fields, &mut raw);
    raw.except = fields.get("except").map(|node| excepts(reading, node, Some(&raw))).unwrap_or_default();
    Some(raw)
}

/// Reads the lists of the four actions.
fn patterns(reading: &Reading<'_>, fields: &Fields<'_, '_>, raw: &mut RawRule) {
    let mut written = 0;
    for (key, action) in ACTIONS {
        let Some(list) = fields.get(key) else { continue };
        let Some(list) = reading.list(list) else {
            written += 1; // which is told already
            continue;
        };
        written += list.len();
        raw.rule.patterns.reserve(list.len());
        for node in list {
            match hole(reading, node, Some(raw)) {
                Some(Hole::Pattern(pattern)) => raw.rule.patterns.push((action, pattern)),
                Some(Hole::Template(template)) => raw.open.push((action, template)),
                None => {}
            }
        }
    }
    if written == 0 {
        reading.fault(raw.at, Fault::EmptyRule { rule: raw.shown() });
    }
}

impl RawRule {
    /// What messages call it.
    pub(crate) fn shown(&self) -> String {
        if self.named { format!("rule `{}`", shown(&self.rule.name)) } else { self.rule.name.clone() }
    }
}

/// A pattern of a rule, or of the exception of an entry.
fn hole(reading: &Reading<'_>, node: &Node<'_>, rule: Option<&RawRule>) -> Option<Hole> {
    let text = reading.string(node)?;
    if text.contains(['{', '}']) {
        return Some(Hole::Template(Template { text: text.into(), at: node.at }));
    }
    match pattern(text, rule) {
        Ok(pattern) => Some(Hole::Pattern(pattern)),
        Err(fault) => {
            reading.fault(node.at, fault);
            None
        }
    }
}

/// A pattern as a rule may have it; none is the exception of an entry.
pub(crate) fn pattern(text: &str, rule: Option<&RawRule>) -> Result<Pattern, Fault> {
    let called = || rule.map_or_else(|| "an exception".into(), RawRule::shown);
    let pattern: Pattern = text.parse().map_err(|error| Fault::Pattern { rule: called(), error })?;
    let host = matches!(pattern.target, Target::Name(_) | Target::Below(_));
    match rule {
        Some(rule) if rule.to_peers && host => Err(Fault::ListenName { rule: called(), found: shown(text) }),
        _ => Ok(pattern),
    }
}

/// `except`: of a rule, or of an entry.
pub(super) fn excepts(reading: &Reading<'_>, node: &Node<'_>, rule: Option<&RawRule>) -> Vec<RawExcept> {
    let each = |node| {
        let wanted = "an exception, such as `{destination: \"api.example.org\", reason: \"ticket 812\"}`";
        let fields = reading.map(node, &["destination", "reason", "expires"], wanted)?;
        let destination = fields.get("destination");
        if destination.is_none() {
            let help = "say what is taken out, such as `destination: \"api.example.org\"`";
            reading.fault(node.at, Fault::MissingKey { key: "destination", help });
        }
        let why = fields.get("reason");
        if why.is_none() {
            let help = "an exception says why, such as `reason: \"ticket 812\"`";
            reading.fault(node.at, Fault::MissingKey { key: "reason", help });
        }
        let expires = fields.get("expires").and_then(|node| reading.date(node));
        Some(RawExcept {
            target: hole(reading, destination?, rule)?,
            reason: reason(reading, why?)?,
            expires,
            at: node.at,
        })
    };
    reading.list(node).into_iter().flatten().filter_map(each).collect()
}

fn private(reading: &Reading<'_>, fields: &Fields<'_, '_>) -> Private {
    let words = [("allow", true), ("refuse", false)];
    let allow = fields.get("private").and_then(|node| reading.word(node, "private", "`allow` or `refuse`", &words));
    let require = fields.get("require_private_ip").and_then(|node| reading.boolean(node));
    match (require, allow) {
        (Some(true), _) => Private::Require,
        (_, Some(true)) => Private::Allow,
        _ => Private::Refuse,
    }
}

fn severity(reading: &Reading<'_>, node: &Node<'_>) -> Option<Severity> {
    let words = Severity::ALL.map(|severity| (severity.as_str(), severity));
    reading.word(node, "severity", "informational, low, medium, high or critical", &words)
}

fn reason(reading: &Reading<'_>, node: &Node<'_>) -> Option<Arc<str>> {
    reading.line(node, "the reason", 500).map(Into::into)
}

/// `when`: at least one condition.
fn when(reading: &Reading<'_>, node: &Node<'_>) -> Option<When> {
    const KEYS: [&str; 4] = ["exe", "user", "unit", "argument"];
    let fields = reading.map(node, &KEYS, "conditions, such as `{exe: \"/usr/bin/python3*\"}`")?;
    let words = |key: &'static str| -> Vec<String> {
        let nodes = fields.get(key).map(|node| reading.one_or_more(node)).unwrap_or_default();
        let mut words: Vec<String> = nodes.into_iter().filter_map(|node| condition(reading, key, node)).collect();
        words.sort();
        words.dedup();
        words
    };
    let given = KEYS.iter().any(|key| fields.get(key).is_some());
    let when = When { exe: words("exe"), user: words("user"), unit: words("unit"), argument: words("argument") };
    // What is an empty list would hold for no process, or for every one: nobody knows which was meant.
    for key in KEYS {
        if let Some(node) =
            fields.get(key).filter(|node| matches!(&node.kind, crate::yaml::Kind::List(l) if l.is_empty()))
        {
            reading.wrong(node, "at least one condition, or no such key");
        }
    }
    if !given {
        reading.wrong(node, "at least one of exe, user, unit and argument");
    }
    (when != When::default()).then_some(when)
}

fn condition(reading: &Reading<'_>, key: &'static str, node: &Node<'_>) -> Option<String> {
    let text = reading.line(node, "the condition", 500)?;
    let why = match key {
        "exe" if !text.starts_with(['/', '*']) => {
            Some("wanted the absolute path of an executable, as in `/usr/bin/python3*`")
        }
        "exe" if text.split('/').any(|part| part == "." || part == "..") => {
            Some("wanted a path without `.` and `..`, as the kernel has it")
        }
        "user" if text.contains(['*', '?', '[']) => Some("wanted a user's name or number; a list for several"),
        "unit" if text.contains('/') => Some("wanted a unit's name, as in `etl@*.service`"),
        _ => None,
    };
    if let Some(why) = why {
        reading.fault(node.at, Fault::Condition { key, found: shown(&text), why });
        return None;
    }
    Some(text)
}

/// `baa` of an entry.
pub(super) fn agreement(reading: &Reading<'_>, node: &Node<'_>) -> Option<Agreement> {
    let wanted = "an agreement, such as `{counterparty: Microsoft, reference: \"MCA 4711\", expires: 2027-03-01}`";
    let fields = reading.map(node, &["counterparty", "reference", "expires"], wanted)?;
    let needed = |key: &'static str, help| {
        let found = fields.get(key);
        if found.is_none() {
            reading.fault(node.at, Fault::MissingKey { key, help });
        }
        found.and_then(|node| reading.line(node, "the agreement", 500))
    };
    let counterparty = needed("counterparty", "say with whom the agreement is, such as `counterparty: Microsoft`");
    let reference = needed("reference", "say where the agreement is found, such as `reference: \"MCA 4711\"`");
    let expires = fields.get("expires").and_then(|node| reading.date(node));
    Some(Agreement { counterparty: counterparty?, reference: reference?, expires })
}
