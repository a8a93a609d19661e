//! What a rule's exceptions take out of one of its patterns: nothing, all, or a part. Only where it is a part have they
//! to be remembered in what is compiled.

use std::collections::{HashMap, HashSet};

use crate::{
    Except,
    pattern::{Net, Target},
    ports::Reach,
    targets::parents,
};

/// What is taken out of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// A part, which depends on the name, the address, the protocol or the port.
    Part,
    /// All of it.
    All,
}

/// The exceptions of one rule.
#[derive(Debug, Default)]
pub(crate) struct Exceptions<'a> {
    any: Vec<Reach>,
    names: HashMap<&'a str, Vec<Reach>>,
    below: HashMap<&'a str, Vec<Reach>>,
    /// Names that contain one of those, or a wildcard below them.
    above: HashSet<&'a str>,
    nets: Vec<(Net, Reach)>,
}

impl<'a> Exceptions<'a> {
    pub(crate) fn new(list: &'a [Except]) -> Self {
        let mut all = Self::default();
        for except in list {
            let (lo, hi) = except.pattern.ports;
            let reach = Reach { protocol: except.pattern.protocol, lo, hi };
            match &except.pattern.target {
                Target::Any => all.any.push(reach),
                Target::Name(name) => {
                    all.names.entry(name).or_default().push(reach);
                    all.above.extend(parents(name));
                }
                Target::Below(name) => {
                    all.below.entry(name).or_default().push(reach);
                    all.above.extend(parents(name));
                }
                Target::Net(net) => all.nets.push((*net, reach)),
            }
        }
        all
    }

    /// What they take out of a pattern.
    pub(crate) fn effect(&self, target: &Target, reach: &Reach) -> Effect {
        let mut part = match target {
            Target::Any => self.about_names() || !self.nets.is_empty(),
            Target::Name(_) => self.meets_net(reach),
            Target::Below(name) => self.above.contains(&**name) || self.meets_net(reach),
            Target::Net(net) => {
                self.about_names() || self.nets.iter().any(|(inner, r)| within(*inner, *net) && r.meets(reach))
            }
        };
        for hole in self.around(target) {
            if hole.covers(reach) {
                return Effect::All;
            }
            part |= hole.meets(reach);
        }
        if part { Effect::Part } else { Effect::None }
    }

    fn about_names(&self) -> bool {
        !self.names.is_empty() || !self.below.is_empty()
    }

    fn meets_net(&self, reach: &Reach) -> bool {
        self.nets.iter().any(|(_, r)| r.meets(reach))
    }

    /// Exceptions that contain the whole target.
    fn around<'b>(&'b self, target: &'b Target) -> impl Iterator<Item = &'b Reach> {
        let (name, below) = match target {
            Target::Name(name) => (self.names.get(&**name), None),
            Target::Below(name) => (None, self.below.get(&**name)),
            Target::Any | Target::Net(_) => (None, None),
        };
        let text = match target {
            Target::Name(name) | Target::Below(name) => &**name,
            Target::Any | Target::Net(_) => "",
        };
        let wider = parents(text).filter_map(|parent| self.below.get(parent));
        let nets =
            self.nets.iter().filter(move |(outer, _)| matches!(target, Target::Net(net) if within(*net, *outer)));
        let by_name = name.into_iter().chain(below).chain(wider).flatten();
        self.any.iter().chain(by_name).chain(nets.map(|(_, reach)| reach))
    }
}

/// Whether a network is in another. The families are apart.
fn within(inner: Net, outer: Net) -> bool {
    inner.is_v4() == outer.is_v4() && outer.bits <= inner.bits && outer.contains(inner.address)
}
