//! The session engine: observations in, verdicts out.
//!
//! The kernel decided; the engine explains, and decides again with the same policy. Where the two disagree, that is a
//! gap (`decision-mismatch`), because then one of them is wrong and a pass would be a guess.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use trustrun_model::{
    Action, ClaimSource, Decided, Direction, Evidence, Fact, Flow, FlowId, Instants, LookupRefusal, Observation,
    Process, ProcessId, Protocol, Reason, Untrusted,
};
use trustrun_policy::Matcher;
use trustrun_wire::{First, Gather, classify, dns};

use crate::{
    ledger::{Breach, Key, Ledger, Share},
    names::Names,
    processes::Processes,
    suggest,
};

/// Most connections that are open at once before the oldest knowledge is refused (and counted).
const MOST_FLOWS: usize = 1 << 19;

/// What the engine judges by.
#[derive(Debug)]
pub struct Judge {
    /// The policy; `None` to observe without one.
    pub policy: Option<Arc<Matcher>>,
    /// Whether the kernel carries refusals out.
    pub enforce: bool,
    /// The target's resolvers.
    pub resolvers: Vec<IpAddr>,
    /// The target's DNS search list.
    pub search: Vec<String>,
    /// The session's cgroup, its path below the root of the hierarchy.
    pub cgroup: String,
    /// What its `/etc/hosts` answers.
    pub hosts: Vec<(IpAddr, String)>,
    /// Shortest life of a binding.
    pub dns_grace: Duration,
}

/// What is to be done about an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// End the target.
    Kill,
    /// End one process, which left the session's cgroup.
    End {
        /// Its thread group.
        tgid: u32,
    },
    /// Destroy a TCP connection whose bytes are refused.
    Destroy {
        /// Its cookie and sequence.
        flow: FlowId,
        /// Its own end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
    },
    /// Answer a refused lookup, so that it fails at once.
    Answer {
        /// Who asked.
        client: SocketAddr,
        /// Whom.
        server: SocketAddr,
        /// The answer.
        message: Vec<u8>,
    },
}

#[derive(Debug)]
struct Open {
    flow: Flow,
    at: Instants,
    host: Option<Rc<str>>,
    evidence: Evidence,
    claim: Option<Rc<str>>,
    /// The port that a proxy was asked for: then `host` is the proxy's authority.
    beyond: Option<u16>,
    action: Action,
    rule: Rc<str>,
    process: Option<Rc<Process>>,
    gather: Option<Gather>,
}

/// One session's state.
#[derive(Debug)]
pub struct Engine {
    judge: Judge,
    pub(crate) processes: Processes,
    names: Names,
    flows: HashMap<(FlowId, SocketAddr), Open>,
    listeners: HashMap<(Protocol, u16), Rc<Process>>,
    quic: HashMap<(FlowId, SocketAddr), trustrun_wire::quic::Initials>,
    pub(crate) ledger: Ledger,
    /// The name that belongs to the last observation, for its stored row.
    pub(crate) last_host: Option<Rc<str>>,
    pub(crate) last_rule: Option<Rc<str>>,
    internal: Words,
}

/// Rules of our own, shared.
#[derive(Debug)]
struct Words {
    default: Rc<str>,
    none: Rc<str>,
    internal: Rc<str>,
    resolver: Rc<str>,
    accepted: Rc<str>,
    mismatch: Rc<str>,
    unreadable: Rc<str>,
    quic: Rc<str>,
    kind: Rc<str>,
    full: Rc<str>,
    fake: Rc<str>,
}

impl Words {
    fn new() -> Self {
        Self {
            default: "default".into(),
            none: "no policy".into(),
            internal: "internal".into(),
            resolver: "resolver".into(),
            accepted: "accepted".into(),
            mismatch: "name mismatch".into(),
            unreadable: "name unreadable".into(),
            quic: "quic".into(),
            kind: "socket kind".into(),
            full: "table full".into(),
            fake: "source port 53".into(),
        }
    }
}

impl Engine {
    /// A session that has seen nothing yet.
    #[must_use]
    pub fn new(judge: Judge) -> Self {
        let mut names = Names::default();
        for (address, name) in &judge.hosts {
            // As the guard does: what may not be asked is not bound.
            let refused = judge.policy.as_ref().is_some_and(|m| m.decide_query(name).action.refuses());
            if !(refused && judge.enforce) {
                names.bind(*address, &name.as_str().into(), u64::MAX);
            }
        }
        Self {
            judge,
            processes: Processes::default(),
            names,
            flows: HashMap::new(),
            listeners: HashMap::new(),
            quic: HashMap::new(),
            ledger: Ledger::default(),
            last_host: None,
            last_rule: None,
            internal: Words::new(),
        }
    }

    /// Takes one observation, in the order in which they were made.
    pub fn observe(&mut self, o: &Observation) -> Option<Reaction> {
        self.last_host = None;
        self.last_rule = None;
        match &o.fact {
            Fact::Fork { child } => self.processes.fork(o.process.tgid, *child),
            Fact::Exec { exe, argv, .. } => self.processes.exec(o.process.tgid, exe, argv),
            Fact::Exit { .. } => {}
            Fact::Moved { cgroup, killed } => return self.moved(o.process, cgroup, *killed),
            Fact::Opened { flow, decided } => return self.opened(o, flow, decided),
            Fact::Established { flow } => self.established(flow),
            Fact::Closed { flow, sent, received } => self.closed(flow.id, flow.peer, *sent, *received, o.at),
            Fact::Judged { flow, decided } => return self.judged(o, flow, decided),
            Fact::Payload { flow, offset, bytes, .. } => self.payload(flow, *offset, bytes),
            Fact::Query { flow, refused, resolver, message } => {
                return self.query(o.at, o.process, flow, *refused, *resolver, message);
            }
            Fact::Answer { flow, believed, message, .. } => self.answer(o.at, flow, *believed, message),
            Fact::Packet { protocol, peer, decided } => return self.packet(o, *protocol, *peer, decided),
            Fact::Socket { family, kind, protocol, decided } => {
                return self.socket(o, (*family, *kind, *protocol), decided);
            }
            Fact::Listening { local, protocol } => {
                if let Some(p) = self.processes.find(o.process) {
                    self.listeners.insert((*protocol, local.port()), p);
                }
            }
            Fact::Lost { stage, count } => {
                self.ledger.gap("events-dropped", *count, || format!("events lost at the stage {stage}"));
            }
            Fact::Unreadable { why, .. } => self.ledger.gap("unreadable", 1, || (*why).to_owned()),
        }
        None
    }

    /// A process that left the session's cgroup is out of sight from then on.
    fn moved(&mut self, process: ProcessId, cgroup: &str, killed: bool) -> Option<Reaction> {
        // The session's own subtree: the hooks hold there too.
        if cgroup.strip_prefix(&self.judge.cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        let who = self.processes.name(process.tgid);
        let end = if killed { "and was killed for it" } else { "where it cannot be seen" };
        self.ledger.gap("left-cgroup", 1, || format!("{who} was moved to {}, {end}", Untrusted::new(cgroup)));
        (self.judge.enforce && !killed).then_some(Reaction::End { tgid: process.tgid })
    }

    /// Who did it; a connection that nobody can be named for is a gap.
    fn who(&mut self, id: ProcessId, flow: Option<&Flow>) -> Option<Rc<Process>> {
        let found = self.processes.find(id).or_else(|| {
            let f = flow.filter(|f| f.direction == Direction::In)?;
            self.listeners.get(&(f.protocol, f.local.port())).cloned()
        });
        if found.is_none() {
            self.ledger.gap("unattributed", 1, || {
                let peer = flow.map_or_else(String::new, |f| format!(" with {}", f.peer));
                format!("no process is known for a connection{peer} (thread group {})", id.tgid)
            });
        }
        found
    }

    fn opened(&mut self, o: &Observation, flow: &Flow, decided: &Decided) -> Option<Reaction> {
        let process = self.who(o.process, Some(flow));
        let (host, evidence) = self.name(flow, o.at);
        let rule = self.explain(flow, decided, o.at);
        let open = Open {
            flow: *flow,
            at: o.at,
            host,
            evidence,
            claim: None,
            beyond: None,
            action: decided.action,
            rule,
            process,
            gather: Some(Gather::new()),
        };
        self.last_host.clone_from(&open.host);
        self.last_rule = Some(Rc::clone(&open.rule));
        let reaction = self.violated(o.at, &open, decided);
        if decided.enforced {
            self.fold(open, 0, 0, o.at);
        } else if self.flows.len() < MOST_FLOWS {
            self.flows.insert((flow.id, flow.peer), open);
        } else {
            self.ledger.gap("connections-forgotten", 1, || format!("more than {MOST_FLOWS} connections open at once"));
        }
        reaction
    }

    /// The name of a connection as DNS has it: of several, the one that the policy likes best, then the latest.
    fn name(&self, flow: &Flow, at: Instants) -> (Option<Rc<str>>, Evidence) {
        if flow.direction == Direction::In {
            return (None, Evidence::None);
        }
        let names = self.names.of(flow.peer.ip(), at.boot_ns);
        let best = match &self.judge.policy {
            Some(m) => {
                names.min_by_key(|n| m.decide(Some(n), Some(flow.peer.ip()), flow.peer.port(), flow.protocol).action)
            }
            None => { names }.next(),
        };
        best.map_or((None, Evidence::None), |n| (Some(Rc::clone(n)), Evidence::Dns))
    }

    /// The rule behind the kernel's decision, found by deciding again.
    fn explain(&mut self, flow: &Flow, decided: &Decided, at: Instants) -> Rc<str> {
        match decided.reason {
            Reason::Default | Reason::Rule => self.decide_again(flow, decided, at),
            other => self.word(other),
        }
    }

    fn word(&self, reason: Reason) -> Rc<str> {
        Rc::clone(match reason {
            Reason::Default | Reason::Rule => &self.internal.default,
            Reason::Internal => &self.internal.internal,
            Reason::Resolver => &self.internal.resolver,
            Reason::Accepted => &self.internal.accepted,
            Reason::Mismatch => &self.internal.mismatch,
            Reason::Claim | Reason::Unreadable => &self.internal.unreadable,
            Reason::Quic => &self.internal.quic,
            Reason::Kind => &self.internal.kind,
            Reason::Full => &self.internal.full,
            Reason::FakeResolver => &self.internal.fake,
        })
    }

    fn decide_again(&mut self, flow: &Flow, decided: &Decided, at: Instants) -> Rc<str> {
        let Some(m) = &self.judge.policy else { return Rc::clone(&self.internal.none) };
        let (ip, port, protocol) = (flow.peer.ip(), flow.peer.port(), flow.protocol);
        let names = self.names.of(ip, at.boot_ns).map(|n| m.decide(Some(n), Some(ip), port, protocol));
        let best = names.min_by_key(|d| (d.action, d.rule.map_or(u32::MAX, |r| r.0)));
        let d = best.unwrap_or_else(|| m.decide(None, Some(ip), port, protocol));
        let rule = d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into());
        if d.action != decided.action {
            self.ledger.gap("decision-mismatch", 1, || {
                format!("the kernel said {} about {}, the policy says {}", decided.action, flow.peer, d.action)
            });
        }
        rule
    }

    /// Records a violation and says what to do about it.
    fn violated(&mut self, at: Instants, open: &Open, decided: &Decided) -> Option<Reaction> {
        if !decided.action.violates() || self.judge.policy.is_none() {
            return None;
        }
        // What the client said it wanted, where that is what was refused.
        let claimed = open.beyond.is_none() && matches!(decided.reason, Reason::Mismatch | Reason::Claim);
        let (first, second) = if claimed { (&open.claim, &open.host) } else { (&open.host, &open.claim) };
        let host = first.as_ref().or(second.as_ref()).cloned();
        let target = host.as_deref().map_or_else(|| open.flow.peer.ip().to_string(), ToOwned::to_owned);
        let port = open.beyond.unwrap_or_else(|| open.flow.peer.port());
        self.ledger.breach(Breach {
            at: at.wall_ns,
            action: decided.action,
            host,
            address: Some(open.flow.peer.ip()),
            port: open.flow.peer.port(),
            protocol: open.flow.protocol.to_string(),
            rule: Rc::clone(&open.rule),
            process: open.process.clone(),
            suggestion: suggest::connection(&target, port, open.flow.protocol, decided, &open.rule),
        });
        (decided.action == Action::Kill && decided.enforced).then_some(Reaction::Kill)
    }

    fn established(&mut self, flow: &Flow) {
        if let Some(open) = self.flows.get_mut(&(flow.id, flow.peer)) {
            open.flow.local = flow.local;
        }
    }

    pub(crate) fn closed(&mut self, id: FlowId, peer: SocketAddr, sent: u64, received: u64, at: Instants) {
        if let Some(open) = self.flows.remove(&(id, peer)) {
            self.quic.remove(&(id, peer));
            self.fold(open, sent, received, at);
        }
    }

    /// Folds what is still open, when the session ends.
    pub(crate) fn close_all(&mut self, at: Instants) {
        for (_, open) in std::mem::take(&mut self.flows) {
            self.fold(open, 0, 0, at);
        }
        let lost = self.names.lost;
        if lost > 0 {
            self.ledger.gap("names-forgotten", lost, || "more names were answered than are remembered".into());
        }
    }

    fn fold(&mut self, open: Open, sent: u64, received: u64, at: Instants) {
        let key = Key {
            host: open.host,
            evidence: open.evidence,
            sni: open.claim,
            peer: open.flow.peer,
            protocol: open.flow.protocol,
            direction: open.flow.direction,
            action: open.action,
            rule: open.rule,
        };
        let share = Share {
            local: (!open.flow.local.ip().is_unspecified()).then_some(open.flow.local),
            sent,
            received,
            first: open.at.wall_ns,
            last: at.wall_ns,
            process: open.process,
        };
        self.ledger.connection(key, share);
    }

    fn judged(&mut self, o: &Observation, flow: &Flow, decided: &Decided) -> Option<Reaction> {
        let rule = self.word(decided.reason);
        if decided.reason == Reason::Claim {
            self.read_so_far(flow);
        }
        let mut open = self.flows.remove(&(flow.id, flow.peer))?;
        if decided.action > open.action || decided.action.refuses() {
            open.action = decided.action;
            // Of a proxy request the authority is judged, else the name that the client claims.
            let named = if open.beyond.is_some() { &open.host } else { &open.claim };
            open.rule = match (&self.judge.policy, decided.reason, named) {
                (Some(m), Reason::Claim, Some(named)) => {
                    let port = open.beyond.unwrap_or_else(|| flow.peer.port());
                    let address = named.parse().ok();
                    let name = if address.is_some() { None } else { Some(&**named) };
                    let d = m.decide(name, address, port, flow.protocol);
                    d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into())
                }
                _ => rule,
            };
        }
        self.last_host.clone_from(&open.claim);
        self.last_rule = Some(Rc::clone(&open.rule));
        let reaction = self.violated(o.at, &open, decided);
        let (id, local, peer) = (open.flow.id, open.flow.local, open.flow.peer);
        self.flows.insert((flow.id, flow.peer), open);
        reaction.or_else(|| {
            (decided.enforced && decided.action.refuses() && flow.protocol == Protocol::Tcp)
                .then_some(Reaction::Destroy { flow: id, local, peer })
        })
    }

    fn payload(&mut self, flow: &Flow, offset: u32, bytes: &[u8]) {
        let key = (flow.id, flow.peer);
        if flow.protocol == Protocol::Udp {
            let hello = self.quic.entry(key).or_default().push(bytes).complete();
            if let Some(sni) = hello.and_then(|h| h.sni) {
                self.claimed(key, ClaimSource::Sni, &sni, None);
            }
            return;
        }
        let Some(gather) = self.flows.get_mut(&key).and_then(|o| o.gather.as_mut()) else { return };
        gather.insert(u64::from(offset), bytes);
        let first = classify(gather.prefix());
        if matches!(first, First::Incomplete) && !gather.overflowed() {
            return;
        }
        self.first(flow, &first);
    }

    /// The kernel judges a proxy request as soon as the authority is there, and tells no more of it: what was told is
    /// read as if the head ended behind its target.
    fn read_so_far(&mut self, flow: &Flow) {
        let open = self.flows.get(&(flow.id, flow.peer));
        let Some(prefix) = open.and_then(|o| o.gather.as_ref()).map(Gather::prefix) else { return };
        let mut words = prefix.split(|b| *b <= b' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
        let first = classify(&[method, b" ", target, b" HTTP/1.0\r\n\r\n"].concat());
        self.first(flow, &first);
    }

    /// What a connection begins with is known.
    fn first(&mut self, flow: &Flow, first: &First) {
        let key = (flow.id, flow.peer);
        if let Some(open) = self.flows.get_mut(&key) {
            open.gather = None;
        }
        if let First::Http(trustrun_wire::http::Head::Request(r)) = first
            && matches!(r.target, trustrun_wire::http::Target::Absolute { .. })
        {
            self.proxy_gap(flow, "a plain-HTTP proxy connection may carry further requests, to others");
        }
        let Some(claim) = first.claim() else {
            if matches!(first, First::Socks(_)) {
                self.proxy_gap(flow, "a SOCKS request that names nobody");
            }
            return;
        };
        match claim.host {
            Some(host) => self.claimed(key, claim.source, &host, claim.port),
            None if claim.source == ClaimSource::Proxy => self.proxy_gap(flow, "a proxy request that names nobody"),
            None => {}
        }
    }

    fn proxy_gap(&mut self, flow: &Flow, why: &'static str) {
        self.ledger.gap("proxy-hides-destination", 1, || format!("{why} ({})", flow.peer));
    }

    /// The client said whom it talks to.
    fn claimed(&mut self, key: (FlowId, SocketAddr), source: ClaimSource, host: &str, port: Option<u16>) {
        let bound = self.names.knows(key.1.ip(), host).cloned();
        let Some(open) = self.flows.get_mut(&key) else { return };
        match (source, bound) {
            (ClaimSource::Proxy, _) => {
                // The authority is the destination: the proxy resolves it, nobody here can prove it.
                let name = port.map_or_else(|| host.to_owned(), |p| format!("{host}:{p}"));
                open.host = Some(host.into());
                open.evidence = Evidence::Claim;
                open.claim = Some(name.into());
                open.beyond = Some(port.unwrap_or(80));
            }
            (ClaimSource::Sni, Some(name)) => {
                open.host = Some(name);
                open.evidence = Evidence::DnsSni;
                open.claim = Some(host.into());
            }
            _ => {
                open.claim = Some(host.into());
                if open.host.is_none() {
                    open.host = Some(host.into());
                    open.evidence = Evidence::Claim;
                }
            }
        }
    }

    fn query(
        &mut self,
        at: Instants,
        who: ProcessId,
        flow: &Flow,
        refused: Option<LookupRefusal>,
        resolver: bool,
        bytes: &[u8],
    ) -> Option<Reaction> {
        let Ok(message) = dns::Message::decode_start(bytes) else {
            self.ledger.gap("lookup-unreadable", u64::from(refused.is_none()), || {
                format!("a lookup at {} could not be read", flow.peer)
            });
            return None;
        };
        let name: Rc<str> = message.question.name.as_str().into();
        let kind = dns::type_word(message.question.qtype).into_owned();
        let (action, rule) = self.lookup_action(&name);
        self.ledger.query(Rc::clone(&name), kind.clone(), flow.peer, action);
        self.last_host = Some(Rc::clone(&name));
        self.last_rule = Some(Rc::clone(&rule));
        if !action.refuses() || !resolver || self.judge.policy.is_none() {
            return None;
        }
        let process = self.who(who, Some(flow));
        self.ledger.breach(Breach {
            at: at.wall_ns,
            action,
            host: Some(Rc::clone(&name)),
            address: None,
            port: flow.peer.port(),
            protocol: "dns".into(),
            rule: Rc::clone(&rule),
            process,
            suggestion: suggest::lookup(&name, &rule),
        });
        if action == Action::Kill && refused.is_some() {
            return Some(Reaction::Kill);
        }
        refused?;
        let message = dns::negative_answer(bytes, dns::NXDOMAIN)?;
        Some(Reaction::Answer { client: flow.local, server: flow.peer, message })
    }

    /// A lookup over TCP that the agent's own resolver answered; `client` is the target's end of its connection.
    pub(crate) fn looked_up(&mut self, at: Instants, client: SocketAddr, query: &[u8], answer: Option<&[u8]>) {
        let local = |o: &&Open| o.flow.protocol == Protocol::Tcp && o.flow.local == client;
        let Some((flow, process)) = self.flows.values().find(local).map(|o| (o.flow, o.process.clone())) else {
            let detail = || format!("a lookup over TCP from {client}, whose connection is not known");
            return self.ledger.gap("unattributed", 1, detail);
        };
        let tgid = process.map_or(0, |p| p.pid);
        let who = ProcessId { tgid, tid: tgid, uid: 0 };
        // The answer that the client gets is the resolver's business, so nothing is left to be done here.
        let _ = self.query(at, who, &flow, None, true, query);
        if let Some(answer) = answer {
            self.answer(at, &flow, true, answer);
        }
    }

    fn lookup_action(&self, name: &str) -> (Action, Rc<str>) {
        let Some(m) = &self.judge.policy else { return (Action::Allow, Rc::clone(&self.internal.none)) };
        let d = m.decide_query(name);
        let rule = d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into());
        if d.action.refuses() && m.is_search_expansion(name, &self.judge.search).is_some() {
            return (Action::Allow, "search list".into());
        }
        (d.action, rule)
    }

    fn answer(&mut self, at: Instants, flow: &Flow, believed: bool, bytes: &[u8]) {
        let Ok(message) = dns::Message::decode_start(bytes) else { return };
        let name: Rc<str> = message.question.name.as_str().into();
        self.last_host = Some(Rc::clone(&name));
        let addresses = message.addresses();
        let kind = dns::type_word(message.question.qtype);
        let plain: Vec<_> = addresses.iter().map(|(ip, _)| *ip).collect();
        self.ledger.answers(&name, &kind, flow.peer, &plain);
        // Exactly what the kernel binds: answers to believed queries for names that may be connected to.
        let refused = self.judge.policy.as_ref().is_some_and(|m| m.decide_query(&name).action.refuses());
        if !believed
            || (refused && self.judge.enforce)
            || message.flags.rcode != dns::NOERROR
            || message.flags.truncated
            || message.question.qclass != dns::CLASS_IN
        {
            return;
        }
        for (ip, ttl) in addresses {
            let life = Duration::from_secs(ttl.into()).max(self.judge.dns_grace);
            let expires = at.boot_ns.saturating_add(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX));
            self.names.bind(ip, &name, expires);
        }
    }

    fn packet(&mut self, o: &Observation, protocol: Protocol, peer: SocketAddr, decided: &Decided) -> Option<Reaction> {
        let id = FlowId { cookie: 0, sequence: 0 };
        let local = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let flow = Flow { id, protocol, direction: Direction::Out, local, peer };
        let process = self.who(o.process, Some(&flow));
        let (host, evidence) = self.name(&flow, o.at);
        let rule = self.explain(&flow, decided, o.at);
        let open =
            Open { flow, at: o.at, host, evidence, claim: None, beyond: None, action: decided.action, rule, process, gather: None };
        let reaction = self.violated(o.at, &open, decided);
        self.fold(open, 0, 0, o.at);
        reaction
    }

    fn socket(&mut self, o: &Observation, what: (u16, u16, u16), decided: &Decided) -> Option<Reaction> {
        let process = self.who(o.process, None);
        if !decided.action.violates() || self.judge.policy.is_none() || !decided.enforced {
            // Created under observation: its packets are judged one by one at egress.
            return None;
        }
        let (family, kind, protocol) = what;
        self.ledger.breach(Breach {
            at: o.at.wall_ns,
            action: decided.action,
            host: None,
            address: None,
            port: 0,
            protocol: format!("socket({family}, {kind}, {protocol})"),
            rule: Rc::clone(&self.internal.kind),
            process,
            suggestion: suggest::socket(kind),
        });
        None
    }
}
