//! The session engine: observations in, verdicts out.
//!
//! The kernel decided; the engine explains, and decides again with the same policy. Where the two disagree, that is a
//! gap (`decision-mismatch`), because then one of them is wrong and a pass would be a guess.

mod claims;
mod further;
mod lookups;
mod refusals;
mod sampled;
mod unconnected;
mod unix;
mod words;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use trustrun_model::{
    Action, ClaimSource, Decided, Direction, Evidence, Fact, Flow, FlowId, Instants, Observation, Process, ProcessId,
    Protocol, Reason, SensorKind, Untrusted,
};
use trustrun_policy::{Class, Matcher, RuleIndex};
use trustrun_wire::Gather;

use crate::{
    ledger::{Breach, Key, Ledger, Share},
    names::Names,
    processes::Processes,
    suggest,
    tunnel::Tunnels,
};

pub use unix::Doors;

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
    /// Unix sockets that were told as limits before the start.
    pub doors: Doors,
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
    /// Where `claim` stood.
    said: Option<ClaimSource>,
    /// It began with a proxy request that could not be read.
    unread: bool,
    action: Action,
    rule: Rc<str>,
    process: Option<Rc<Process>>,
    /// The rule's place in the policy (for accepted connections, in its `listen`); none for reasons of our own.
    index: Option<RuleIndex>,
    /// The class of who connected, by the conditions of the policy's rules.
    class: Class,
    gather: Option<Gather>,
}

/// One session's state.
#[derive(Debug)]
pub struct Engine {
    judge: Judge,
    pub(crate) processes: Processes,
    names: Names,
    tunnels: Tunnels,
    flows: HashMap<(FlowId, SocketAddr), Open>,
    listeners: HashMap<(Protocol, u16), Rc<Process>>,
    quic: HashMap<(FlowId, SocketAddr), trustrun_wire::quic::Initials>,
    pub(crate) ledger: Ledger,
    pub(crate) refusals: refusals::Refusals,
    /// Connections that were refused for want of room in the kernel, which counts them as well.
    pub(crate) full: u64,
    /// The first program that root ran.
    pub(crate) as_root: Option<String>,
    /// The name that belongs to the last observation, for its stored row.
    pub(crate) last_host: Option<Rc<str>>,
    pub(crate) last_rule: Option<Rc<str>>,
    internal: words::Words,
}

impl Engine {
    /// A session that has seen nothing yet.
    #[must_use]
    pub fn new(judge: Judge) -> Self {
        let mut names = Names::default();
        for (address, name) in &judge.hosts {
            // As the guard does: what may not be asked is not bound.
            let refused = judge.policy.as_ref().is_some_and(|m| !m.may_be_asked(name));
            if !(refused && judge.enforce) {
                names.bind(*address, &name.as_str().into(), u64::MAX);
            }
        }
        Self {
            judge,
            processes: Processes::default(),
            names,
            tunnels: Tunnels::default(),
            flows: HashMap::new(),
            listeners: HashMap::new(),
            quic: HashMap::new(),
            ledger: Ledger::default(),
            refusals: refusals::Refusals::default(),
            full: 0,
            as_root: None,
            last_host: None,
            last_rule: None,
            internal: words::Words::new(),
        }
    }

    /// Takes one observation, in the order in which they were made.
    pub fn observe(&mut self, o: &Observation) -> Option<Reaction> {
        self.last_host = None;
        self.last_rule = None;
        match &o.fact {
            Fact::Fork { child } => self.processes.fork(o.process.tgid, *child),
            Fact::Exec { exe, argv, .. } => {
                self.processes.exec(o.process.tgid, exe, argv);
                if o.process.uid == 0 && self.as_root.is_none() {
                    self.as_root = Some(exe.clone());
                }
                if self.judge.enforce {
                    let exe = self.processes.find(o.process).map_or_else(|| exe.clone(), |p| p.exe.clone());
                    self.refusals.exec(o.process.tgid, o.process.uid, &exe, argv);
                }
            }
            Fact::Exit { status } => {
                let processes = &mut self.processes;
                self.refusals.exit(o.process.tgid, *status, || processes.name(o.process.tgid));
            }
            Fact::Unix { incoming, refused: true, name, .. } => self.unix_refused(o.process, *incoming, name),
            Fact::Unix { incoming, name, file, own, .. } => self.unix(o.process, *incoming, name, (*file, *own)),
            Fact::Moved { cgroup, killed } => return self.moved(o.process, cgroup, *killed),
            Fact::Opened { flow, decided } => return self.opened(o, flow, decided),
            Fact::Established { flow } => self.established(flow),
            Fact::Closed { flow, sent, received } => self.closed(flow.id, flow.peer, *sent, *received, o.at),
            Fact::Judged { flow, decided } => return self.judged(o, flow, decided),
            Fact::Payload { flow, offset, bytes, .. } => return self.payload(o.at, flow, *offset, bytes),
            Fact::Query { flow, refused, resolver, message } => {
                return self.query(o.at, o.process, flow, *refused, *resolver, message);
            }
            Fact::Answer { flow, believed, bound, message } => {
                // Where the kernel bound nothing, for want of room or by its own reading, no name grants anything.
                self.answer(o.at, Class(o.process.class), flow, *believed && *bound != Some(0), message);
            }
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
        let class = Class(o.process.class);
        let (host, evidence) = self.name(flow, class, o.at);
        if let Some(name) = &host {
            self.tunnels.connected(name);
        }
        let (decided, rule, index) = match o.sensor {
            SensorKind::Ebpf => {
                let (rule, index) = self.explain(flow, class, decided, o.at);
                (*decided, rule, index)
            }
            _ => self.judge_alone(flow, evidence, o.at),
        };
        let decided = &decided;
        let mut open = Open {
            flow: *flow,
            at: o.at,
            host,
            evidence,
            claim: None,
            beyond: None,
            said: None,
            unread: false,
            action: decided.action,
            rule,
            process,
            index,
            class,
            gather: Some(Gather::new()),
        };
        let decided = &self.judge_further(&mut open, *decided, o.at);
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
    fn name(&self, flow: &Flow, class: Class, at: Instants) -> (Option<Rc<str>>, Evidence) {
        if flow.direction == Direction::In {
            return (None, Evidence::None);
        }
        let names = self.names.of(flow.peer.ip(), at.boot_ns);
        let best = match &self.judge.policy {
            Some(m) => {
                let (ip, port) = (flow.peer.ip(), flow.peer.port());
                names.min_by_key(|n| m.decide_as(class, Some(n), Some(ip), port, flow.protocol).action)
            }
            None => { names }.next(),
        };
        best.map_or((None, Evidence::None), |n| (Some(Rc::clone(n)), Evidence::Dns))
    }

    /// The rule behind the kernel's decision, found by deciding again.
    fn explain(&mut self, flow: &Flow, class: Class, decided: &Decided, at: Instants) -> (Rc<str>, Option<RuleIndex>) {
        match decided.reason {
            // Said by `judge_further`.
            _ if flow.direction == Direction::In => (self.word(decided.reason), None),
            Reason::Default | Reason::Rule => self.decide_again(flow, class, decided, at),
            other => (self.word(other), None),
        }
    }

    fn decide_again(
        &mut self,
        flow: &Flow,
        class: Class,
        decided: &Decided,
        at: Instants,
    ) -> (Rc<str>, Option<RuleIndex>) {
        let Some(m) = &self.judge.policy else { return (Rc::clone(&self.internal.none), None) };
        let (ip, port, protocol) = (flow.peer.ip(), flow.peer.port(), flow.protocol);
        let names = self.names.of(ip, at.boot_ns).map(|n| m.decide_as(class, Some(n), Some(ip), port, protocol));
        let best = names.min_by_key(|d| m.severity_of(*d));
        let d = best.unwrap_or_else(|| m.decide_as(class, None, Some(ip), port, protocol));
        let rule = d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into());
        if d.action != decided.action {
            self.ledger.gap("decision-mismatch", 1, || {
                format!("the kernel said {} about {}, the policy says {}", decided.action, flow.peer, d.action)
            });
        }
        (rule, d.rule)
    }

    /// Records a violation and says what to do about it.
    fn violated(&mut self, at: Instants, open: &Open, decided: &Decided) -> Option<Reaction> {
        // Refused for want of room, which the policy did not ask for, is a gap that the kernel counted.
        if !decided.action.violates() || self.judge.policy.is_none() {
            return None;
        }
        if decided.reason == Reason::Full {
            self.full += 1;
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
            direction: open.flow.direction,
            about: self.about(open),
            suggestion: self
                .suggest_address(open, decided)
                .or_else(|| self.suggest_further(open, at))
                .unwrap_or_else(|| suggest::connection(&target, port, open.flow.protocol, decided, &open.rule)),
        });
        (decided.action == Action::Kill && decided.enforced).then_some(Reaction::Kill)
    }

    /// What to do where a name would have been let through with another kind of address.
    fn suggest_address(&self, open: &Open, decided: &Decided) -> Option<String> {
        let policy = self.judge.policy.as_ref()?;
        let host = open.host.as_ref().filter(|_| matches!(decided.reason, Reason::Default | Reason::Rule))?;
        let peer = open.flow.peer;
        let rule = policy.refused_for_address(open.class, host, peer.ip(), peer.port(), open.flow.protocol)?;
        Some(suggest::address(host, peer.ip(), policy.rule_name(rule)))
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
        for suspicion in self.tunnels.suspicions() {
            self.ledger.gap("dns-tunnel", suspicion.names, || suspicion.detail);
        }
        let lost = self.names.lost;
        if lost > 0 {
            self.ledger.gap("names-forgotten", lost, || "more names were answered than are remembered".into());
        }
    }

    fn fold(&mut self, mut open: Open, sent: u64, received: u64, at: Instants) {
        self.judge_claim(at, &mut open, sent);
        if open.flow.direction == Direction::In && open.flow.protocol != Protocol::Tcp && sent > 0 {
            self.unjudged(&open.flow);
        }
        let out = open.flow.direction == Direction::Out;
        let baa = if out { self.about(&open).and_then(|about| about.baa(at.wall_ns)) } else { None };
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
            baa,
        };
        self.ledger.connection(key, share);
    }
}
