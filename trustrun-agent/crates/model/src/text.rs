//! Text from programs, networks and files, which may hold anything.

use std::fmt;

/// Text that somebody else chose: a process name, an argument, a host name. Shown with control, newline and
/// bidirectional characters escaped, so that it can neither move a terminal's cursor nor fake a line of ours.
///
/// The raw text stays inside; only `Display` is safe to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Untrusted<T>(T);

impl<T: AsRef<str>> Untrusted<T> {
    /// Wraps text that is not ours.
    pub fn new(text: T) -> Self {
        Self(text)
    }
}

/// Characters that act on a terminal or reorder a line: C0 and C1 controls, DEL, line and paragraph separators,
/// bidirectional controls (Unicode TR 9) and the zero-width characters that hide inside names.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl<T: AsRef<str>> fmt::Display for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref();
        if !text.chars().any(acts) {
            return f.pad(text);
        }
        let mut safe = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if acts(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
        }
        f.pad(&safe)
    }
}

/// JSON text in which every character that acts is escaped: the same JSON, and harmless on a terminal. JSON itself
/// escapes only the C0 controls.
#[must_use]
pub fn inert_json(json: String) -> String {
    // What a document is laid out with stands between its strings only; inside one it is escaped already.
    let harmless = |c: char| matches!(c, '\n' | '\r' | '\t') || !acts(c);
    if json.bytes().all(|b| b < 0x7f) || json.chars().all(harmless) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        if harmless(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_what_acts_on_a_terminal() {
        assert_eq!(Untrusted::new("a\x1b[2Jb\n\u{202e}c").to_string(), "a\\u{1b}[2Jb\\n\\u{202e}c");
        assert_eq!(Untrusted::new("plain ünïcode").to_string(), "plain ünïcode");
    }

    #[test]
    fn inert_json_is_the_same_json() {
        let value = serde_json::json!({"a": "\u{202e}\u{9b}\u{e0001}\u{7f}\n\"é🦀"});
        for plain in [format!("{value:#}\n"), value.to_string()] {
            let text = inert_json(plain);
            assert!(!text.chars().any(|c| acts(c) && c != '\n') && text.contains("é🦀"), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    proptest! {
        #[test]
        fn never_prints_a_character_that_acts(text in ".*") {
            let shown = Untrusted::new(text.as_str()).to_string();
            prop_assert!(!shown.chars().any(acts));
        }
    }
}
