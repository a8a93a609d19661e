//! The rules of a policy by what they are about: what both compiled forms start from.

use std::collections::BTreeMap;

use crate::{
    Policy, Private, RuleIndex,
    pattern::{Net, Target},
    ports::{Entry, Hit, PortTable, Span},
    private::is_public_name,
};

/// Each target's own rules, without those of targets that contain it. Ordered, so that what is compiled from the same
/// policy is the same each time.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// `*` and bare ports.
    pub(crate) any: PortTable,
    /// Exact names.
    pub(crate) names: BTreeMap<Box<str>, Named>,
    /// Wildcards, without their `*.`.
    pub(crate) below: BTreeMap<Box<str>, Named>,
    /// Networks and addresses.
    pub(crate) nets: BTreeMap<Net, PortTable>,
}

impl Targets {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut entries: BTreeMap<&Target, Vec<(Private, Entry)>> = BTreeMap::new();
        for (rule, index) in policy.rules.iter().zip(0..) {
            for (action, pattern) in &rule.patterns {
                let hit = Hit { action: *action, rule: RuleIndex(index) };
                let (lo, hi) = pattern.ports;
                let entry = Entry { protocol: pattern.protocol, span: Span { lo, hi, hit } };
                entries.entry(&pattern.target).or_default().push((rule.private, entry));
            }
        }
        let mut targets = Self::default();
        for (target, entries) in entries {
            match target {
                Target::Any => targets.any = all(&entries),
                Target::Name(name) => drop(targets.names.insert(name.clone(), Named::new(name, &entries))),
                Target::Below(name) => drop(targets.below.insert(name.clone(), Named::new(name, &entries))),
                Target::Net(net) => drop(targets.nets.insert(*net, all(&entries))),
            }
        }
        targets
    }
}

fn all(entries: &[(Private, Entry)]) -> PortTable {
    PortTable::new(&entries.iter().map(|(_, entry)| *entry).collect::<Vec<_>>())
}

/// A name's own rules: what they say depends on whether it answers with a private address. Rules that refuse, refuse
/// either.
#[derive(Debug)]
pub(crate) struct Named {
    /// Whatever the address is.
    pub(crate) all: PortTable,
    /// At a public address; none where that is the same.
    public: Option<PortTable>,
    /// At a private address; none where that is the same.
    private: Option<PortTable>,
}

impl Named {
    fn new(name: &str, entries: &[(Private, Entry)]) -> Self {
        let without = |withheld: Private| {
            let kept = |(rule, entry): &&(Private, Entry)| *rule != withheld || entry.span.hit.action.refuses();
            let kept: Vec<_> = entries.iter().filter(kept).copied().collect();
            (kept.len() < entries.len()).then(|| all(&kept))
        };
        Self {
            all: all(entries),
            public: without(Private::Require),
            private: is_public_name(name).then(|| without(Private::Refuse)).flatten(),
        }
    }

    /// What is said where its address is private, or is not.
    pub(crate) fn side(&self, private: bool) -> &PortTable {
        if private { &self.private } else { &self.public }.as_ref().unwrap_or(&self.all)
    }
}

/// The names that contain a name, nearest first: of `a.b.c` those are `b.c` and `c`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.').map(|(_, rest)| rest), |n| n.split_once('.').map(|(_, rest)| rest))
}
