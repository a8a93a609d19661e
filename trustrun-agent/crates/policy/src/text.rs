//! A document's text while it is read, and what is found wrong in it.

use std::{cell::RefCell, sync::Arc};

use trustrun_model::Untrusted;

use crate::{
    Fault, Origin, Place, PolicyError,
    error::{MAX_FAULTS, Wrong},
    pattern::shown,
};

/// Where a value stands in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// First octet, and the one after the last.
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Spot {
    /// The document as a whole.
    pub(crate) const TOP: Self = Self { line: 1, column: 1, start: 0, end: 0 };
}

/// A text with its name.
#[derive(Debug)]
pub(crate) struct Text {
    /// The file as it was named, or the preset.
    pub(crate) name: Arc<str>,
    pub(crate) source: String,
    /// Whether the person may not see it: root may read it, the user behind sudo may not.
    pub(crate) hidden: bool,
}

impl Text {
    pub(crate) fn origin(&self, at: Spot) -> Origin {
        Origin { document: self.name.clone(), line: at.line.into(), column: at.column.into() }
    }
}

/// What was found wrong, in one document or in all of a policy.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: RefCell<Vec<Wrong>>,
    more: std::cell::Cell<usize>,
}

impl Faults {
    pub(crate) fn add(&self, text: &Text, at: Spot, fault: Fault) {
        let mut found = self.found.borrow_mut();
        // Nothing of a hidden text is told, and that once.
        if text.hidden {
            let fault = Fault::Hidden { file: shown(&text.name) };
            let at = Place { file: text.name.to_string(), line: 1, column: 1 };
            let wrong = Wrong { at, fault, excerpt: String::new() };
            if !found.contains(&wrong) {
                found.push(wrong);
            }
            return;
        }
        if found.len() >= MAX_FAULTS {
            self.more.set(self.more.get() + 1);
            return;
        }
        let place = Place { file: text.name.to_string(), line: at.line.into(), column: at.column.into() };
        found.push(Wrong { at: place, excerpt: excerpt(&text.source, at), fault });
    }

    /// A fault of what stands in no text.
    pub(crate) fn add_outside(&self, name: &str, fault: Fault) {
        let text = Text { name: name.into(), source: String::new(), hidden: false };
        self.add(&text, Spot::TOP, fault);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// What was made, unless something was found.
    pub(crate) fn or<T>(self, made: Option<T>) -> Result<T, PolicyError> {
        let mut faults = self.found.into_inner();
        match made {
            Some(made) if faults.is_empty() => Ok(made),
            _ => {
                // As a person reads: documents as they were come upon, each from its top.
                let mut files: Vec<String> = Vec::new();
                for wrong in &faults {
                    if !files.contains(&wrong.at.file) {
                        files.push(wrong.at.file.clone());
                    }
                }
                let file = |wrong: &Wrong| files.iter().position(|f| *f == wrong.at.file);
                faults.sort_by_key(|wrong| (file(wrong), wrong.at.line, wrong.at.column));
                Err(PolicyError::Invalid { faults, more: self.more.get() })
            }
        }
    }
}

/// The line of a place, cropped to a window around it, and what is meant underlined.
fn excerpt(source: &str, at: Spot) -> String {
    const BEFORE: usize = 80;
    const AFTER: usize = 80;
    let Some((line, from)) = line_of(source, at) else { return String::new() };
    let from = from.min(line.len());
    let start = line[..from].char_indices().rev().take(BEFORE).last().map_or(from, |(i, _)| i);
    let window: String = line[from..].chars().take(AFTER).collect();
    let rest = if from + window.len() < line.len() { "…" } else { "" };
    let cropped = if start > 0 { "…" } else { "" };
    let before = format!("{cropped}{}", Untrusted::new(&line[start..from]));
    if before.trim().is_empty() && window.trim().is_empty() {
        return String::new();
    }
    let meant = (at.end.saturating_sub(at.start)) as usize;
    let meant = window.char_indices().take_while(|(i, _)| *i < meant).map(|(_, c)| c).collect::<String>();
    // Tabs and what is escaped change the width, so what is underlined is measured as it is shown.
    let shown = |text: &str| Untrusted::new(text).to_string().chars().count();
    let meant = if meant.trim().is_empty() { &meant[..] } else { meant.trim_end() };
    let marks = "^".repeat(shown(meant).max(1));
    let number = at.line;
    let margin = " ".repeat(number.to_string().len());
    let indent = " ".repeat(before.chars().count());
    format!("\n {number} | {before}{after}{rest}\n {margin} | {indent}{marks}", after = Untrusted::new(window))
}

/// The line on which a place is, without its end, and where in it the place is, in octets.
fn line_of(source: &str, at: Spot) -> Option<(&str, usize)> {
    let start = (at.start as usize).min(source.len());
    let head = source.get(..start)?;
    let begin = head.rfind('\n').map_or(0, |i| i + 1);
    let line = source[begin..].lines().next().unwrap_or_default();
    Some((line, start - begin))
}
