//! Host names: what is one, and the one way in which it is kept.

use std::borrow::Cow;

use trustrun_common::NAME_MAX;

use super::{PatternError, Target, shown};

/// Longest label, RFC 1035 2.3.4.
const LABEL_MAX: usize = 63;

/// A name in the form in which names are compared: lower case, without a trailing dot.
pub(crate) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether a rule can be written for this name.
pub(crate) fn is_host_name(name: &str) -> bool {
    name.is_ascii() && matches!(parse(name), Ok(Target::Name(_)))
}

/// A host name, or `*.` and a host name.
pub(crate) fn parse(text: &str) -> Result<Target, PatternError> {
    let name = normal(&ascii(text)?);
    let (name, below) = match name.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    if name.contains('*') {
        return Err(PatternError::Wildcard { found: shown(text) });
    }
    if let Some(rest) = name.strip_prefix('.').filter(|r| !below && !r.is_empty()) {
        return Err(PatternError::LeadingDot { found: shown(text), meant: shown(&format!("*.{rest}")) });
    }
    if name.len() > NAME_MAX {
        return Err(PatternError::NameLength { found: shown(text), octets: name.len() });
    }
    for label in name.split('.') {
        check_label(text, label)?;
    }
    // RFC 1123 2.1: the last label of a name is alphabetic, so that no name can be taken for an address.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(PatternError::Address { found: shown(text), help: "the last label of a host name is no number" });
    }
    Ok(if below { Target::Below(name.into()) } else { Target::Name(name.into()) })
}

/// A name as it is looked up: labels of other scripts in their `xn--` form (UTS 46, as browsers and resolvers have it
/// today: non-transitional). What that makes of a name is checked as if it had been written so.
fn ascii(text: &str) -> Result<Cow<'_, str>, PatternError> {
    if text.is_ascii() {
        return Ok(Cow::Borrowed(text));
    }
    let (head, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    match idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY) {
        // A wide star is mapped to one; who means a wildcard writes it.
        Ok(name) if !name.contains('*') => Ok(Cow::Owned(format!("{head}{name}"))),
        _ => Err(PatternError::Idn { found: shown(text) }),
    }
}

/// A name as people read it, where that is not how it is looked up. None also for what decodes to nothing or would be
/// encoded otherwise.
pub(crate) fn unicode(name: &str) -> Option<String> {
    if !name.split('.').any(|label| label.starts_with("xn--")) {
        return None;
    }
    let (decoded, valid) = idna::domain_to_unicode(name);
    (valid.is_ok() && decoded != name && ascii(&decoded).is_ok_and(|ascii| ascii == name)).then_some(decoded)
}

fn check_label(text: &str, label: &str) -> Result<(), PatternError> {
    if label.is_empty() {
        return Err(PatternError::EmptyLabel { found: shown(text) });
    }
    if label.len() > LABEL_MAX {
        return Err(PatternError::LabelLength { found: shown(label), octets: label.len() });
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    match label.chars().find(|c| !allowed(c)) {
        Some(character) => Err(PatternError::Character { found: shown(text), character }),
        None => Ok(()),
    }
}
