//! What goes into the report: destinations, queries, violations and gaps, each folded and bounded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use trustrun_model::{
    Action, BaaStatus, Destination, Direction, Evidence, Gap, Process, Protocol, QueryRecord, Severity, Violation,
    rfc3339,
};
use trustrun_policy::About;

/// Most rows of each kind.
const MOST: usize = 100_000;
/// Most processes that are named at one destination.
const MOST_PROCESSES: usize = 10_000;
/// Most answers that are named at one query.
const MOST_ANSWERS: usize = 64;

/// What makes a destination one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) host: Option<Rc<str>>,
    pub(crate) evidence: Evidence,
    pub(crate) sni: Option<Rc<str>>,
    pub(crate) peer: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) rule: Rc<str>,
}

#[derive(Debug, Default)]
struct Row {
    local: Option<SocketAddr>,
    connections: u64,
    sent: u64,
    received: u64,
    first: i64,
    last: i64,
    processes: BTreeSet<Rc<Process>>,
    baa: Option<BaaStatus>,
}

/// One connection's share of a row.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) process: Option<Rc<Process>>,
    pub(crate) baa: Option<BaaStatus>,
}

/// Something outside the policy, before it is folded.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) at: i64,
    pub(crate) action: Action,
    pub(crate) host: Option<Rc<str>>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) rule: Rc<str>,
    pub(crate) process: Option<Rc<Process>>,
    pub(crate) suggestion: String,
    pub(crate) direction: Direction,
    /// What is said beside the rule's destinations.
    pub(crate) about: Option<About>,
}

/// Name, record type, resolver, action.
type QueryKey = (Rc<str>, String, SocketAddr, Action);
type BreachKey = (Option<Rc<str>>, Option<IpAddr>, u16, String, Rc<str>, Option<Rc<Process>>);

/// The folded rows of one session.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    destinations: HashMap<Key, Row>,
    /// How often, and the addresses answered.
    queries: BTreeMap<QueryKey, (u64, BTreeSet<IpAddr>)>,
    violations: Vec<Violation>,
    folded: HashMap<BreachKey, usize>,
    gaps: BTreeMap<&'static str, (u64, String)>,
    /// Everything outside the policy, also what found no room.
    pub(crate) breaches: u64,
}

impl Ledger {
    pub(crate) fn connection(&mut self, key: Key, share: Share) {
        if self.destinations.len() >= MOST && !self.destinations.contains_key(&key) {
            self.gap("report-full", 1, || format!("more than {MOST} destinations; the rest are in the database"));
            return;
        }
        let row = self.destinations.entry(key).or_insert_with(|| Row { first: share.first, ..Row::default() });
        row.connections += 1;
        row.sent += share.sent;
        row.received += share.received;
        row.first = row.first.min(share.first);
        row.last = row.last.max(share.last);
        row.local = row.local.or(share.local);
        // Of the last one: an agreement may have ended meanwhile.
        row.baa = share.baa.or(row.baa.take());
        let full = row.processes.len() >= MOST_PROCESSES;
        if let Some(p) = share.process {
            if full && !row.processes.contains(&p) {
                self.gap("report-full", 1, || format!("more than {MOST_PROCESSES} processes at one destination"));
            } else {
                row.processes.insert(p);
            }
        }
    }

    pub(crate) fn query(&mut self, name: Rc<str>, kind: String, resolver: SocketAddr, action: Action) {
        if self.queries.len() >= MOST {
            self.gap("report-full", 1, || format!("more than {MOST} lookups; the rest are in the database"));
            return;
        }
        self.queries.entry((name, kind, resolver, action)).or_default().0 += 1;
    }

    pub(crate) fn answers(&mut self, name: &Rc<str>, kind: &str, resolver: SocketAddr, addresses: &[IpAddr]) {
        let from = (Rc::clone(name), kind.to_owned(), resolver, Action::Allow);
        let to = (Rc::clone(name), kind.to_owned(), resolver, Action::Kill);
        if let Some((_, (_, known))) = self.queries.range_mut(from..=to).next() {
            for a in addresses {
                if known.len() < MOST_ANSWERS {
                    known.insert(*a);
                }
            }
        }
    }

    pub(crate) fn breach(&mut self, b: Breach) {
        self.breaches += 1;
        let key = (b.host.clone(), b.address, b.port, b.protocol.clone(), Rc::clone(&b.rule), b.process.clone());
        if let Some(v) = self.folded.get(&key).and_then(|i| self.violations.get_mut(*i)) {
            v.count += 1;
            return;
        }
        if self.violations.len() >= MOST {
            return self.gap("report-full", 1, || format!("more than {MOST} violations; the rest are in the database"));
        }
        self.folded.insert(key, self.violations.len());
        self.violations.push(Violation {
            at: rfc3339(b.at),
            action: b.action,
            host: b.host.map(|h| h.to_string()),
            address: b.address,
            port: b.port,
            protocol: b.protocol,
            rule: b.rule.to_string(),
            process: b.process.map(|p| (*p).clone()).unwrap_or_default(),
            suggestion: b.suggestion,
            count: 1,
            direction: b.direction,
            severity: b.about.as_ref().and_then(|a| a.severity).unwrap_or_else(|| Severity::of(b.action)),
            reason: b.about.as_ref().and_then(|a| a.reason.as_deref()).map(ToOwned::to_owned),
            remedy: b.about.as_ref().and_then(|a| a.remedy.as_deref()).map(ToOwned::to_owned),
            source: b.about.map(|a| a.source).filter(|source| !source.is_empty()),
        });
    }

    pub(crate) fn gap(&mut self, kind: &'static str, count: u64, detail: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        self.gaps.entry(kind).or_insert_with(|| (0, detail())).0 += count;
    }

    /// The rows, in a stable order.
    pub(crate) fn into_rows(self) -> Rows {
        let mut destinations: Vec<(Key, Row)> = self.destinations.into_iter().collect();
        destinations.sort_by(|(a, x), (b, y)| (x.first, a).cmp(&(y.first, b)));
        Rows {
            destinations: destinations.into_iter().map(|(k, r)| destination(&k, r)).collect(),
            queries: self
                .queries
                .into_iter()
                .map(|((name, kind, resolver, action), (count, answers))| QueryRecord {
                    name: name.to_string(),
                    kind,
                    resolver: resolver.to_string(),
                    action,
                    answers: answers.into_iter().map(|a| a.to_string()).collect(),
                    count,
                })
                .collect(),
            violations: self.violations,
            gaps: self
                .gaps
                .into_iter()
                .map(|(kind, (count, detail))| Gap { kind: kind.into(), count, detail })
                .collect(),
        }
    }
}

/// The rows of a report.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) destinations: Vec<Destination>,
    pub(crate) queries: Vec<QueryRecord>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) gaps: Vec<Gap>,
}

fn destination(key: &Key, row: Row) -> Destination {
    Destination {
        host: key.host.as_ref().map(ToString::to_string),
        evidence: key.evidence,
        sni: key.sni.as_ref().map(ToString::to_string),
        address: key.peer.ip(),
        port: key.peer.port(),
        protocol: key.protocol,
        direction: key.direction,
        local: row.local.map(|l| l.to_string()).unwrap_or_default(),
        action: key.action,
        rule: key.rule.to_string(),
        baa: row.baa,
        connections: row.connections,
        bytes_sent: row.sent,
        bytes_received: row.received,
        first_seen: rfc3339(row.first),
        last_seen: rfc3339(row.last),
        processes: row.processes.into_iter().map(|p| (*p).clone()).collect(),
    }
}
