//! Takes a command in a shell's language apart into words, near enough: quotes and backslashes are understood,
//! expansions are text, and everything that ends a command ends it.

use std::{borrow::Cow, ops::Range};

/// A word: where it stands in the text, and what a shell would make of it.
struct Word {
    span: Range<usize>,
    cooked: String,
}

/// Judges each command of `script` with `judge`, which gives back as many words as it got. Words that change are
/// quoted anew; all else stays as it was written.
pub(super) fn redact<'s>(script: &'s str, judge: impl for<'w> Fn(&[&'w str]) -> Vec<Cow<'w, str>>) -> Cow<'s, str> {
    let mut changed = String::new();
    let mut kept = 0;
    for command in commands(script) {
        let words: Vec<&str> = command.iter().map(|w| w.cooked.as_str()).collect();
        for (word, judged) in command.iter().zip(judge(&words)) {
            if judged != word.cooked.as_str() {
                changed.push_str(&script[kept..word.span.start]);
                changed.push_str(&quoted(&judged));
                kept = word.span.end;
            }
        }
    }
    if kept == 0 {
        return script.into();
    }
    changed.push_str(&script[kept..]);
    changed.into()
}

/// The words of each command, in the order of the text.
fn commands(script: &str) -> Vec<Vec<Word>> {
    let mut commands = vec![Vec::new()];
    let mut chars = script.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        if ends_command(c) {
            chars.next();
            commands.push(Vec::new());
        } else if c.is_ascii_whitespace() {
            chars.next();
        } else {
            let word = word(script, start, &mut chars);
            if let Some(command) = commands.last_mut() {
                command.push(word);
            }
        }
    }
    commands
}

fn ends_command(c: char) -> bool {
    matches!(c, ';' | '|' | '&' | '\n' | '(' | ')' | '`')
}

/// Reads one word; a quote that is never closed ends with the text.
fn word(script: &str, start: usize, chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> Word {
    let mut cooked = String::new();
    let mut quote = None;
    let mut end = script.len();
    while let Some(&(at, c)) = chars.peek() {
        if quote.is_none() && (c.is_ascii_whitespace() || ends_command(c)) {
            end = at;
            break;
        }
        chars.next();
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                // At the very end it stands for itself.
                let escaped = chars.next().map_or('\\', |(_, next)| next);
                if quote.is_some() && !matches!(escaped, '"' | '\\' | '$' | '`') {
                    cooked.push('\\');
                }
                cooked.push(escaped);
            }
            _ => cooked.push(c),
        }
    }
    Word { span: start..end, cooked }
}

/// So that a shell, and [`word`], reads it back.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-+=:,./@%[]".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.into()
    } else if !word.contains('\'') {
        format!("'{word}'").into()
    } else {
        let mut quoted = String::from('"');
        for c in word.chars() {
            if matches!(c, '"' | '\\' | '$' | '`') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        quoted.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(script: &str) -> Vec<Vec<String>> {
        commands(script).into_iter().map(|c| c.into_iter().map(|w| w.cooked).collect()).collect()
    }

    #[test]
    fn words_are_what_a_shell_makes_of_them() {
        assert_eq!(split(r#"A='b c'"d\"e" \f 'g"h'"#), [vec![r#"A=b cd"e"#, "f", "g\"h"]]);
        assert_eq!(split("a b|c;d"), [vec!["a", "b"], vec!["c"], vec!["d"]]);
        assert_eq!(split("a 'never closed; b"), [vec!["a", "never closed; b"]]);
        assert_eq!(split("a\\"), [vec!["a\\"]]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(word in "[ -~é\n]{1,20}") {
            prop_assert_eq!(split(&quoted(&word)), [vec![word.clone()]]);
        }
    }
}
