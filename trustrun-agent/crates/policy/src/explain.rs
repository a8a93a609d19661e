//! Why a policy says what it says about a destination: every rule that speaks about it, which wins, and what enforces it.

use std::{fmt, net::IpAddr, str::FromStr};

use jiff::{civil::Date, tz::TimeZone};
use trustrun_model::{Action, BaaStatus, Protocol};

use crate::{
    About, Expired, Matcher, Origin, Pattern, PatternError, Policy, Rule, Who,
    judge::{Point, Standing, Verdict, has, reaches, standing},
    pattern::{Target, has_ports, mapped, shown},
};

/// The port that is meant where none is written.
const HTTPS: u16 = 443;

/// One destination, as a person asks about it: `[proto/]host|address[:port]` or `[proto/]host@address[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The name, as names are compared.
    pub host: Option<String>,
    /// The address.
    pub address: Option<IpAddr>,
    /// The port; 0 for a protocol that has none.
    pub port: u16,
    /// Whether the port was written.
    pub port_given: bool,
    /// The protocol.
    pub protocol: Protocol,
}

/// Why a text is no destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A part of it is no name, address or port.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// It is many.
    #[error(
        "`{found}` is more than one destination: wanted a host or an address, such as `api.example.org:443`, `udp/10.0.0.53:53` or `db.example.org@10.0.0.7:5432`"
    )]
    Many {
        /// What was written.
        found: String,
    },
    /// `a@b` where one is not what it should be.
    #[error("`{found}`: wanted a name before `@` and an address after it, such as `db.example.org@10.0.0.7:5432`")]
    At {
        /// What was written.
        found: String,
    },
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let many = || DestinationError::Many { found: shown(text) };
        let Some((before, after)) = text.split_once('@') else {
            let pattern: Pattern = text.parse()?;
            let (host, address) = match &pattern.target {
                Target::Name(name) => (Some(name.to_string()), None),
                Target::Net(net) if net.bits == 128 => (None, Some(unmapped(net.address))),
                _ => return Err(many()),
            };
            return Self::new(host, address, &pattern).ok_or_else(many);
        };
        let at = || DestinationError::At { found: shown(text) };
        let (protocol, name) = match before.rsplit_once('/') {
            Some((protocol, name)) => (format!("{protocol}/"), name),
            None => (String::new(), before),
        };
        let name: Pattern = name.parse()?;
        let address: Pattern = format!("{protocol}{after}").parse()?;
        match (&name.target, &address.target) {
            (Target::Name(name), Target::Net(net)) if net.bits == 128 => {
                Self::new(Some(name.to_string()), Some(unmapped(net.address)), &address).ok_or_else(many)
            }
            _ => Err(at()),
        }
    }
}

fn unmapped(address: u128) -> IpAddr {
    IpAddr::V6(address.into()).to_canonical()
}

impl Destination {
    fn new(host: Option<String>, address: Option<IpAddr>, pattern: &Pattern) -> Option<Self> {
        let protocol = pattern.protocol?;
        let port_given = pattern.ports.0 == pattern.ports.1;
        let port = match pattern.ports {
            (lo, hi) if lo == hi => lo,
            (0, u16::MAX) if has_ports(protocol) => HTTPS,
            (0, u16::MAX) => 0,
            _ => return None,
        };
        Some(Self { host, address, port, port_given, protocol })
    }

    fn point(&self) -> Point<'_> {
        let (name, address) = (self.host.as_deref(), self.address.map(mapped));
        Point { name, address, protocol: self.protocol, port: self.port, private: false }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol != Protocol::Tcp {
            write!(f, "{}/", self.protocol)?;
        }
        if let Some(host) = &self.host {
            f.write_str(host)?;
        }
        match self.address {
            Some(IpAddr::V6(v6)) => write!(f, "{}[{v6}]", if self.host.is_some() { "@" } else { "" })?,
            Some(v4) => write!(f, "{}{v4}", if self.host.is_some() { "@" } else { "" })?,
            None => {}
        }
        if has_ports(self.protocol) { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

/// What a policy says about a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What is done.
    pub action: Action,
    /// The rule that says so; none is the default.
    pub winner: Option<Matched>,
    /// Every rule with a pattern that has the destination in it, the winner first, then by severity and name.
    pub matched: Vec<Matched>,
    /// What becomes of a lookup of its name, and the rule; none without a name.
    pub lookup: Option<(Action, Option<String>)>,
    /// What becomes of its address written literally, without a lookup, where no rule names that address.
    pub literal: Option<Action>,
    /// What enforces it.
    pub lock: Lock,
    /// What no longer counts, and would have spoken or may have.
    pub expired: Vec<Expired>,
    /// What a business associate agreement says about it.
    pub baa: Option<BaaStatus>,
}

/// A rule that has the destination in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Its name.
    pub rule: String,
    /// Where it is written.
    pub origin: Origin,
    /// What it says.
    pub action: Action,
    /// By which pattern.
    pub pattern: String,
    /// Its reason, in its author's words.
    pub reason: Option<String>,
    /// What turns the wish off.
    pub remedy: Option<String>,
    /// Whether it counts.
    pub counts: Counts,
}

/// Whether a rule that matches counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counts {
    /// It does.
    Yes,
    /// It may: its condition depends on what is not known of the process.
    Perhaps,
    /// Its condition does not hold for this process.
    OtherProcess,
    /// An exception takes the destination out.
    Excepted {
        /// Why, in its author's words.
        reason: String,
        /// Where it is written.
        origin: Origin,
        /// Its last day.
        expires: Option<Date>,
    },
    /// The rule grants names no such address (`private`, `require_private_ip`).
    WrongAddress,
}

/// Which lock holds what the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing is refused: the policy reports.
    None,
    /// The name cannot be looked up.
    Lookup,
    /// The kernel's connect and sendmsg hooks.
    Connect,
    /// Each packet, by its address.
    Egress,
}

impl Lock {
    /// A short stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lookup => "dns-lookup",
            Self::Connect => "connect",
            Self::Egress => "egress",
        }
    }

    /// What it does, for a person.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::None => "nothing is refused here: the policy lets it through and reports it",
            Self::Lookup => {
                "the kernel refuses the lookup of the name; without an answer there is no address to connect to"
            }
            Self::Connect => {
                "the kernel decides in connect and sendmsg, by names that it saw the resolver give; packets follow that"
            }
            Self::Egress => "the kernel decides about each packet that leaves, by its address",
        }
    }
}

impl Policy {
    /// Explains what it says about a destination of a process, on a day.
    #[must_use]
    pub fn explain(&self, destination: &Destination, who: &Who, today: Date) -> Explanation {
        let policy = self.without_encrypted_dns();
        let point = destination.point();
        let mut verdict = Verdict::default();
        let mut found: Vec<(usize, Matched)> = Vec::new();
        let mut named: Vec<Rule> = Vec::new();
        for (index, rule) in policy.rules.iter().enumerate() {
            if let Some(rule) = about_name(rule, &point, who) {
                named.push(rule);
            }
            let has = |(_, p): &&(Action, Pattern)| reaches(p, point.protocol, point.port) && has(&p.target, &point);
            for (action, pattern) in rule.patterns.iter().filter(has) {
                let standing = standing(rule, *action, pattern, &point, who);
                verdict.add(standing, *action, &rule.name, index);
                found.push((index, matched(rule, *action, pattern, standing)));
            }
        }
        let (action, winner) = verdict.say(policy.default);
        found.sort_by(|(i, a), (j, b)| {
            let key = |i: usize, m: &Matched| {
                (winner != Some(i) || m.action != action, rank(&m.counts), std::cmp::Reverse(m.action))
            };
            key(*i, a).cmp(&key(*j, b)).then_with(|| a.rule.cmp(&b.rule))
        });
        let midnight = today.to_zoned(TimeZone::UTC).map_or(0, |time| time.timestamp().as_nanosecond());
        let midnight = i64::try_from(midnight).unwrap_or(i64::MAX);
        let baa = winner.and_then(|i| About::new(&policy.rules[i]).baa(midnight));
        let lookup = destination.host.as_deref().map(|host| {
            let matcher = Matcher::new(&policy.with_rules(named));
            let decision = matcher.decide_query(host);
            (decision.action, decision.rule.map(|rule| matcher.rule_name(rule).to_owned()))
        });
        let literal = (destination.host.is_some() && destination.address.is_none())
            .then(|| unnamed(&policy, &Point { name: None, address: None, ..point }, who));
        let lock = lock(destination, action, lookup.as_ref().map(|(action, _)| *action), self.enforcing());
        let matched: Vec<Matched> = found.into_iter().map(|(_, matched)| matched).collect();
        let winner = winner.and_then(|_| matched.first().cloned());
        let expired = self.expired.iter().filter(|expired| concerns(expired, &point)).cloned().collect();
        Explanation { action, winner, matched, lookup, literal, lock, expired, baa }
    }
}

/// The rule as far as it speaks about lookups of the name for this process.
fn about_name(rule: &Rule, point: &Point<'_>, who: &Who) -> Option<Rule> {
    let lookup = Point { address: None, ..*point };
    let out = |p: &Pattern| rule.except.iter().any(|e| has(&e.pattern.target, &lookup) && covers(&e.pattern, p));
    let speaks = |(_, p): &&(Action, Pattern)| has(&p.target, &lookup) && !out(p);
    let patterns: Vec<_> = rule.patterns.iter().filter(speaks).cloned().collect();
    if point.name.is_none() || patterns.is_empty() {
        return None;
    }
    let holds = rule.when.as_ref().map_or(Some(true), |when| who.holds(when));
    let when = match holds {
        Some(false) => return None,
        Some(true) => None,
        None => rule.when.clone(),
    };
    Some(Rule { patterns, when, ..rule.clone() })
}

/// Whether one pattern reaches every protocol and port that another does.
fn covers(outer: &Pattern, inner: &Pattern) -> bool {
    let ports = outer.ports.0 <= inner.ports.0 && inner.ports.1 <= outer.ports.1;
    outer.protocol.is_none() || (outer.protocol == inner.protocol && ports)
}

fn matched(rule: &Rule, action: Action, pattern: &Pattern, standing: Standing<'_>) -> Matched {
    let counts = match standing {
        Standing::Speaks => Counts::Yes,
        Standing::Maybe => Counts::Perhaps,
        Standing::OtherProcess => Counts::OtherProcess,
        Standing::WrongAddress => Counts::WrongAddress,
        Standing::Excepted(except) => Counts::Excepted {
            reason: except.reason.to_string(),
            origin: except.origin.clone(),
            expires: except.expires,
        },
    };
    Matched {
        rule: rule.name.clone(),
        origin: rule.origin.clone(),
        action,
        pattern: pattern.to_string(),
        reason: rule.reason.as_deref().map(str::to_owned),
        remedy: rule.remedy.as_deref().map(str::to_owned),
        counts,
    }
}

fn rank(counts: &Counts) -> u8 {
    match counts {
        Counts::Yes => 0,
        Counts::Perhaps => 1,
        Counts::Excepted { .. } => 2,
        Counts::WrongAddress => 3,
        Counts::OtherProcess => 4,
    }
}

/// What is said of an address that no rule names.
fn unnamed(policy: &Policy, point: &Point<'_>, who: &Who) -> Action {
    let mut verdict = Verdict::default();
    for (index, rule) in policy.rules.iter().enumerate() {
        for (action, pattern) in &rule.patterns {
            if pattern.target == Target::Any && reaches(pattern, point.protocol, point.port) {
                verdict.add(standing(rule, *action, pattern, point, who), *action, &rule.name, index);
            }
        }
    }
    verdict.say(policy.default).0
}

fn lock(destination: &Destination, action: Action, lookup: Option<Action>, enforcing: bool) -> Lock {
    if !enforcing || action == Action::Alert {
        return Lock::None;
    }
    if action.refuses() && lookup.is_some_and(Action::refuses) {
        return Lock::Lookup;
    }
    match destination.protocol {
        Protocol::Tcp | Protocol::Udp => Lock::Connect,
        Protocol::Other(_) => Lock::Egress,
    }
}

/// Whether something that has expired would have spoken about the point, or may have.
fn concerns(expired: &Expired, point: &Point<'_>) -> bool {
    match expired {
        // What it was about is not kept.
        Expired::Rule { .. } => true,
        Expired::Agreement { .. } => false,
        Expired::Except { destination, .. } => destination
            .parse::<Pattern>()
            .is_ok_and(|p| has(&p.target, point) && reaches(&p, point.protocol, point.port)),
    }
}
