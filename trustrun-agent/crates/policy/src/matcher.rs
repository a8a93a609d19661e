//! Deciding in user space: what the kernel decides from its tables, decided again from the rules.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use trustrun_model::{Action, Protocol};

use crate::{
    Policy, RuleIndex,
    pattern::{Net, V4, mapped, normal, prefix},
    ports::{Hit, PortTable},
    private::is_private,
    query::ask,
    targets::{Named, Targets, parents},
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
/// that the policy uses, however many rules there are.
#[derive(Debug)]
pub struct Matcher {
    default: Action,
    any: PortTable,
    names: HashMap<Box<str>, Named>,
    below: HashMap<Box<str>, Named>,
    nets: HashMap<Net, PortTable>,
    /// Prefix lengths of the IPv6 networks, and of the IPv4 ones (mapped, so 96 and more).
    lengths: [Vec<u8>; 2],
    rules: Vec<String>,
}

impl Matcher {
    pub(crate) fn new(policy: &Policy) -> Self {
        let targets = Targets::new(policy);
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
            rules: policy.rules.iter().map(|r| r.name.clone()).collect(),
        }
    }

    /// Decides about a destination: the most severe of all matching rules, of equals the first; the default where
    /// none matches. A name may have upper case and a trailing dot; a v4-mapped address is IPv4. The port is ignored
    /// for a protocol without ports. A rule of a public name does not grant it a private address unless it says so;
    /// without an address the name is taken to have a public one.
    #[must_use]
    pub fn decide(&self, host: Option<&str>, addr: Option<IpAddr>, port: u16, proto: Protocol) -> Decision {
        let addr = addr.map(mapped);
        self.decide_on(addr.is_some_and(is_private), host, addr, port, proto)
    }

    /// Where a name is refused for the kind of its address alone, the rule that would grant it another kind.
    #[must_use]
    pub fn refused_for_address(&self, host: &str, addr: IpAddr, port: u16, proto: Protocol) -> Option<RuleIndex> {
        let addr = mapped(addr);
        let private = is_private(addr);
        let decide = |private| self.decide_on(private, Some(host), Some(addr), port, proto);
        let otherwise = decide(!private);
        (decide(private).action.refuses() && !otherwise.action.refuses()).then_some(otherwise.rule).flatten()
    }

    fn decide_on(&self, private: bool, host: Option<&str>, addr: Option<u128>, port: u16, proto: Protocol) -> Decision {
        let by_name = host.map(normal);
        let by_name = by_name.iter().flat_map(|name| self.of_name(name)).map(|named| named.side(private));
        let by_address = addr.into_iter().flat_map(|addr| self.of_address(addr));
        let tables = std::iter::once(&self.any).chain(by_name).chain(by_address);
        match tables.filter_map(|table| table.lookup(proto, port)).max() {
            Some(hit) => Decision { action: hit.action, rule: Some(hit.rule) },
            None => Decision { action: self.default, rule: None },
        }
    }

    /// Decides about a DNS lookup of a name, whose connection is not known yet: let through if any protocol and port
    /// of it may be; how a refusal is chosen is said at `query::ask`.
    #[must_use]
    pub fn decide_query(&self, name: &str) -> Decision {
        let name = normal(name);
        let mut said = Cow::Borrowed(&self.any);
        let mut named: Option<Hit> = None;
        for table in self.of_name(&name).map(|named| &named.all) {
            named = named.max(table.hits().max());
            said = if *said == PortTable::default() { Cow::Borrowed(table) } else { Cow::Owned(said.merge(table)) };
        }
        ask(&said, named, self.default)
    }

    /// Whether a refused name is one with a search domain behind it, as resolvers ask them (resolv.conf `search`), that
    /// is allowed by itself or with any of these domains behind it: then that name, a part of `name`. Such a lookup may
    /// be asked, or nobody would come to ask for the right one, but its answer is not believed.
    #[must_use]
    pub fn is_search_expansion<'a>(&self, name: &'a str, search: &[impl AsRef<str>]) -> Option<&'a str> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !self.decide_query(name).action.refuses() {
            return None;
        }
        let allowed = |name: &str| !self.decide_query(name).action.refuses();
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

    fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Named> {
        self.names.get(name).into_iter().chain(parents(name).filter_map(|parent| self.below.get(parent)))
    }

    fn of_address(&self, address: u128) -> impl Iterator<Item = &PortTable> {
        let lengths = &self.lengths[usize::from(V4.contains(address))];
        lengths.iter().filter_map(move |&bits| self.nets.get(&Net { address: prefix(address, bits), bits }))
    }
}
