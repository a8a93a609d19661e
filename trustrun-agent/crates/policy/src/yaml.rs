//! The YAML reader: its limits, and its errors in our words.

use serde::de::DeserializeOwned;
use serde_yaml::{
    Error, Location, Options,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

use crate::{Fault, PolicyError, pattern::shown, suggest::nearest};

/// Keys of the language that a later version follows. To ignore one would loosen or tighten a policy in silence.
const LATER: [&str; 9] = ["extends", "parameters", "when", "except", "expires", "listen", "reason", "preset", "baa"];

/// What a YAML text expands to is bounded by its size, except through aliases; a policy needs few of those.
const MAX_REPLAYED: usize = 100_000;

fn options() -> Options {
    serde_yaml::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 8,
        },
        // The text has at most MAX_BYTES octets, and every node and event takes one.
        budget: serde_yaml::budget! {
            max_nodes: crate::MAX_BYTES as usize,
            max_events: 4 * crate::MAX_BYTES as usize,
            max_depth: 16,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
    }
}

/// Reads one document.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, PolicyError> {
    serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().map_or((1, 1), place);
        PolicyError::invalid(file, text, at, fault(error, || word_at(text, at)))
    })
}

/// Line and column, from 1.
pub(crate) fn place(at: Location) -> (u64, u64) {
    (at.line().max(1), at.column().max(1))
}

/// `found` says what is at the place of the error.
fn fault(error: &Error, found: impl Fn() -> String) -> Fault {
    let wrong = |wanted: &str| Fault::WrongType { found: found(), wanted: wanted.into() };
    match error {
        Error::SerdeUnknownField { field, .. } if LATER.contains(&field.as_str()) => {
            Fault::NotYet { key: field.clone() }
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            Fault::UnknownKey { found: shown(field), wanted: expected.join(", "), meant: nearest(field, expected) }
        }
        Error::DuplicateMappingKey { key, .. } => Fault::DuplicateKey { key: key.as_deref().map_or_else(found, shown) },
        Error::SerdeInvalidType { expected, .. } => wrong(expected),
        Error::NullIntoString { .. } => wrong("text"),
        // The reader's own words for what begins a list, a mapping and a text.
        Error::Unexpected { expected: "sequence start", .. } => wrong("a list, such as `[\"example.org:443\"]`"),
        Error::Unexpected { expected: "mapping start", .. } => wrong("keys with values, such as `version: 1`"),
        Error::Unexpected { expected: "string scalar", .. } => {
            wrong("text; what begins with `[`, `{` or `*` needs quotes, such as `\"[2001:db8::1]:443\"`")
        }
        Error::MultipleDocuments { .. } => Fault::SecondDocument,
        other => Fault::Yaml { message: message(other), help: help(other) },
    }
}

/// The reader's message, without the place, which ours begins with.
fn message(error: &Error) -> String {
    let text = error.to_string();
    let place =
        error.location().map_or_else(String::new, |at| format!(" at line {}, column {}", at.line(), at.column()));
    shown(text.strip_suffix(&place).unwrap_or(&text))
}

fn help(error: &Error) -> &'static str {
    match error {
        Error::UnknownAnchor { .. } => "; a pattern that begins with `*` needs quotes, such as `\"*.example.org\"`",
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } | Error::Budget { .. } => {
            "; write out what the aliases stand for"
        }
        _ => "",
    }
}

/// What stands at a place, up to the end of the word.
fn word_at(text: &str, (line, column): (u64, u64)) -> String {
    let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
    let rest = text.lines().nth(index(line)).unwrap_or_default().chars().skip(index(column));
    let word: String = rest.take_while(|c| !c.is_whitespace()).take(40).collect();
    if word.is_empty() { "nothing".into() } else { format!("`{}`", shown(&word)) }
}
