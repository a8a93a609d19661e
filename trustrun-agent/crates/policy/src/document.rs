//! The text of a policy to a [`Policy`]: the keys, and what each may hold.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_yaml::{Location, Spanned};
use trustrun_model::{Action, Untrusted};

use crate::{
    Fault, Origin, Pattern, Policy, PolicyError, Private, Rule,
    pattern::shown,
    policy::sha256,
    socket_path,
    suggest::nearest,
    yaml::{self, place},
};

/// The keys of a document. Everything is optional here, so that what is missing can be said in our words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with the keys of a policy, such as `version: 1`")]
struct Document {
    version: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    description: Option<Spanned<String>>,
    default: Option<Spanned<String>>,
    capture: Option<Spanned<String>>,
    unix_sockets: Option<Vec<Spanned<String>>>,
    rules: Option<Vec<Spanned<RawRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with a rule's keys, such as `allow: [\"example.org:443\"]`")]
struct RawRule {
    name: Option<Spanned<String>>,
    allow: Option<Vec<Spanned<String>>>,
    alert: Option<Vec<Spanned<String>>>,
    block: Option<Vec<Spanned<String>>>,
    kill: Option<Vec<Spanned<String>>>,
    private: Option<Spanned<String>>,
    require_private_ip: Option<Spanned<bool>>,
}

/// Where in the text, for a fault.
struct Text<'a> {
    file: &'a str,
    text: &'a str,
    /// The file, as each rule has it.
    document: Arc<str>,
}

impl Text<'_> {
    fn fault(&self, at: Location, fault: Fault) -> PolicyError {
        PolicyError::invalid(self.file, self.text, place(at), fault)
    }
}

pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Policy, PolicyError> {
    let text = std::str::from_utf8(bytes).map_err(|e| not_utf8(file, bytes, e.valid_up_to()))?;
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|line| matches!(line.trim().chars().next(), None | Some('#'))) {
        return Err(PolicyError::invalid(file, text, (1, 1), Fault::Empty));
    }
    let document: Document = yaml::read(file, text)?;
    build(&Text { file, text, document: file.into() }, document, sha256(bytes))
}

fn build(text: &Text<'_>, document: Document, sha256: String) -> Result<Policy, PolicyError> {
    check_version(text, document.version)?;
    check_capture(text, document.capture)?;
    let default = document.default.ok_or_else(|| {
        let help = "say what happens to a destination that no rule matches, for instance `default: block`";
        PolicyError::invalid(text.file, text.text, (1, 1), Fault::MissingKey { key: "default", help })
    })?;
    let rules = document.rules.unwrap_or_default();
    let rules = rules.into_iter().enumerate().map(|(i, rule)| build_rule(text, i, rule));
    Ok(Policy {
        name: document.name.map_or_else(|| Ok(stem(text.file)), |name| one_line(text, name))?,
        description: document.description.map(|d| d.value),
        sha256,
        default: action(text, &default)?,
        unix_sockets: unix_sockets(text, document.unix_sockets)?,
        rules: rules.collect::<Result<_, _>>()?,
        listen: Vec::new(),
    })
}

fn build_rule(text: &Text<'_>, index: usize, rule: Spanned<RawRule>) -> Result<Rule, PolicyError> {
    let (line, column) = place(rule.referenced);
    let at = rule.referenced;
    let rule = rule.value;
    let private = private(text, rule.private, rule.require_private_ip)?;
    let name = rule.name.map_or_else(|| Ok(format!("rule {}", index + 1)), |name| one_line(text, name))?;
    let lists = [
        (Action::Allow, rule.allow),
        (Action::Alert, rule.alert),
        (Action::Block, rule.block),
        (Action::Kill, rule.kill),
    ];
    let shown_name = || if name.starts_with("rule ") { name.clone() } else { format!("rule `{}`", shown(&name)) };
    if lists.iter().all(|(_, list)| list.is_none()) {
        return Err(text.fault(at, Fault::EmptyRule { rule: shown_name() }));
    }
    let mut patterns = Vec::new();
    for (action, list) in lists {
        for pattern in list.unwrap_or_default() {
            let parsed = pattern.value.parse::<Pattern>();
            let parsed =
                parsed.map_err(|error| text.fault(pattern.referenced, Fault::Pattern { rule: shown_name(), error }))?;
            patterns.push((action, parsed));
        }
    }
    let origin = Origin { document: text.document.clone(), line, column };
    Ok(Rule { name, origin, patterns, private, ..Rule::default() })
}

fn private(
    text: &Text<'_>,
    private: Option<Spanned<String>>,
    require: Option<Spanned<bool>>,
) -> Result<Private, PolicyError> {
    let mut allow = false;
    if let Some(word) = private {
        allow = match word.value.as_str() {
            "allow" => true,
            "refuse" => false,
            other => {
                let fault = Fault::Private { found: shown(other), meant: nearest(other, &["allow", "refuse"]) };
                return Err(text.fault(word.referenced, fault));
            }
        };
    }
    let require = require.is_some_and(|word| word.value);
    Ok(if require {
        Private::Require
    } else if allow {
        Private::Allow
    } else {
        Private::Refuse
    })
}

fn check_version(text: &Text<'_>, version: Option<Spanned<String>>) -> Result<(), PolicyError> {
    match version {
        None => {
            let fault = Fault::MissingKey { key: "version", help: "begin the policy with `version: 1`" };
            Err(PolicyError::invalid(text.file, text.text, (1, 1), fault))
        }
        Some(version) if version.value == "1" => Ok(()),
        Some(version) => Err(text.fault(version.referenced, Fault::Version { found: shown(&version.value) })),
    }
}

fn check_capture(text: &Text<'_>, capture: Option<Spanned<String>>) -> Result<(), PolicyError> {
    let Some(capture) = capture else { return Ok(()) };
    let found = shown(&capture.value);
    let fault = match capture.value.as_str() {
        "metadata" => return Ok(()),
        "headers" | "full" => Fault::CaptureNotYet { found },
        other => Fault::Capture { meant: nearest(other, &["metadata"]), found },
    };
    Err(text.fault(capture.referenced, fault))
}

fn unix_sockets(text: &Text<'_>, paths: Option<Vec<Spanned<String>>>) -> Result<BTreeSet<PathBuf>, PolicyError> {
    let one = |path: Spanned<String>| {
        socket_path::parse(&path.value)
            .map_err(|why| text.fault(path.referenced, Fault::SocketPath { found: shown(&path.value), why }))
    };
    paths.unwrap_or_default().into_iter().map(one).collect()
}

fn action(text: &Text<'_>, word: &Spanned<String>) -> Result<Action, PolicyError> {
    word.value.parse().map_err(|_| {
        let meant = nearest(&word.value, &Action::ALL.map(Action::as_str));
        text.fault(word.referenced, Fault::Action { found: shown(&word.value), meant })
    })
}

/// A name that reports and terminals show.
fn one_line(text: &Text<'_>, name: Spanned<String>) -> Result<String, PolicyError> {
    const MOST: usize = 200;
    let tame = Untrusted::new(&name.value).to_string() == name.value;
    if !tame || name.value.trim().is_empty() || name.value.chars().count() > MOST {
        return Err(text.fault(name.referenced, Fault::Name { found: shown(&name.value) }));
    }
    Ok(name.value)
}

/// The name of a policy that has none: that of its file, which may hold anything.
fn stem(file: &str) -> String {
    shown(&Path::new(file).file_stem().unwrap_or_default().to_string_lossy())
}

fn not_utf8(file: &str, bytes: &[u8], valid: usize) -> PolicyError {
    let text = String::from_utf8_lossy(&bytes[..valid]);
    let line = text.matches('\n').count() as u64 + 1;
    let column = text.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u64 + 1;
    let octet = bytes.get(valid).copied().unwrap_or_default();
    PolicyError::invalid(file, &text, (line, column), Fault::NotUtf8 { octet })
}
