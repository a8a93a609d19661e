//! Deciding in user space: what the kernel decides from its tables, decided again from the rules.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use trustrun_model::{Action, Protocol};

use crate::{
    About, Class, Classes, Policy, RuleIndex,
    pattern::{Net, V4, mapped, normal, prefix},
    ports::{Hit, PortTable},
    private::is_private,
    query::{Word, ask},
    rank::Ranks,
    targets::{Marks, Own, Side, Special, Targets, parents},
};

/// What is done about a destination, and which rule said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// The rule; none where the default applied.
    pub rule: Option<RuleIndex>,
}

/// A policy compiled for deciding: a lookup costs one probe for each label of the name and one for each prefix length
/// that the policy uses, however many rules there are. Rules with conditions or exceptions cost where they match.
#[derive(Debug)]
pub struct Matcher {
    default: Action,
    any: Own,
    names: HashMap<Box<str>, Own>,
    below: HashMap<Box<str>, Own>,
    nets: HashMap<Net, Own>,
    /// Prefix lengths of the IPv6 networks, and of the IPv4 ones (mapped, so 96 and more).
    lengths: [Vec<u8>; 2],
    ranks: Ranks,
    classes: Classes,
    rules: Vec<String>,
    about: Vec<About>,
    /// Rules for accepted connections, where there are any.
    listen: Option<Box<Self>>,
}

/// A connection as it is decided about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    class: Class,
    /// Without a trailing dot, in lower case.
    name: Option<&'a str>,
    address: Option<u128>,
    /// Whether the rules for the address count, or it only says on which side the name is.
    by_address: bool,
    side: Side,
    protocol: Protocol,
    port: u16,
}

impl Matcher {
    pub(crate) fn new(policy: &Policy) -> Self {
        let ranks = Ranks::new(policy);
        let targets = Targets::new(policy, &ranks);
        let lengths = [false, true].map(|v4| {
            let mut lengths: Vec<u8> = targets.nets.keys().filter(|n| n.is_v4() == v4).map(|n| n.bits).collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths
        });
        Self {
            default: policy.default,
            any: targets.any,
            names: targets.names.into_iter().collect(),
            below: targets.below.into_iter().collect(),
            nets: targets.nets.into_iter().collect(),
            lengths,
            ranks,
            classes: targets.classes,
            rules: policy.rules.iter().map(|r| r.name.clone()).collect(),
            about: policy.rules.iter().map(About::new).collect(),
            listen: (!policy.listen.is_empty()).then(|| Box::new(Self::listening(policy))),
        }
    }

    fn listening(policy: &Policy) -> Self {
        Self::new(&Policy { rules: policy.listen.clone(), listen: Vec::new(), ..policy.clone() })
    }

    /// The rules for accepted connections: their destinations are the peers, with the port of ours. None where nothing
    /// is said about them, and they are not judged.
    #[must_use]
    pub fn listen(&self) -> Option<&Self> {
        self.listen.as_deref()
    }

    /// What is said beside the destinations of a rule of a [`Decision`].
    #[must_use]
    pub fn about(&self, rule: RuleIndex) -> Option<&About> {
        self.about.get(rule.0 as usize)
    }

    /// Decides about a destination of a process that is not classified: see [`Matcher::decide_as`].
    #[must_use]
    pub fn decide(&self, host: Option<&str>, addr: Option<IpAddr>, port: u16, proto: Protocol) -> Decision {
        self.decide_as(Class::default(), host, addr, port, proto)
    }

    /// Decides about a destination of a process: the most severe of all matching rules, of equals the one whose name
    /// sorts first; the default where none matches. A name may have upper case and a trailing dot; a v4-mapped address
    /// is IPv4. The port is ignored for a protocol without ports. A rule of a public name does not grant it a private
    /// address unless it says so; without an address the name is taken to have a public one. Of a process that is not
    /// classified, the most severe that any class gets.
    #[must_use]
    pub fn decide_as(
        &self,
        class: Class,
        host: Option<&str>,
        addr: Option<IpAddr>,
        port: u16,
        proto: Protocol,
    ) -> Decision {
        let address = addr.map(mapped);
        let side = side(address.is_some_and(is_private));
        let name = host.map(normal);
        let name = name.as_deref();
        self.decide_on(Asked { class, name, address, by_address: true, side, protocol: proto, port })
    }

    /// Decides about a name that a client itself claims at an address (a server name): by the rules for the name alone.
    #[must_use]
    pub fn decide_claim(&self, class: Class, host: &str, at: IpAddr, port: u16, proto: Protocol) -> Decision {
        let address = mapped(at);
        let (name, side) = (normal(host), side(is_private(address)));
        let (name, address) = (Some(&*name), Some(address));
        self.decide_on(Asked { class, name, address, by_address: false, side, protocol: proto, port })
    }

    /// Where a name is refused for the kind of its address alone, the rule that would grant it another kind.
    #[must_use]
    pub fn refused_for_address(
        &self,
        class: Class,
        host: &str,
        addr: IpAddr,
        port: u16,
        proto: Protocol,
    ) -> Option<RuleIndex> {
        let address = mapped(addr);
        let private = is_private(address);
        let name = normal(host);
        let (name, address) = (Some(&*name), Some(address));
        let decide = |private| {
            let side = side(private);
            self.decide_on(Asked { class, name, address, by_address: true, side, protocol: proto, port })
        };
        let otherwise = decide(!private);
        (decide(private).action.refuses() && !otherwise.action.refuses()).then_some(otherwise.rule).flatten()
    }

    fn decide_on(&self, asked: Asked<'_>) -> Decision {
        let (protocol, port) = (asked.protocol, asked.port);
        let mut marked = self.any.marks.is_some();
        let mut best = self.any.all.lookup(protocol, port);
        for own in asked.name.into_iter().flat_map(|name| self.of_name(name)) {
            marked |= own.marks.is_some();
            best = best.max(own.side(asked.side).lookup(protocol, port));
        }
        for own in asked.address.into_iter().flat_map(|address| self.of_address(address)) {
            marked |= own.marks.is_some();
            if asked.by_address {
                best = best.max(own.all.lookup(protocol, port));
            }
        }
        let mut word = Word { action: self.default, rank: None };
        if marked {
            let (special, sure) = self.special(&asked);
            // Where only rules with conditions speak, and it is not known whether they hold, the default counts too.
            let weak = best.is_none() && !sure;
            best = best.max(special);
            word = match best {
                Some(hit) if weak => Word::from(hit).severer(word),
                Some(hit) => hit.into(),
                None => word,
            };
        } else if let Some(hit) = best {
            word = hit.into();
        }
        self.decision(word)
    }

    fn decision(&self, word: Word) -> Decision {
        Decision { action: word.action, rule: word.rank.map(|rank| self.ranks.rule(rank)) }
    }

    /// What rules with conditions and exceptions say, and whether one does for certain.
    fn special(&self, asked: &Asked<'_>) -> (Option<Hit>, bool) {
        let by_name: Vec<&Marks> = asked.name.into_iter().flat_map(|n| self.of_name(n)).filter_map(marks).collect();
        let by_address: Vec<&Marks> =
            asked.address.into_iter().flat_map(|a| self.of_address(a)).filter_map(marks).collect();
        let any = self.any.marks.as_deref();
        let around = || any.into_iter().chain(by_name.iter().copied()).chain(by_address.iter().copied());
        let silent = |rank: u32| {
            let mut all = around().flat_map(|marks| &marks.silent);
            all.any(|s| s.rank == rank && s.reach.has(asked.protocol, asked.port))
        };
        let speaking = any.into_iter().chain(by_name.iter().copied());
        let speaking = speaking.chain(by_address.iter().copied().filter(|_| asked.by_address));
        let (mut best, mut sure) = (None, false);
        for special in speaking.flat_map(|marks| &marks.special) {
            let speaks = special.entry.reach.has(asked.protocol, asked.port) && special.on(asked.side);
            if speaks && self.may_hold(asked.class, special) && !silent(special.entry.hit.rank) {
                best = best.max(Some(special.entry.hit));
                sure |= special.condition.is_none() || asked.class != Class::default();
            }
        }
        (best, sure)
    }

    /// Whether the rule's condition holds for a class, or may for one that is not known.
    fn may_hold(&self, class: Class, special: &Special) -> bool {
        class == Class::default() || special.condition.is_none_or(|c| self.classes.holds(class, c))
    }

    /// Decides about a DNS lookup of a process that is not classified: see [`Matcher::decide_query_as`].
    #[must_use]
    pub fn decide_query(&self, name: &str) -> Decision {
        self.decide_query_as(Class::default(), name)
    }

    /// Decides about a DNS lookup of a name, whose connection is not known yet: let through if any protocol and port
    /// of it may be; how a refusal is chosen is said at `query::ask`.
    #[must_use]
    pub fn decide_query_as(&self, class: Class, name: &str) -> Decision {
        let name = normal(name);
        let marked = self.any.marks.is_some() || self.of_name(&name).any(|own| own.marks.is_some());
        let word = match class {
            Class(0) if marked && self.classes.count() > 1 => {
                let words = self.classes.known().map(|class| self.ask(class, &name));
                words.reduce(Word::severer).unwrap_or_else(|| self.ask(class, &name))
            }
            _ => self.ask(class, &name),
        };
        self.decision(word)
    }

    fn ask(&self, class: Class, name: &str) -> Word {
        let mut said = Cow::Borrowed(&self.any.all);
        let mut named: Option<Hit> = None;
        let mut around: Vec<&Marks> = marks(&self.any).into_iter().collect();
        for own in self.of_name(name) {
            named = named.max(own.all.hits().max());
            said =
                if *said == PortTable::default() { Cow::Borrowed(&own.all) } else { Cow::Owned(said.merge(&own.all)) };
            around.extend(marks(own));
        }
        for special in around.iter().flat_map(|marks| &marks.special).filter(|s| self.may_hold(class, s)) {
            let rank = special.entry.hit.rank;
            let silent = around.iter().flat_map(|m| &m.silent).filter(|s| s.rank == rank).map(|s| &s.reach);
            let table = PortTable::new(&[special.entry]).without(silent);
            if special.named {
                named = named.max(table.hits().max());
            }
            said = Cow::Owned(said.merge(&table));
        }
        ask(&said, named, self.default)
    }

    /// How severe a decision is among others: the action, then the place of its rule in the order that decides between
    /// equals. Of several names on one address the one that is decided about most mildly counts.
    #[must_use]
    pub fn severity_of(&self, decision: Decision) -> (Action, u32) {
        (decision.action, decision.rule.map_or(u32::MAX, |rule| self.ranks.rank(rule)))
    }

    /// Whether a name may be asked for by some process, or it depends on the process what becomes of it: then a name that
    /// is known without asking (of `/etc/hosts`) is bound.
    #[must_use]
    pub fn may_be_asked(&self, name: &str) -> bool {
        let name = normal(name);
        let mut words: Vec<Action> = self.classes.known().map(|class| self.ask(class, &name).action).collect();
        words.dedup();
        words.len() > 1 || !self.decide_query(&name).action.refuses()
    }

    /// What the rules' conditions tell apart.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Whether a refused name is one with a search domain behind it, as resolvers ask them (resolv.conf `search`), that
    /// is allowed by itself or with any of these domains behind it: then that name, a part of `name`. Such a lookup may
    /// be asked, or nobody would come to ask for the right one, but its answer is not believed.
    #[must_use]
    pub fn is_search_expansion<'a>(&self, class: Class, name: &'a str, search: &[impl AsRef<str>]) -> Option<&'a str> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !self.decide_query_as(class, name).action.refuses() {
            return None;
        }
        let allowed = |name: &str| !self.decide_query_as(class, name).action.refuses();
        let domains = || search.iter().map(|domain| domain.as_ref().trim_matches('.')).filter(|d| !d.is_empty());
        search.iter().find_map(|domain| {
            let domain = domain.as_ref().trim_matches('.');
            let at = name.len().checked_sub(domain.len())?;
            let (rest, tail) = name.split_at_checked(at)?;
            let original = rest.strip_suffix('.').filter(|o| !o.is_empty() && !domain.is_empty())?;
            let meant = || allowed(original) || domains().any(|other| allowed(&format!("{original}.{other}")));
            (tail.eq_ignore_ascii_case(domain) && meant()).then_some(original)
        })
    }

    /// The name of a rule of a [`Decision`]; empty where there is no such rule.
    #[must_use]
    pub fn rule_name(&self, rule: RuleIndex) -> &str {
        self.rules.get(rule.0 as usize).map_or("", String::as_str)
    }

    /// Whether any rule speaks about names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.names.is_empty() || !self.below.is_empty()
    }

    /// What happens where no rule matches.
    #[must_use]
    pub fn default_action(&self) -> Action {
        self.default
    }

    fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Own> {
        self.names.get(name).into_iter().chain(parents(name).filter_map(|parent| self.below.get(parent)))
    }

    fn of_address(&self, address: u128) -> impl Iterator<Item = &Own> {
        let lengths = &self.lengths[usize::from(V4.contains(address))];
        lengths.iter().filter_map(move |&bits| self.nets.get(&Net { address: prefix(address, bits), bits }))
    }
}

fn marks(own: &Own) -> Option<&Marks> {
    own.marks.as_deref()
}

fn side(private: bool) -> Side {
    if private { Side::Private } else { Side::Public }
}
