//! The patterns of two policies by what they are about, and what they say at a point.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use trustrun_model::Action;

use super::{Word, names_it};
use crate::{
    Pattern, Rule, When,
    judge::{Point, Verdict, grants, has, in_net, reaches},
    pattern::{Net, Target, prefix},
    targets::parents,
};

/// Most conditions at one point whose combinations are all asked about.
const MAX_CONDITIONS: usize = 4;

/// One pattern of a rule, or of an exception of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch<'r> {
    pub(super) side: usize,
    pub(super) index: usize,
    pub(super) rule: &'r Rule,
    /// None is an exception.
    pub(super) action: Option<Action>,
    pub(super) pattern: &'r Pattern,
    /// Whether the other policy has no such rule.
    pub(super) differs: bool,
}

impl Touch<'_> {
    pub(super) fn by_name(&self) -> bool {
        names_it(&self.pattern.target)
    }

    pub(super) fn by_net(&self) -> bool {
        matches!(self.pattern.target, Target::Net(_))
    }

    pub(super) fn has(&self, point: &Point<'_>) -> bool {
        has(&self.pattern.target, point)
    }

    pub(super) fn reaches(&self, point: &Point<'_>) -> bool {
        reaches(self.pattern, point.protocol, point.port)
    }

    /// What of it decides, as a number: two that differ have two numbers, but for one chance in 2^64.
    fn shape(&self) -> u64 {
        let (rule, pattern) = (self.rule, self.pattern);
        let crossed = (!rule.except.is_empty()).then_some(self.index);
        let sides = [false, true]
            .map(|private| self.action.is_none_or(|action| grants(rule.private, action, &pattern.target, private)));
        let severity = rule.severity.map(|severity| severity.as_str());
        let mut hasher = DefaultHasher::new();
        (self.side, self.action, crossed, sides, self.differs).hash(&mut hasher);
        (pattern.protocol, pattern.ports, &rule.when, severity).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn depends_on_side(&self) -> bool {
        let grants = |private| self.action.is_some_and(|a| grants(self.rule.private, a, &self.pattern.target, private));
        self.action.is_some() && grants(false) != grants(true)
    }
}

/// Which of the conditions at a point hold.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    hold: Vec<Arc<When>>,
    not: Vec<Arc<When>>,
}

impl World {
    /// In words; none where no condition is there.
    pub(super) fn shown(&self) -> Option<String> {
        let words = |list: &[Arc<When>]| list.iter().map(|when| shown(when)).collect::<Vec<_>>();
        let mut parts = words(&self.hold);
        parts.extend(words(&self.not).into_iter().map(|when| format!("not {when}")));
        (!parts.is_empty()).then(|| parts.join(" and "))
    }
}

fn shown(when: &When) -> String {
    let mut text = String::new();
    for (key, list) in [("exe", &when.exe), ("user", &when.user), ("unit", &when.unit), ("argument", &when.argument)] {
        if !list.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{key}={}", if text.is_empty() { "" } else { "," }, list.join("|"));
        }
    }
    format!("({text})")
}

/// The worlds of the conditions at a point.
pub(super) fn worlds(touches: &[Touch<'_>], point: &Point<'_>) -> Vec<World> {
    let reached = touches.iter().filter(|touch| touch.reaches(point));
    let conditions: BTreeSet<&Arc<When>> = reached.filter_map(|touch| touch.rule.when.as_ref()).collect();
    let conditions: Vec<Arc<When>> = conditions.into_iter().cloned().collect();
    let world = |mask: u64| {
        let pick = |wanted| move |i: &usize| (mask >> i & 1 == 1) == wanted;
        let list = |wanted| (0..conditions.len()).filter(pick(wanted)).map(|i| conditions[i].clone()).collect();
        World { hold: list(true), not: list(false) }
    };
    if conditions.len() <= MAX_CONDITIONS {
        return (0..1u64 << conditions.len()).map(world).collect();
    }
    // More of them are rare; each by itself, none, and all.
    let single = (0..conditions.len().min(63)).map(|i| 1u64 << i);
    single.chain([0, u64::MAX]).map(world).collect()
}

/// The patterns of both policies.
#[derive(Debug, Default)]
pub(super) struct Field<'r> {
    any: Vec<Touch<'r>>,
    names: HashMap<&'r str, Vec<Touch<'r>>>,
    below: HashMap<&'r str, Vec<Touch<'r>>>,
    nets: HashMap<Net, Vec<Touch<'r>>>,
    lengths: Vec<u8>,
}

impl<'r> Field<'r> {
    /// The patterns that may meet one of a rule that only one policy has.
    pub(super) fn new(sides: [&'r [Rule]; 2], different: &[Vec<usize>; 2]) -> Self {
        let mut field = Self::default();
        let different: [HashSet<usize>; 2] = different.each_ref().map(|list| list.iter().copied().collect());
        let near = Near::new(sides, &different);
        for (side, rules) in sides.into_iter().enumerate() {
            for (index, rule) in rules.iter().enumerate() {
                let differs = different[side].contains(&index);
                let said = rule.patterns.iter().map(|(action, pattern)| (Some(*action), pattern));
                let except = rule.except.iter().map(|except| (None, &except.pattern));
                for (action, pattern) in said.chain(except) {
                    if differs || near.meets(&pattern.target) {
                        field.add(Touch { side, index, rule, action, pattern, differs });
                    }
                }
            }
        }
        field.lengths = field.nets.keys().map(|net| net.bits).collect::<BTreeSet<u8>>().into_iter().collect();
        field
    }

    fn add(&mut self, touch: Touch<'r>) {
        match &touch.pattern.target {
            Target::Any => self.any.push(touch),
            Target::Name(name) => self.names.entry(name).or_default().push(touch),
            Target::Below(zone) => self.below.entry(zone).or_default().push(touch),
            Target::Net(net) => self.nets.entry(*net).or_default().push(touch),
        }
    }

    pub(super) fn nets(&self) -> impl Iterator<Item = Net> {
        self.nets.keys().copied()
    }

    /// One name of each part: every name that is written, one below each wildcard, and one that no pattern names.
    pub(super) fn parts_of_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().map(|name| (*name).to_owned()).collect();
        names.extend(self.below.keys().map(|zone| self.fresh(zone)));
        names.push(self.fresh("invalid"));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A name right below a zone that nothing else names.
    fn fresh(&self, zone: &str) -> String {
        let name = |i: usize| if i == 0 { format!("any.{zone}") } else { format!("any-{i}.{zone}") };
        let free = |name: &String| !self.names.contains_key(name.as_str()) && !self.below.contains_key(name.as_str());
        (0..).map(name).find(free).unwrap_or_default()
    }

    /// What a part of the names is called: a name that is written, or the wildcard that a made-up one is below.
    pub(super) fn shown(&self, name: &str) -> String {
        if self.names.contains_key(name) {
            return name.to_owned();
        }
        match parents(name).find(|zone| self.below.contains_key(zone)) {
            Some(zone) => format!("*.{zone}"),
            None => "names that no rule names".to_owned(),
        }
    }

    /// All patterns that have a name or an address in them.
    pub(super) fn touching(&self, name: Option<&str>, address: Option<u128>) -> Vec<Touch<'r>> {
        let mut touches = self.any.clone();
        if let Some(name) = name {
            touches.extend(self.names.get(name).into_iter().flatten());
            touches.extend(parents(name).filter_map(|zone| self.below.get(zone)).flatten());
        }
        if let Some(address) = address {
            let nets = self.lengths.iter().map(|&bits| Net { address: prefix(address, bits), bits });
            touches.extend(nets.filter(|net| in_net(*net, address)).filter_map(|net| self.nets.get(&net)).flatten());
        }
        touches
    }

    /// What decides about two parts alike, whatever they meet. Rules that are about names and addresses at once (by their
    /// exceptions) are told apart.
    pub(super) fn shape(touches: &[Touch<'r>]) -> Vec<u64> {
        let mut shapes: Vec<u64> = touches.iter().map(Touch::shape).collect();
        shapes.sort_unstable();
        shapes
    }

    /// What one policy says at a point in a world.
    pub(super) fn say(
        &self,
        side: usize,
        touches: &[Touch<'r>],
        point: &Point<'_>,
        world: &World,
        default: Action,
    ) -> Word {
        let mine = || touches.iter().filter(|touch| touch.side == side && touch.reaches(point));
        let silent: HashSet<usize> = mine().filter(|t| t.action.is_none()).map(|t| t.index).collect();
        let private = point.address.map_or(point.private, crate::private::is_private);
        let mut verdict = Verdict::default();
        for touch in mine() {
            let Some(action) = touch.action.filter(|_| !silent.contains(&touch.index)) else { continue };
            let holds = touch.rule.when.as_ref().is_none_or(|when| world.hold.contains(when));
            if holds && grants(touch.rule.private, action, &touch.pattern.target, private) {
                verdict.add(crate::judge::Standing::Speaks, action, &touch.rule.name, touch.index);
            }
        }
        let (action, winner) = verdict.say(default);
        let rule = winner.and_then(|index| mine().find(|touch| touch.index == index)).map(|touch| touch.rule);
        Word {
            action,
            rule: rule.map(|rule| (rule.name.clone(), rule.origin.clone())),
            severity: rule.and_then(|rule| rule.severity).filter(|_| action.violates()),
        }
    }
}

/// Which targets may meet those of rules that only one policy has.
struct Near<'r> {
    /// Names and addresses meet each other, so a network or `*` meets every name.
    every_name: bool,
    every_net: bool,
    names: HashSet<&'r str>,
    below: HashSet<&'r str>,
    above: HashSet<&'r str>,
}

impl<'r> Near<'r> {
    fn new(sides: [&'r [Rule]; 2], different: &[HashSet<usize>; 2]) -> Self {
        let mut near = Self {
            every_name: false,
            every_net: false,
            names: HashSet::new(),
            below: HashSet::new(),
            above: HashSet::new(),
        };
        for (rules, different) in sides.into_iter().zip(different) {
            let rules = different.iter().map(|index| &rules[*index]);
            for rule in rules {
                for target in rule.patterns.iter().map(|(_, pattern)| &pattern.target) {
                    near.add(target);
                }
            }
        }
        near
    }

    fn add(&mut self, target: &'r Target) {
        match target {
            Target::Any | Target::Net(_) => (self.every_name, self.every_net) = (true, true),
            Target::Name(name) => {
                self.every_net = true;
                self.names.insert(name);
                self.above.extend(parents(name));
            }
            Target::Below(zone) => {
                self.every_net = true;
                self.below.insert(zone);
                self.above.extend(parents(zone));
            }
        }
    }

    fn meets(&self, target: &Target) -> bool {
        match target {
            Target::Any => true,
            Target::Net(_) => self.every_net,
            _ if self.every_name => true,
            Target::Name(name) => self.names.contains(&**name) || parents(name).any(|zone| self.below.contains(zone)),
            Target::Below(zone) => {
                self.above.contains(&**zone)
                    || self.below.contains(&**zone)
                    || parents(zone).any(|zone| self.below.contains(zone))
            }
        }
    }
}
