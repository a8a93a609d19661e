//! What belongs to no connection: packets of raw sockets, and sockets of kinds that are refused when they are made.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
};

use trustrun_model::{Decided, Direction, Flow, FlowId, Observation, Protocol};
use trustrun_policy::Class;

use super::{Engine, Open, Reaction};
use crate::{ledger::Breach, suggest};

/// The family of packet sockets (packet(7)).
const AF_PACKET: u16 = 17;

impl Engine {
    pub(super) fn packet(
        &mut self,
        o: &Observation,
        protocol: Protocol,
        peer: SocketAddr,
        decided: &Decided,
    ) -> Option<Reaction> {
        let id = FlowId { cookie: 0, sequence: 0 };
        let local = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let flow = Flow { id, protocol, direction: Direction::Out, local, peer };
        let process = self.who(o.process, Some(&flow));
        let class = Class(o.process.class);
        let (host, evidence) = self.name(&flow, class, o.at);
        let (rule, index) = self.explain(&flow, class, decided, o.at);
        let open = Open {
            flow,
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
            gather: None,
        };
        let reaction = self.violated(o.at, &open, decided);
        self.fold(open, 0, 0, o.at);
        reaction
    }

    pub(super) fn socket(&mut self, o: &Observation, what: (u16, u16, u16), decided: &Decided) -> Option<Reaction> {
        if what.0 == AF_PACKET {
            let who = self.processes.name(o.process.tgid);
            self.ledger.gap("packet-socket-used", 1, || {
                format!("frames were sent that nobody judges, by a packet socket (AF_PACKET): {who}")
            });
            return None;
        }
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
            direction: Direction::Out,
            about: None,
            suggestion: suggest::socket(kind),
        });
        None
    }
}
