//! Patterns that can never win, since a rule that says something more severe covers all that they are about.

use std::collections::HashMap;

use trustrun_model::Action;

use super::{Found, LintKind};
use crate::{
    Pattern, Rule,
    pattern::{Net, Target, prefix, shown},
    targets::parents,
};

/// Most rules about one target that are compared.
const MOST: usize = 64;

/// What a rule without conditions and exceptions says about a target.
struct Said<'a> {
    action: Action,
    pattern: &'a Pattern,
    rule: &'a Rule,
}

pub(super) fn look(rules: &[Rule], found: &mut Found) {
    let mut by_target: HashMap<&Target, Vec<Said<'_>>> = HashMap::new();
    for rule in rules.iter().filter(|rule| rule.when.is_none() && rule.except.is_empty()) {
        for (action, pattern) in rule.patterns.iter().filter(|(action, _)| *action != Action::Allow) {
            let said = by_target.entry(&pattern.target).or_default();
            if said.len() < MOST {
                said.push(Said { action: *action, pattern, rule });
            }
        }
    }
    if by_target.is_empty() {
        return;
    }
    let mut lengths: Vec<u8> =
        by_target.keys().filter_map(|t| if let Target::Net(n) = t { Some(n.bits) } else { None }).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for rule in rules {
        for (action, pattern) in &rule.patterns {
            let over =
                around(&pattern.target, &lengths).into_iter().filter_map(|target| by_target.get(&target)).flatten();
            let mut over = over.filter(|said| covers(said, *action, pattern, rule));
            if let Some(said) = over.next() {
                tell(rule, *action, pattern, said, found);
            }
        }
    }
}

/// The targets that hold all of a target, itself among them.
fn around(target: &Target, lengths: &[u8]) -> Vec<Target> {
    let mut around = vec![target.clone(), Target::Any];
    match target {
        Target::Any => {}
        Target::Name(name) | Target::Below(name) => {
            around.extend(parents(name).map(|parent| Target::Below(parent.into())));
        }
        Target::Net(net) => {
            let wider = lengths.iter().filter(|bits| **bits < net.bits);
            let wider = wider.map(|&bits| Net { address: prefix(net.address, bits), bits });
            around.extend(wider.filter(|wide| wide.is_v4() == net.is_v4()).map(Target::Net));
        }
    }
    around
}

fn covers(said: &Said<'_>, action: Action, pattern: &Pattern, rule: &Rule) -> bool {
    let protocol = said.pattern.protocol.is_none() || said.pattern.protocol == pattern.protocol;
    let every = said.pattern.protocol.is_none();
    let ports = every || (said.pattern.ports.0 <= pattern.ports.0 && pattern.ports.1 <= said.pattern.ports.1);
    // What lets a name through may be about addresses of one kind only.
    let kinds = said.action.refuses() || said.rule.private == rule.private;
    said.action > action && protocol && ports && kinds
}

fn tell(rule: &Rule, action: Action, pattern: &Pattern, said: &Said<'_>, found: &mut Found) {
    let Said { action: other, pattern: over, rule: by } = said;
    let wins = format!("`{action}: {pattern}` never counts: `{other}: {over}` of `{}`", shown(&by.name));
    let same = rule.origin.document == by.origin.document;
    let (kind, message) = if same {
        (LintKind::Shadowed, format!("{wins} (line {}) is more severe; take one of them out", by.origin.line))
    } else {
        let document = shown(&by.origin.document);
        let help =
            format!("write `except: [{{destination: \"{pattern}\", reason: …}}]` at the entry that extends {document}");
        (LintKind::Contradiction, format!("{wins} ({document}) wins, being more severe; to let it through, {help}"))
    };
    found.add(&rule.origin, kind, message);
}
