//! Secrets in text that is not taken apart further: by their shape, in URLs, and behind names.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

use super::{
    MARK,
    names::{in_name, is_scheme, is_secret, is_secret_parameter, is_wide},
};

/// Tokens whose makers gave them a shape so that they can be found: OpenAI and Anthropic, Stripe, GitHub, AWS, Slack,
/// Google, GitLab, Hugging Face, npm; JSON web tokens.
static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    let shapes = [
        r"sk-[A-Za-z0-9_-]{16,}",
        r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}",
        r"gh[pousr]_[A-Za-z0-9]{20,}",
        r"github_pat_[A-Za-z0-9_]{20,}",
        r"A(?:KI|SI)A[0-9A-Z]{16}",
        r"xox[a-z]-[A-Za-z0-9-]{10,}",
        r"AIza[0-9A-Za-z_-]{30,}",
        r"ya29\.[0-9A-Za-z_-]{20,}",
        r"glpat-[0-9A-Za-z_-]{16,}",
        r"hf_[A-Za-z0-9]{20,}",
        r"npm_[A-Za-z0-9]{30,}",
        r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?",
    ];
    Regex::new(&format!(r"\b(?:{})", shapes.join("|"))).expect("a literal pattern")
});

/// `scheme://user:password@`; greedy, since a password may hold an `@`.
static USERINFO: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#'"\\]+)@"#).expect("a literal pattern"));

static BEARER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)\b(bearer[ \t]+)[A-Za-z0-9._~+/=-]{8,}").expect("a literal pattern"));

const BEGIN: &str = "-----BEGIN ";

/// The text without its secrets.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for pass in [private_keys, shapes, userinfo, named, bearer] {
        if let Cow::Owned(changed) = pass(&text) {
            text = Cow::Owned(changed);
        }
    }
    text
}

fn shapes(text: &str) -> Cow<'_, str> {
    SHAPE.replace_all(text, MARK)
}

fn bearer(text: &str) -> Cow<'_, str> {
    BEARER.replace_all(text, |found: &Captures<'_>| format!("{}{MARK}", &found[1]))
}

/// Keeps the user where there is a password. A user alone is a token, except where it is usual: `git@`, ssh.
fn userinfo(text: &str) -> Cow<'_, str> {
    USERINFO.replace_all(text, |found: &Captures<'_>| {
        let (scheme, info) = (&found[1], &found[2]);
        match info.split_once(':') {
            Some((_, "")) => found[0].to_owned(),
            Some((user, _)) => format!("{scheme}://{user}:{MARK}@"),
            None if info == "git" || scheme.contains("ssh") || scheme == "sftp" => found[0].to_owned(),
            None => format!("{scheme}://{MARK}@"),
        }
    })
}

/// From `-----BEGIN … PRIVATE KEY` to the end of its END line, or of the text.
fn private_keys(text: &str) -> Cow<'_, str> {
    let mut changed = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = text[at..].find(BEGIN) {
        let begin = at + found;
        at = begin + BEGIN.len();
        let label = text[at..].find("-----").map_or("", |end| &text[at..at + end]);
        if !label.contains("PRIVATE KEY") || label.len() > 64 {
            continue;
        }
        at += label.len() + 5;
        let end = text[at..].find("-----END ").and_then(|end| {
            let label = at + end + 9;
            Some(label + text[label..].find("-----")? + 5)
        });
        changed.push_str(&text[kept..begin]);
        changed.push_str(MARK);
        at = end.unwrap_or(text.len());
        kept = at;
    }
    if kept == 0 {
        return text.into();
    }
    changed.push_str(&text[kept..]);
    changed.into()
}

/// How much of an Authorization value is its scheme and the space behind it.
pub(super) fn scheme_length(value: &str) -> usize {
    // The longest scheme has 9 letters; looking no further keeps this linear.
    let word = value.bytes().take(10).position(|b| matches!(b, b' ' | b'\t')).unwrap_or(0);
    if word == 0 || !is_scheme(&value[..word]) {
        return 0;
    }
    let rest = value[word..].trim_start_matches([' ', '\t']);
    if rest.is_empty() { 0 } else { value.len() - rest.len() }
}

/// Values behind `name=`, `name:`, `"name": `, `name => ` and in URLs.
fn named(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut changed = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = bytes[at..].iter().position(|b| matches!(b, b'=' | b':')) {
        let operator = at + found;
        at = operator + bytes[operator..].iter().take(3).take_while(|b| matches!(b, b'=' | b':' | b'>')).count();
        let Some(name) = name_before(text, kept, operator) else { continue };
        let doubled = bytes[operator..at].starts_with(b"::");
        if doubled || bytes[at..].starts_with(b"//") || !name.announces(bytes, at) {
            continue;
        }
        let value = value_after(text, &name, operator, at);
        if value.is_empty() || &text[value.clone()] == MARK {
            at = at.max(value.end);
            continue;
        }
        changed.push_str(&text[kept..value.start]);
        changed.push_str(MARK);
        kept = value.end;
        at = value.end;
    }
    if kept == 0 {
        return text.into();
    }
    changed.push_str(&text[kept..]);
    changed.into()
}

/// A name before `=` or `:`.
struct Name<'t> {
    text: &'t str,
    /// The byte before it.
    before: Option<u8>,
    /// Whether a quote stands between it and the operator.
    quoted: bool,
    /// Whether a space does.
    spaced: bool,
}

impl Name<'_> {
    fn announces(&self, bytes: &[u8], operator_end: usize) -> bool {
        let parameter = matches!(self.before, Some(b'?' | b'&' | b'#')) && bytes[operator_end - 1] == b'=';
        if parameter { is_secret_parameter(self.text) } else { is_secret(self.text) }
    }
}

/// Looks back a bounded way, so that all of it stays linear.
fn name_before(text: &str, from: usize, operator: usize) -> Option<Name<'_>> {
    let bytes = &text.as_bytes()[from..operator];
    let trimmed = |bytes: &[u8], max: usize, drop: &[u8]| {
        bytes.len() - bytes.iter().rev().take(max).take_while(|b| drop.contains(b)).count()
    };
    let spaced = trimmed(bytes, 2, b" \t");
    let bracket = trimmed(&bytes[..spaced], 1, b"]");
    let unquoted = trimmed(&bytes[..bracket], 1, b"'\"");
    let end = trimmed(&bytes[..unquoted], 1, b"\\");
    let length = bytes[..end].iter().rev().take(64).take_while(|b| in_name(**b)).count();
    let begin = end - length;
    (length > 0).then(|| Name {
        text: &text[from + begin..from + end],
        before: begin.checked_sub(1).map(|at| bytes[at]),
        quoted: unquoted < bracket,
        spaced: spaced < bytes.len(),
    })
}

/// Where the value stands, without its quotes and its scheme.
fn value_after(text: &str, name: &Name<'_>, operator: usize, after: usize) -> std::ops::Range<usize> {
    let bytes = text.as_bytes();
    let blanks = bytes[after..].iter().take(8).take_while(|b| matches!(b, b' ' | b'\t')).count();
    let quote = |at: usize| match &bytes[at.min(bytes.len())..] {
        [q @ (b'"' | b'\''), ..] => Some((*q, at + 1)),
        [b'\\', q @ (b'"' | b'\''), ..] => Some((*q, at + 2)),
        _ => None,
    };
    // `NAME= command` gives nothing; `name = value`, `name: value` and `name= "value"` do.
    let loose = name.spaced || bytes[operator] == b':' || quote(after + blanks).is_some();
    let begin = if loose { after + blanks } else { after };
    let open = match name.before {
        Some(q @ (b'"' | b'\'')) if !name.quoted => Some(q),
        _ => None,
    };
    let done = begin + MARK.len();
    if text[begin..].starts_with(MARK) && bytes.get(done).is_none_or(u8::is_ascii_whitespace) {
        // Of a command in quotes, which has been taken apart: `'PASS=[redacted] cmd'`.
        return begin..done;
    }
    if let Some(q) = open {
        let begin = begin + scheme_length(&text[begin..]);
        return begin..closing(bytes, begin, q);
    }
    if let Some((q, begin)) = quote(begin) {
        let begin = begin + scheme_length(&text[begin..closing(bytes, begin, q)]);
        return begin..closing(bytes, begin, q);
    }
    let begin = begin + scheme_length(&text[begin..]);
    let ends = |b: &u8| match b {
        b'\n' | b'\r' | b'"' | b'\'' => true,
        _ if is_wide(name.text) => false,
        b => b.is_ascii_whitespace() || matches!(b, b'&' | b';' | b'|' | b'<' | b'>' | b'`' | b'#'),
    };
    begin..bytes[begin..].iter().position(ends).map_or(bytes.len(), |end| begin + end)
}

/// The quote that closes, or the end of the text.
fn closing(bytes: &[u8], begin: usize, quote: u8) -> usize {
    let mut at = begin;
    while at < bytes.len() {
        match bytes[at] {
            b if b == quote => return at,
            // An escaped quote closes what an escaped quote opened, and the backslash is no part of the value.
            b'\\' if bytes.get(at + 1) == Some(&quote) && bytes[..begin].ends_with(&[b'\\', quote]) => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}
