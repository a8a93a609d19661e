//! Takes secrets out of command lines and URLs before anything is stored or shown.
//!
//! An argument is judged by where it stands (`--password X`, `curl -u user:pass`), by the name before it
//! (`PGPASSWORD=…`, `Authorization: …`, `?sig=…`) and by its own shape (`ghp_…`, a private key). Arguments that are
//! themselves commands (`sh -c '…'`) are taken apart into words and judged the same way. What is replaced becomes
//! [`MARK`]; the number of arguments stays. Redacting twice changes nothing more. When in doubt it is redacted:
//! nothing here is needed to judge a connection, but a secret in a report is a leak of our own.
//!
//! This lowers the risk; it cannot know a secret that looks like any other word (`tool hunter2`).

mod names;
mod shell;
mod text;

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use names::{is_scheme, is_secret, is_secret_switch, short_secret};

/// What stands where a secret stood.
pub const MARK: &str = "[redacted]";

/// Commands inside commands that are taken apart; deeper ones are judged as text.
const DEPTH: u32 = 4;

/// Twice is usual (the second changes nothing); more has only been seen in made-up text.
const PASSES: u32 = 8;

/// A cheap look at an argument, since this runs for every exec: without one of these nothing below finds anything.
/// Short switches are looked at apart.
static HINT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i-u)pass|pwd|pw=|token|secret|key|auth|cookie|cred|sig|code=|session|sid=|jwt|bearer|sas|psk|otp|assert|ticket|://|sk-|sk_|rk_|gh[a-z]_|github_pat|akia|asia|xox|aiza|eyj|ya29|glpat|hf_|npm_|-----begin|--user|--proxy-user|mysql|mariadb|mongo|redis-cli|ldap|7z|zip|smbclient|login|curl| -u",
    )
    .expect("a literal pattern")
});

/// A command line without its secrets; as many arguments as before.
#[must_use]
pub fn redact_argv(argv: &[String]) -> Vec<String> {
    if !argv.iter().any(|word| suspicious(word)) {
        return argv.to_vec();
    }
    settle(argv.to_vec(), |argv| {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        walk(&words, DEPTH).into_iter().map(Cow::into_owned).collect()
    })
}

/// Until nothing changes: without what one rule took away, another may read the rest differently (a quote that is
/// gone moves the ends of words).
fn settle<T: PartialEq>(mut redacted: T, pass: impl Fn(&T) -> T) -> T {
    for _ in 0..PASSES {
        let next = pass(&redacted);
        if next == redacted {
            break;
        }
        redacted = next;
    }
    redacted
}

/// A URL without password, token or signature.
#[must_use]
pub fn redact_url(url: &str) -> String {
    settle(url.to_owned(), |url| if suspicious(url) { text::redact(url).into_owned() } else { url.to_owned() })
}

fn suspicious(word: &str) -> bool {
    matches!(word.as_bytes(), [b'-', b'u' | b'U', ..]) || HINT.is_match(word)
}

/// What the word before said about the next one.
enum Expect {
    Anything,
    /// It is a secret.
    Secret,
    /// It is `user:password`, with this separator; `certain` if it can be nothing else.
    Login {
        separator: char,
        certain: bool,
    },
    /// It is the value of a header, or its scheme.
    Header,
    /// It is a command.
    Script,
}

/// Judges words in their order; gives as many back.
fn walk<'w>(words: &[&'w str], depth: u32) -> Vec<Cow<'w, str>> {
    let mut expect = Expect::Anything;
    let mut tool = None;
    words
        .iter()
        .map(|&word| {
            if let Some(redacted) = expected(&mut expect, word, depth) {
                return redacted;
            }
            tool = names::tool(word).or(tool);
            if let Some(redacted) = switch(tool, word, &mut expect) {
                return redacted;
            }
            lone(word, depth, &mut expect)
        })
        .collect()
}

/// The word that the one before announced; `None` if it is one like any other.
fn expected<'w>(expect: &mut Expect, word: &'w str, depth: u32) -> Option<Cow<'w, str>> {
    match std::mem::replace(expect, Expect::Anything) {
        Expect::Anything => None,
        // An option of its own, so the one before took no value; `--` ends options.
        Expect::Secret if is_switch(word) => None,
        Expect::Secret | Expect::Header if word.is_empty() => None,
        Expect::Header if is_scheme(word) => {
            *expect = Expect::Header;
            Some(word.into())
        }
        Expect::Secret | Expect::Header => Some(MARK.into()),
        Expect::Login { separator, certain } => login(word, separator, certain),
        Expect::Script => Some(command(word, depth)),
    }
}

fn is_switch(word: &str) -> bool {
    let long = |name: &str| {
        name.split('=').next().is_some_and(|n| {
            n.starts_with(|c: char| c.is_ascii_alphabetic())
                && n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit())
        })
    };
    word == "--"
        || word.strip_prefix("--").is_some_and(long)
        || matches!(word.as_bytes(), [b'-', letter] if letter.is_ascii_alphabetic())
}

/// Keeps the user, redacts the password. Two numbers are a uid and a gid, and a URL is not a login.
fn login(word: &str, separator: char, certain: bool) -> Option<Cow<'_, str>> {
    let (user, password) = word.split_once(separator)?;
    let numbers = [user, password].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if password.is_empty() || (!certain && (numbers || password.starts_with("//"))) {
        return None;
    }
    Some(format!("{user}{separator}{MARK}").into())
}

/// Options whose meaning is known: of the tool at hand, or of any by their name.
fn switch<'w>(tool: Option<&str>, word: &'w str, expect: &mut Expect) -> Option<Cow<'w, str>> {
    let (separator, certain) = match tool {
        Some("smbclient") => ('%', true),
        tool => (':', tool == Some("curl")),
    };
    if let Some((flag, joined)) = tool.and_then(short_secret) {
        match word.strip_prefix(flag) {
            Some("") => {
                *expect = Expect::Secret;
                return Some(word.into());
            }
            Some(_) if joined => return Some(format!("{flag}{MARK}").into()),
            _ => {}
        }
    }
    if tool == Some("sh") && word.starts_with('-') && !word.starts_with("--") && word.ends_with('c') {
        *expect = Expect::Script;
        return Some(word.into());
    }
    if matches!(word, "-u" | "-U" | "--user" | "--proxy-user") {
        *expect = Expect::Login { separator, certain };
        return Some(word.into());
    }
    for prefix in ["--user=", "--proxy-user=", "-u", "-U"] {
        if let Some(redacted) = word.strip_prefix(prefix).and_then(|rest| login(rest, separator, certain)) {
            return Some(format!("{prefix}{redacted}").into());
        }
    }
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    if is_secret_switch(name) {
        *expect = Expect::Secret;
        return Some(word.into());
    }
    None
}

/// A word that is judged by itself.
fn lone<'w>(word: &'w str, depth: u32, expect: &mut Expect) -> Cow<'w, str> {
    if !suspicious(word) {
        return word.into();
    }
    if let Some(redacted) = assignment(word).or_else(|| header(word, expect)) {
        return redacted;
    }
    // JSON has quotes, but not those of a shell.
    let json = word.trim_start().starts_with(['{', '[']);
    if json || !word.bytes().any(|b| b.is_ascii_whitespace()) { text::redact(word) } else { command(word, depth) }
}

/// A word that is a command, or may be one.
fn command(word: &str, depth: u32) -> Cow<'_, str> {
    if depth == 0 || !suspicious(word) {
        return text::redact(word);
    }
    match shell::redact(word, |words| walk(words, depth - 1)) {
        Cow::Borrowed(same) => text::redact(same),
        Cow::Owned(changed) => text::redact(&changed).into_owned().into(),
    }
}

/// `NAME=VALUE`, `--name=VALUE`, `--env=NAME=VALUE`: everything behind the name goes.
fn assignment(word: &str) -> Option<Cow<'_, str>> {
    let mut begin = 0;
    for _ in 0..3 {
        let (name, value) = word[begin..].split_once('=')?;
        if name.is_empty() || !name.bytes().all(names::in_name) {
            return None;
        }
        if is_secret(name) {
            let kept = &word[..word.len() - value.len()];
            return (!matches!(value, "" | "$")).then(|| format!("{kept}{MARK}").into());
        }
        begin = word.len() - value.len();
    }
    None
}

/// `Authorization: Bearer …`, `-HX-Api-Key:…`, `Cookie: …`: everything behind the name and the scheme goes.
fn header<'w>(word: &'w str, expect: &mut Expect) -> Option<Cow<'w, str>> {
    let (name, value) = word.split_once(':')?;
    let name = name.strip_prefix("-H").unwrap_or(name).trim();
    let secret = !name.is_empty() && name.bytes().all(names::in_name) && is_secret(name);
    if !secret || value.starts_with([':', '/']) {
        return None;
    }
    let value = value.trim_start_matches([' ', '\t']);
    if value.is_empty() && names::is_wide(name) {
        *expect = Expect::Header;
        return Some(word.into());
    }
    let kept = word.len() - value.len() + text::scheme_length(value);
    (!value.is_empty()).then(|| format!("{}{MARK}", &word[..kept]).into())
}

#[cfg(test)]
mod tests;
