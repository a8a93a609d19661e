//! What the lab's name server knows.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::forgery::{Forger, Forgery};
use crate::defaults::FRESH_RANGE;

/// A chain of aliases is followed this far.
const LONGEST_CHAIN: usize = 8;

/// The data of one resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this one is another name for.
    Cname(String),
    /// Text.
    Txt(String),
    /// An IPv4 address of [`FRESH_RANGE`], made from the name that was asked: see [`fresh_address`].
    Fresh,
}

/// How a name is answered.
#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    /// As it should be.
    #[default]
    Honest,
    /// NXDOMAIN: there is no such name.
    NxDomain,
    /// REFUSED.
    Refused,
    /// SERVFAIL.
    ServFail,
    /// No answer at all.
    Silent,
    /// Honest, after so long.
    Late(Duration),
    /// Honest over TCP; over UDP an empty answer with the TC bit.
    Truncated,
    /// Honest, over UDP also where the answer is longer than the client said it takes (512 octets without EDNS).
    Oversized,
    /// A forged packet first, then the honest answer.
    Forged(Forgery),
    /// Packets of the test's own making first, then the honest answer.
    Raw(Forger),
}

/// All there is about one name.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) records: Vec<Record>,
    pub(super) ttl: u32,
    pub(super) behaviour: Behaviour,
}

impl Default for Entry {
    fn default() -> Self {
        Self { records: Vec::new(), ttl: 60, behaviour: Behaviour::Honest }
    }
}

impl Entry {
    /// A name without records: it exists, and has no answer of any type.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an IPv4 address.
    #[must_use]
    pub fn a(self, address: Ipv4Addr) -> Self {
        self.record(Record::A(address))
    }

    /// Adds an IPv6 address.
    #[must_use]
    pub fn aaaa(self, address: Ipv6Addr) -> Self {
        self.record(Record::Aaaa(address))
    }

    /// Makes it another name for `target`.
    #[must_use]
    pub fn cname(self, target: &str) -> Self {
        self.record(Record::Cname(target.to_owned()))
    }

    /// Adds a record.
    #[must_use]
    pub fn record(mut self, record: Record) -> Self {
        self.records.push(record);
        self
    }

    /// How long its records live, in seconds. 60 unless told.
    #[must_use]
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// How it is answered.
    #[must_use]
    pub fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }
}

/// Names and what they answer. A name may start with `*.`: any name below, at any depth, that has no entry itself.
/// Names without an entry do not exist (NXDOMAIN).
#[derive(Clone, Debug, Default)]
pub struct Zone {
    entries: HashMap<String, Entry>,
}

/// One line of an answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `None`: the name as it was asked, in its own case.
    pub(super) owner: Option<String>,
    pub(super) ttl: u32,
    pub(super) record: Record,
}

/// What is true about a question.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) exists: bool,
    pub(super) lines: Vec<Line>,
    pub(super) behaviour: Behaviour,
}

/// Which records a question wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    A,
    Aaaa,
    Cname,
    Txt,
    Other,
}

impl Zone {
    /// Nothing at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds or replaces a name.
    pub fn set(&mut self, name: &str, entry: Entry) -> &mut Self {
        self.entries.insert(canonical(name), entry);
        self
    }

    /// Takes a name away: from then on it does not exist.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.entries.remove(&canonical(name));
        self
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        if let Some(entry) = self.entries.get(name) {
            return Some(entry);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(entry) = self.entries.get(&format!("*.{parent}")) {
                return Some(entry);
            }
            rest = parent;
        }
        None
    }

    pub(super) fn ask(&self, name: &str, wanted: Wanted) -> Truth {
        let mut current = canonical(name);
        let Some(asked) = self.find(&current) else {
            return Truth { exists: false, lines: Vec::new(), behaviour: Behaviour::Honest };
        };
        let mut truth = Truth { exists: true, lines: Vec::new(), behaviour: asked.behaviour.clone() };
        let mut owner = None;
        for _ in 0..LONGEST_CHAIN {
            let Some(entry) = self.find(&current) else {
                // An alias of a name that does not exist (RFC 2308 section 2.1): the chain, and NXDOMAIN.
                truth.exists = false;
                return truth;
            };
            let mut next = None;
            for record in &entry.records {
                let record = match (record, wanted) {
                    (Record::A(_), Wanted::A) | (Record::Aaaa(_), Wanted::Aaaa) | (Record::Txt(_), Wanted::Txt) => {
                        record.clone()
                    }
                    (Record::Fresh, Wanted::A) => Record::A(fresh_address(&current)),
                    (Record::Cname(target), _) => {
                        if wanted != Wanted::Cname {
                            next = Some(canonical(target));
                        }
                        record.clone()
                    }
                    _ => continue,
                };
                truth.lines.push(Line { owner: owner.clone(), ttl: entry.ttl, record });
            }
            let Some(target) = next else { break };
            owner = Some(target.clone());
            current = target;
        }
        truth
    }

    /// The addresses of a name, for the lab's own proxies.
    pub(crate) fn addresses(&self, name: &str) -> Vec<std::net::IpAddr> {
        let lines = [Wanted::A, Wanted::Aaaa].map(|wanted| self.ask(name, wanted).lines);
        lines
            .into_iter()
            .flatten()
            .filter_map(|line| match line.record {
                Record::A(a) => Some(a.into()),
                Record::Aaaa(a) => Some(a.into()),
                _ => None,
            })
            .collect()
    }
}

/// The address that a name under `fresh.test` has: `n123.fresh.test` is number 123 of [`FRESH_RANGE`], so that
/// numbered names never share an address; other names are hashed.
#[must_use]
pub fn fresh_address(name: &str) -> Ipv4Addr {
    let name = canonical(name);
    let label = name.split('.').next().unwrap_or_default();
    let number = label.strip_prefix('n').and_then(|digits| digits.parse::<u32>().ok());
    let number = number.unwrap_or_else(|| BuildHasherDefault::<DefaultHasher>::default().hash_one(&name) as u32);
    let (base, prefix) = FRESH_RANGE;
    Ipv4Addr::from(u32::from(base) | (number & (u32::MAX >> prefix)))
}

pub(super) fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
