//! Reads what `write` wrote, line by line, and nothing else: every line has one form. It is YAML as well, but a reader of
//! all of YAML would take most of the time that a large policy needs.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use jiff::civil::Date;
use trustrun_model::Action;

use crate::{Agreement, Baa, Capture, Except, Origin, Pattern, Policy, Private, Rule, When};

/// The lines that are left.
pub(super) struct Lines<'t> {
    rest: &'t str,
    /// From 1.
    line: u64,
}

/// The head of the form: all but the rules.
pub(super) struct Head {
    pub(super) name: String,
    pub(super) default: Action,
    pub(super) capture: Capture,
    pub(super) unix_sockets: Vec<PathBuf>,
    pub(super) agreements: Vec<Arc<Baa>>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text, line: 1 }
    }

    /// Which line is read next.
    pub(super) fn number(&self) -> u64 {
        self.line
    }

    pub(super) fn ended(&self) -> bool {
        self.rest.is_empty()
    }

    /// What follows the start of the next line, where it begins so; then that line is read.
    fn after(&mut self, start: &str) -> Option<&'t str> {
        let (line, rest) = self.rest.strip_prefix(start)?.split_once('\n')?;
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    /// A line of its own, such as `rules:`.
    pub(super) fn heading(&mut self, heading: &str) -> bool {
        let found = self.rest.strip_prefix(heading).is_some_and(|rest| rest.starts_with('\n'));
        found && self.after(heading).is_some()
    }

    pub(super) fn head(&mut self) -> Option<Head> {
        self.after("version: 1")?;
        let name = whole(self.after("name: ")?)?;
        let default = self.after("default: ")?.parse().ok()?;
        let word = self.after("capture: ")?;
        let capture = [Capture::Metadata, Capture::Headers, Capture::Full].into_iter().find(|c| c.as_str() == word)?;
        let mut unix_sockets = Vec::new();
        if self.heading("unix_sockets:") {
            while let Some(path) = self.after("  - ") {
                unix_sockets.push(PathBuf::from(whole(path)?));
            }
        }
        let mut agreements = Vec::new();
        if self.heading("agreements:") {
            while let Some(preset) = self.after("  - preset: ") {
                agreements.push(Arc::new(self.agreement(preset)?));
            }
        }
        Some(Head { name, default, capture, unix_sockets, agreements })
    }

    fn agreement(&mut self, preset: &str) -> Option<Baa> {
        let (preset, tenant) = (whole(preset)?, self.after("    tenant: ")?.parse().ok()?);
        let agreement = match self.after("    agreement: {counterparty: ") {
            None => None,
            Some(line) => {
                let (counterparty, line) = quoted(line)?;
                let (reference, line) = quoted(line.strip_prefix(", reference: ")?)?;
                Some(Agreement { counterparty, reference, expires: expires(line)? })
            }
        };
        Some(Baa { preset, tenant, agreement })
    }

    /// The next rule; none where something else follows, or what is no rule.
    pub(super) fn rule(&mut self, agreements: &[Arc<Baa>]) -> Option<Rule> {
        let line = self.line;
        let name = whole(self.after("  - name: ")?)?;
        let document = whole(self.after("    from: ")?)?.into();
        let mut rule = Rule { name, origin: Origin { document, line, column: 0 }, ..Rule::default() };
        for action in Action::ALL {
            if self.rest.starts_with("    ") && self.heading(heading(action)) {
                while let Some(pattern) = self.after("      - \"") {
                    rule.patterns.push((action, pattern.strip_suffix('"')?.parse().ok()?));
                }
            }
        }
        if self.heading("    except:") {
            while let Some(line) = self.after("      - {destination: \"") {
                rule.except.push(except(line)?);
            }
        }
        if self.heading("    when:") {
            rule.when = Some(Arc::new(self.when()?));
        }
        if self.after("    private: allow").is_some() {
            rule.private = Private::Allow;
        } else if self.after("    require_private_ip: true").is_some() {
            rule.private = Private::Require;
        }
        if let Some(word) = self.after("    severity: ") {
            rule.severity = Some(word.parse().ok()?);
        }
        if let Some(date) = self.after("    expires: ") {
            rule.expires = Some(date.parse().ok()?);
        }
        if let Some(number) = self.after("    baa: ") {
            rule.baa = Some(agreements.get(number.parse::<usize>().ok()?)?.clone());
        }
        Some(rule)
    }

    fn when(&mut self) -> Option<When> {
        let mut list = |start| match self.after(start) {
            Some(line) => words(line),
            None => Some(Vec::new()),
        };
        Some(When {
            exe: list("      exe: [")?,
            user: list("      user: [")?,
            unit: list("      unit: [")?,
            argument: list("      argument: [")?,
        })
    }
}

fn heading(action: Action) -> &'static str {
    match action {
        Action::Allow => "    allow:",
        Action::Alert => "    alert:",
        Action::Block => "    block:",
        Action::Kill => "    kill:",
    }
}

/// A whole policy.
pub(super) fn policy(text: &str) -> Result<Policy, u64> {
    let mut lines = Lines::new(text);
    let head = lines.head().ok_or(lines.line)?;
    let mut section = |heading| {
        let mut rules = Vec::new();
        if lines.heading(heading) {
            while let Some(rule) = lines.rule(&head.agreements) {
                rules.push(rule);
            }
        }
        rules
    };
    let (rules, listen) = (section("rules:"), section("listen:"));
    if !lines.ended() {
        return Err(lines.line);
    }
    Ok(Policy {
        name: head.name,
        description: None,
        sha256: crate::sha256(text.as_bytes()),
        default: head.default,
        capture: head.capture,
        unix_sockets: head.unix_sockets.into_iter().collect(),
        rules,
        listen,
        canonical: text.into(),
        documents: Vec::new(),
        expired: Vec::new(),
        left_out: 0,
        environment: None,
    })
}

/// A quoted text at the start of a line, and what follows it.
fn quoted(line: &str) -> Option<(String, &str)> {
    let line = line.strip_prefix('"')?;
    // Most hold nothing that is written otherwise.
    let end = line.find(['"', '\\'])?;
    if line[end..].starts_with('"') {
        return Some((line[..end].to_owned(), &line[end + 1..]));
    }
    let mut text = line[..end].to_owned();
    let mut rest = line[end..].char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return Some((text, &line[end + at + 1..])),
            '\\' => text.push(rest.next()?.1),
            c => text.push(c),
        }
    }
    None
}

/// A line that is a quoted text.
fn whole(line: &str) -> Option<String> {
    quoted(line).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| text)
}

/// `"a", "b"]`
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let (word, after) = quoted(rest)?;
        words.push(word);
        match after {
            "]" => return Some(words),
            after => rest = after.strip_prefix(", ")?,
        }
    }
}

/// What follows `{destination: "`.
fn except(line: &str) -> Option<Except> {
    let (pattern, rest) = line.split_once("\", reason: ")?;
    let (reason, rest) = quoted(rest)?;
    let pattern = Pattern::from_str(pattern).ok()?;
    Some(Except { pattern, reason: reason.into(), expires: expires(rest)?, origin: Origin::default() })
}

/// `}` or `, expires: DATE}`
fn expires(rest: &str) -> Option<Option<Date>> {
    match rest {
        "}" => Some(None),
        rest => rest.strip_prefix(", expires: ")?.strip_suffix('}')?.parse().ok().map(Some),
    }
}
