//! What is allowed to be written and yet is hardly meant: for `policy check`, as data. A lint refuses nothing.

mod broad;
mod script;
mod shadow;

use std::collections::BTreeSet;

use jiff::{ToSpan as _, civil::Date};
use serde::Serialize;
use trustrun_model::Action;

use crate::{Baa, Expired, Origin, Pattern, Policy, Rule, encrypted_dns, pattern::shown};

/// How many days before its last something is told to expire.
pub const SOON_DAYS: i64 = 30;
/// Most lints that are told.
const MOST: usize = 1000;

/// What kind of thing is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LintKind {
    /// A pattern lets through what anybody can register or own.
    OverBroad,
    /// A pattern can never win, since another rule of the same document says something more severe.
    Shadowed,
    /// The same between two documents.
    Contradiction,
    /// A preset that names every tenant of a provider, not one's own.
    AnyTenant,
    /// A preset of destinations under an agreement, and none is named.
    NoAgreement,
    /// A public resolver is let through: what is asked there is not seen.
    PublicResolver,
    /// Something no longer counts.
    Expired,
    /// Something counts for a few days more.
    ExpiresSoon,
    /// A condition that nothing on this host fulfils.
    NothingMatches,
    /// A name that is looked up in another form than it is read in.
    Idn,
    /// A label with letters of several scripts that look alike.
    MixedScripts,
}

/// Something that is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lint {
    /// The file, or the preset.
    pub document: String,
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
    /// What kind of thing.
    pub kind: LintKind,
    /// What it is, and what to write instead; fit to be shown.
    pub message: String,
}

/// What is known of the host; without one of them, conditions about it are not looked at.
#[derive(Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Whether a user of this name or number exists.
    pub user: Option<&'a dyn Fn(&str) -> bool>,
    /// Whether an executable file has a path that this glob matches.
    pub exe: Option<&'a dyn Fn(&str) -> bool>,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("user", &self.user.is_some()).field("exe", &self.exe.is_some()).finish()
    }
}

impl Policy {
    /// What in this policy is hardly meant, in the order of its documents; at most a thousand.
    #[must_use]
    pub fn lints(&self, today: Date, facts: Facts<'_>) -> Vec<Lint> {
        let mut found = Found { lints: BTreeSet::new() };
        for expired in &self.expired {
            let (_, origin) = expired.place();
            let kind = LintKind::Expired;
            let help = match expired {
                Expired::Rule { .. } | Expired::Except { .. } => "renew it, or take it out",
                Expired::Agreement { .. } => "name the agreement that holds now",
            };
            found.add(origin, kind, format!("{expired}; {help}"));
        }
        for rule in self.rules.iter().chain(&self.listen) {
            soon(rule, today, &mut found);
            conditions(rule, facts, &mut found);
        }
        for rule in &self.rules {
            agreements(rule, &mut found);
            for (action, pattern) in &rule.patterns {
                script::look(rule, pattern, &mut found);
                if !action.refuses() && !broad::look(rule, pattern, &mut found) {
                    resolver(rule, *action, pattern, &mut found);
                }
            }
        }
        shadow::look(&self.rules, &mut found);
        found.lints.into_iter().collect()
    }
}

/// What was noted so far.
struct Found {
    lints: BTreeSet<Lint>,
}

impl Found {
    fn add(&mut self, origin: &Origin, kind: LintKind, message: String) {
        if self.lints.len() < MOST {
            let (document, line, column) = (origin.document.to_string(), origin.line, origin.column);
            self.lints.insert(Lint { document, line, column, kind, message });
        }
    }
}

fn soon(rule: &Rule, today: Date, found: &mut Found) {
    let limit = today.checked_add(SOON_DAYS.days()).unwrap_or(today);
    let soon = |date: Option<Date>| date.filter(|date| *date >= today && *date <= limit);
    if let Some(on) = soon(rule.expires) {
        found.add(
            &rule.origin,
            LintKind::ExpiresSoon,
            format!("the rule `{}` counts until {on} only", shown(&rule.name)),
        );
    }
    for except in &rule.except {
        if let Some(on) = soon(except.expires) {
            let message = format!("the exception for `{}` counts until {on} only", except.pattern);
            found.add(&except.origin, LintKind::ExpiresSoon, message);
        }
    }
    let agreement = rule.baa.as_ref().and_then(|baa| Some((baa, baa.agreement.as_ref()?)));
    if let Some((baa, on)) = agreement.and_then(|(baa, agreement)| Some((baa, soon(agreement.expires)?))) {
        let message = format!(
            "the agreement for {} ends on {on}: from then on what it allows is a violation",
            shown(&baa.preset)
        );
        found.add(&of_document(rule), LintKind::ExpiresSoon, message);
    }
}

/// What is said about a whole document is said once.
fn of_document(rule: &Rule) -> Origin {
    Origin { line: 1, column: 1, ..rule.origin.clone() }
}

fn agreements(rule: &Rule, found: &mut Found) {
    let Some(Baa { preset, tenant, agreement }) = rule.baa.as_deref() else { return };
    if !tenant {
        let message = format!(
            "{preset} names every tenant of its provider: another customer's could be behind a name, so nothing there is \
             covered by your agreement; extend the preset without `-any-tenant`, and give it your own name",
            preset = shown(preset)
        );
        found.add(&of_document(rule), LintKind::AnyTenant, message);
    }
    if agreement.is_none() {
        let message = format!(
            "no agreement is named for {}: reports call it capable, not covered; add `baa: {{counterparty: …, reference: \
             …, expires: …}}` to its entry",
            shown(preset)
        );
        found.add(&of_document(rule), LintKind::NoAgreement, message);
    }
}

fn resolver(rule: &Rule, action: Action, pattern: &Pattern, found: &mut Found) {
    if let Some(resolver) = encrypted_dns::resolver(&pattern.target) {
        let message = format!(
            "`{action}: {pattern}` lets a public resolver through ({resolver}): what is asked there is not seen, and no name \
             that it answers is believed; leave it out, unless the program is meant to ask it"
        );
        found.add(&rule.origin, LintKind::PublicResolver, message);
    }
}

fn conditions(rule: &Rule, facts: Facts<'_>, found: &mut Found) {
    let Some(when) = &rule.when else { return };
    let mut nothing = |what: &str, word: &String| {
        let message = format!("no {what} here is `{}`: on this host `when` keeps the rule from counting", shown(word));
        found.add(&rule.origin, LintKind::NothingMatches, message);
    };
    if let Some(exists) = facts.user {
        when.user.iter().filter(|user| !exists(user)).for_each(|user| nothing("user", user));
    }
    if let Some(exists) = facts.exe {
        when.exe.iter().filter(|exe| !exists(exe)).for_each(|exe| nothing("executable", exe));
    }
}
