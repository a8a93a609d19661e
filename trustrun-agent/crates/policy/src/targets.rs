//! The rules of a policy by what they are about: what both compiled forms start from.

use std::collections::BTreeMap;

use crate::{
    Policy, Private, Rule,
    classes::Classes,
    exceptions::{Effect, Exceptions},
    pattern::{Net, Target},
    ports::{Entry, Hit, PortTable, Reach},
    private::is_public_name,
    rank::Ranks,
};

/// Each target's own rules, without those of targets that contain it. Ordered, so that what is compiled from the same
/// policy is the same each time.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// `*` and bare ports.
    pub(crate) any: Own,
    /// Exact names.
    pub(crate) names: BTreeMap<Box<str>, Own>,
    /// Wildcards, without their `*.`.
    pub(crate) below: BTreeMap<Box<str>, Own>,
    /// Networks and addresses.
    pub(crate) nets: BTreeMap<Net, Own>,
    /// What the conditions of its rules tell apart.
    pub(crate) classes: Classes,
}

/// What is gathered of a target before it is put together.
#[derive(Default)]
struct Gathered {
    plain: Vec<(Private, Entry)>,
    marks: Marks,
}

impl Targets {
    pub(crate) fn new(policy: &Policy, ranks: &Ranks) -> Self {
        Self::of(&policy.rules, ranks)
    }

    pub(crate) fn of(rules: &[Rule], ranks: &Ranks) -> Self {
        let classes = Classes::new(rules);
        let mut gathered: BTreeMap<&Target, Gathered> = BTreeMap::new();
        for (rank, rule) in ranks.ranked(rules) {
            gather(rule, rank, &classes, &mut gathered);
        }
        let mut targets = Self { classes, ..Self::default() };
        for (target, gathered) in gathered {
            let own = Own::new(target, gathered);
            match target {
                Target::Any => targets.any = own,
                Target::Name(name) => drop(targets.names.insert(name.clone(), own)),
                Target::Below(name) => drop(targets.below.insert(name.clone(), own)),
                Target::Net(net) => drop(targets.nets.insert(*net, own)),
            }
        }
        targets
    }
}

/// Puts one rule's words to their targets.
fn gather<'a>(rule: &'a Rule, rank: u32, classes: &Classes, gathered: &mut BTreeMap<&'a Target, Gathered>) {
    let exceptions = (!rule.except.is_empty()).then(|| Exceptions::new(&rule.except));
    let condition = rule.when.as_ref().map(|when| classes.condition(when));
    let mut live = false;
    for (action, pattern) in &rule.patterns {
        let (lo, hi) = pattern.ports;
        let reach = Reach { protocol: pattern.protocol, lo, hi };
        let effect = exceptions.as_ref().map_or(Effect::None, |e| e.effect(&pattern.target, &reach));
        if effect == Effect::All {
            continue;
        }
        let entry = Entry { reach, hit: Hit { action: *action, rank, weak: false } };
        let to = gathered.entry(&pattern.target).or_default();
        if effect == Effect::None && condition.is_none() {
            to.plain.push((rule.private, entry));
            continue;
        }
        live |= effect == Effect::Part;
        let withheld = |side: Private| rule.private == side && !action.refuses();
        let (named, public) = match &pattern.target {
            Target::Name(name) | Target::Below(name) => (true, is_public_name(name)),
            Target::Any | Target::Net(_) => (false, false),
        };
        to.marks.special.push(Special {
            entry,
            condition,
            public: !(named && withheld(Private::Require)),
            private: !(public && withheld(Private::Refuse)),
            named,
        });
    }
    if live {
        for except in &rule.except {
            let (lo, hi) = except.pattern.ports;
            let silent = Silent { rank, reach: Reach { protocol: except.pattern.protocol, lo, hi } };
            gathered.entry(&except.pattern.target).or_default().marks.silent.push(silent);
        }
    }
}

/// A pattern of a rule that does not always speak where it matches: the rule has a condition, or exceptions that take a
/// part of what the pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Special {
    pub(crate) entry: Entry,
    /// The bit of the rule's condition.
    pub(crate) condition: Option<u32>,
    /// Whether it speaks about a name at a public address.
    pub(crate) public: bool,
    /// And at a private one.
    pub(crate) private: bool,
    /// Whether it names the host.
    pub(crate) named: bool,
}

impl Special {
    /// Whether it speaks on a side.
    pub(crate) fn on(&self, side: Side) -> bool {
        match side {
            Side::All => true,
            Side::Public => self.public,
            Side::Private => self.private,
        }
    }
}

/// A rule does not speak about this here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Silent {
    pub(crate) rank: u32,
    pub(crate) reach: Reach,
}

/// What a target has of rules with conditions and live exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Marks {
    pub(crate) special: Vec<Special>,
    pub(crate) silent: Vec<Silent>,
}

/// What kind of address a name's rules are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// None yet.
    All,
    Public,
    Private,
}

/// A target's own rules. What those of a name say depends on whether it answers with a private address; rules that
/// refuse, refuse either.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Whatever the address is.
    pub(crate) all: PortTable,
    /// At a public address; none where that is the same.
    public: Option<PortTable>,
    /// At a private address; none where that is the same.
    private: Option<PortTable>,
    /// Rules that do not always speak.
    pub(crate) marks: Option<Box<Marks>>,
}

impl Own {
    fn new(target: &Target, gathered: Gathered) -> Self {
        let Gathered { plain, marks } = gathered;
        let marked = !marks.special.is_empty() || !marks.silent.is_empty();
        let mut own = Self { all: all(&plain), marks: marked.then(|| Box::new(marks)), ..Self::default() };
        let (Target::Name(name) | Target::Below(name)) = target else { return own };
        let without = |withheld: Private| {
            let kept = |(rule, entry): &&(Private, Entry)| *rule != withheld || entry.hit.action.refuses();
            let kept: Vec<_> = plain.iter().filter(kept).copied().collect();
            (kept.len() < plain.len()).then(|| all(&kept))
        };
        own.public = without(Private::Require);
        own.private = is_public_name(name).then(|| without(Private::Refuse)).flatten();
        own
    }

    /// What is said on a side, by rules that always speak.
    pub(crate) fn side(&self, side: Side) -> &PortTable {
        let other = match side {
            Side::All => &None,
            Side::Public => &self.public,
            Side::Private => &self.private,
        };
        other.as_ref().unwrap_or(&self.all)
    }

    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_none() && self.all == PortTable::default()
    }
}

fn all(entries: &[(Private, Entry)]) -> PortTable {
    PortTable::new(&entries.iter().map(|(_, entry)| *entry).collect::<Vec<_>>())
}

/// The names that contain a name, nearest first: of `a.b.c` those are `b.c` and `c`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.').map(|(_, rest)| rest), |n| n.split_once('.').map(|(_, rest)| rest))
}
