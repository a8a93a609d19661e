//! The rules of a policy by what they are about: what both compiled forms start from.

use std::collections::BTreeMap;

use crate::{
    Policy, RuleIndex,
    pattern::{Net, Target},
    ports::{Entry, Hit, PortTable, Span},
};

/// Each target's own rules, without those of targets that contain it. Ordered, so that what is compiled from the same
/// policy is the same each time.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// `*` and bare ports.
    pub(crate) any: PortTable,
    /// Exact names.
    pub(crate) names: BTreeMap<Box<str>, PortTable>,
    /// Wildcards, without their `*.`.
    pub(crate) below: BTreeMap<Box<str>, PortTable>,
    /// Networks and addresses.
    pub(crate) nets: BTreeMap<Net, PortTable>,
}

impl Targets {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut entries: BTreeMap<&Target, Vec<Entry>> = BTreeMap::new();
        for (rule, index) in policy.rules.iter().zip(0..) {
            for (action, pattern) in &rule.patterns {
                let hit = Hit { action: *action, rule: RuleIndex(index) };
                let (lo, hi) = pattern.ports;
                let entry = Entry { protocol: pattern.protocol, span: Span { lo, hi, hit } };
                entries.entry(&pattern.target).or_default().push(entry);
            }
        }
        let mut targets = Self::default();
        for (target, entries) in entries {
            let table = PortTable::new(&entries);
            match target {
                Target::Any => targets.any = table,
                Target::Name(name) => drop(targets.names.insert(name.clone(), table)),
                Target::Below(name) => drop(targets.below.insert(name.clone(), table)),
                Target::Net(net) => drop(targets.nets.insert(*net, table)),
            }
        }
        targets
    }
}

/// The names that contain a name, nearest first: of `a.b.c` those are `b.c` and `c`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.').map(|(_, rest)| rest), |n| n.split_once('.').map(|(_, rest)| rest))
}
