//! One event as the database holds it.

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;
use trustrun_model::{
    Action, Decided, Direction, Fact, Flow, FlowId, Instants, Observation, ProcessId, Protocol, Reason,
};

use crate::EventKind;

/// One event, plain. Payload and DNS messages are not here, only their lengths: what they say (`host`, `detail`)
/// comes from whoever decoded and redacted them.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// From 1, in the order of the session; below 2^40. Two rows of a session never share one: the second is
    /// refused and counted as dropped.
    pub seq: u64,
    /// When.
    pub at: Instants,
    /// What.
    pub kind: EventKind,
    /// Who.
    pub process: ProcessId,
    /// The connection's identity, where there is one.
    pub flow: Option<FlowId>,
    /// The connection's protocol.
    pub protocol: Option<Protocol>,
    /// Who began it.
    pub direction: Option<Direction>,
    /// The target's end; `None` while it is unspecified.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// What was decided.
    pub action: Option<Action>,
    /// What the decision rests on.
    pub reason: Option<Reason>,
    /// Whether the kernel carried a refusal out.
    pub enforced: bool,
    /// The rule, for whoever knows it.
    pub rule: Option<Arc<str>>,
    /// The name asked for or bound, for whoever knows it.
    pub host: Option<Arc<str>>,
    /// Transport payload bytes, of a connection that ended.
    pub sent: Option<u64>,
    /// Transport payload bytes, of a connection that ended.
    pub received: Option<u64>,
    /// A JSON object with what the kind adds ([`EventKind`] says what), redacted.
    pub detail: Option<Box<str>>,
}

impl EventRow {
    /// A row that says when, what and who, and nothing else.
    #[must_use]
    pub fn bare(seq: u64, at: Instants, kind: EventKind, process: ProcessId) -> Self {
        Self {
            seq,
            at,
            kind,
            process,
            flow: None,
            protocol: None,
            direction: None,
            local: None,
            peer: None,
            action: None,
            reason: None,
            enforced: false,
            rule: None,
            host: None,
            sent: None,
            received: None,
            detail: None,
        }
    }

    /// The row of an observation; `seq` counts within the session. `rule` and `host` are for the caller to add.
    ///
    /// The arguments of an exec are stored as they are: redact them before.
    #[must_use]
    pub fn from_observation(seq: u64, observation: &Observation) -> Self {
        let mut row = Self::bare(seq, observation.at, kind(&observation.fact), observation.process);
        match &observation.fact {
            Fact::Opened { flow, decided } | Fact::Judged { flow, decided } => {
                row.set_flow(flow);
                row.set_decided(decided);
            }
            Fact::Established { flow } => row.set_flow(flow),
            Fact::Closed { flow, sent, received } => {
                row.set_flow(flow);
                (row.sent, row.received) = (Some(*sent), Some(*received));
            }
            Fact::Payload { flow, .. } | Fact::Query { flow, .. } | Fact::Answer { flow, .. } => row.set_flow(flow),
            Fact::Packet { protocol, peer, decided } => {
                (row.protocol, row.peer) = (Some(*protocol), specified(*peer));
                row.set_decided(decided);
            }
            Fact::Socket { decided, .. } => row.set_decided(decided),
            Fact::Listening { local, protocol } => (row.local, row.protocol) = (Some(*local), Some(*protocol)),
            Fact::Fork { .. }
            | Fact::Exec { .. }
            | Fact::Exit { .. }
            | Fact::Moved { .. }
            | Fact::Unix { .. }
            | Fact::Lost { .. }
            | Fact::Unreadable { .. } => {}
        }
        row.detail = detail(&observation.fact);
        row
    }

    fn set_flow(&mut self, flow: &Flow) {
        self.flow = Some(flow.id);
        self.protocol = Some(flow.protocol);
        self.direction = Some(flow.direction);
        self.local = specified(flow.local);
        self.peer = specified(flow.peer);
    }

    fn set_decided(&mut self, decided: &Decided) {
        (self.action, self.reason, self.enforced) = (Some(decided.action), Some(decided.reason), decided.enforced);
    }
}

/// An unspecified address and port says nothing and costs 20 bytes.
fn specified(addr: SocketAddr) -> Option<SocketAddr> {
    (!addr.ip().is_unspecified() || addr.port() != 0).then_some(addr)
}

fn kind(fact: &Fact) -> EventKind {
    match fact {
        Fact::Fork { .. } => EventKind::Fork,
        Fact::Exec { .. } => EventKind::Exec,
        Fact::Exit { .. } => EventKind::Exit,
        Fact::Moved { .. } => EventKind::Moved,
        Fact::Unix { .. } => EventKind::Unix,
        Fact::Opened { .. } => EventKind::Opened,
        Fact::Established { .. } => EventKind::Established,
        Fact::Closed { .. } => EventKind::Closed,
        Fact::Judged { .. } => EventKind::Judged,
        Fact::Payload { .. } => EventKind::Payload,
        Fact::Query { .. } => EventKind::Query,
        Fact::Answer { .. } => EventKind::Answer,
        Fact::Packet { .. } => EventKind::Packet,
        Fact::Socket { .. } => EventKind::Socket,
        Fact::Listening { .. } => EventKind::Listening,
        Fact::Lost { .. } => EventKind::Lost,
        Fact::Unreadable { .. } => EventKind::Unreadable,
    }
}

/// What the columns do not hold.
fn detail(fact: &Fact) -> Option<Box<str>> {
    let value = match fact {
        Fact::Fork { child } => json!({"child": child}),
        Fact::Exec { exe, argv, truncated } => json!({"exe": exe, "argv": argv, "truncated": truncated}),
        Fact::Exit { status } => json!({"status": status}),
        Fact::Unix { incoming, refused, name, .. } => {
            json!({"incoming": incoming, "refused": refused, "socket": name})
        }
        Fact::Moved { cgroup, killed } => json!({"cgroup": cgroup, "killed": killed}),
        Fact::Payload { outgoing, offset, length, .. } => {
            json!({"outgoing": outgoing, "offset": offset, "length": length})
        }
        Fact::Query { refused, resolver, message, .. } => {
            let refused = refused.map(|r| match r {
                trustrun_model::LookupRefusal::Policy => "policy",
                trustrun_model::LookupRefusal::Malformed => "malformed",
            });
            json!({"refused": refused, "resolver": resolver, "length": message.len()})
        }
        Fact::Answer { believed, bound, message, .. } => {
            json!({"believed": believed, "bound": bound, "length": message.len()})
        }
        Fact::Socket { family, kind, protocol, .. } => json!({"family": family, "type": kind, "protocol": protocol}),
        Fact::Lost { stage, count } => json!({"stage": stage, "count": count}),
        Fact::Unreadable { why, peer } => json!({"why": why, "peer": peer.map(|p| p.to_string())}),
        Fact::Opened { .. }
        | Fact::Established { .. }
        | Fact::Closed { .. }
        | Fact::Judged { .. }
        | Fact::Packet { .. }
        | Fact::Listening { .. } => return None,
    };
    Some(value.to_string().into_boxed_str())
}
