//! Names in other scripts: shown in both forms, and told where letters that look alike are mixed.

use super::{Found, LintKind};
use crate::{
    Pattern, Rule,
    pattern::{Target, shown, unicode},
};

/// Scripts whose letters are taken for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Cherokee,
}

pub(super) fn look(rule: &Rule, pattern: &Pattern, found: &mut Found) {
    let (Target::Name(name) | Target::Below(name)) = &pattern.target else { return };
    let Some(read) = unicode(name) else { return };
    found.add(&rule.origin, LintKind::Idn, format!("`{pattern}` reads `{}`", shown(&read)));
    for label in read.split('.') {
        let mut scripts: Vec<Script> = Vec::new();
        for script in label.chars().filter_map(script) {
            if !scripts.contains(&script) {
                scripts.push(script);
            }
        }
        if scripts.len() > 1 {
            let names = scripts.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" and ");
            let message = format!(
                "`{}` mixes {names} letters, which look alike: it may not be the name that it reads as; compare it with \
                 `{pattern}`",
                shown(label)
            );
            found.add(&rule.origin, LintKind::MixedScripts, message);
        }
    }
}

/// By the blocks of Unicode that hold their letters.
fn script(c: char) -> Option<Script> {
    match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Some(Script::Latin),
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some(Script::Greek),
        '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}' => {
            Some(Script::Cyrillic)
        }
        '\u{530}'..='\u{58f}' => Some(Script::Armenian),
        '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Some(Script::Cherokee),
        _ => None,
    }
}
