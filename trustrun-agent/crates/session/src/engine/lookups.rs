//! DNS: what was asked, what became of it, and which names the answers bind.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use trustrun_model::{
    Action, Direction, Fact, Flow, Instants, LookupRefusal, Observation, ProcessId, Protocol, Reason, SensorKind,
};
use trustrun_policy::{Class, RuleIndex};
use trustrun_wire::dns;

use super::{Engine, Open, Reaction};
use crate::{host, ledger::Breach, suggest};

impl Engine {
    pub(super) fn query(
        &mut self,
        at: Instants,
        who: ProcessId,
        flow: &Flow,
        refused: Option<LookupRefusal>,
        resolver: bool,
        bytes: &[u8],
    ) -> Option<Reaction> {
        let message = match (dns::Message::decode_start(bytes), refused) {
            (Ok(message), None | Some(LookupRefusal::Policy)) => message,
            (Err(_), None) => {
                self.ledger.gap("lookup-unreadable", 1, || format!("a lookup at {} could not be read", flow.peer));
                return None;
            }
            // What the kernel took for no question went nowhere, whatever name can be read in it.
            (message, Some(_)) => {
                let name = message.ok().map(|m| m.question.name.as_str().into());
                self.unreadable_lookup(at, who, flow, name);
                return None;
            }
        };
        let name: Rc<str> = message.question.name.as_str().into();
        let kind = dns::type_word(message.question.qtype).into_owned();
        let (action, rule, index) = self.lookup_action(Class(who.class), &name);
        self.ledger.query(Rc::clone(&name), kind.clone(), flow.peer, action);
        self.last_host = Some(Rc::clone(&name));
        self.last_rule = Some(Rc::clone(&rule));
        if refused.is_none() {
            self.tunnels.asked(&name);
        }
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
            direction: Direction::Out,
            about: self.about_rule(index),
            suggestion: self.suggest_lookup(&name, &rule),
        });
        if action == Action::Kill && refused.is_some() {
            return Some(Reaction::Kill);
        }
        refused?;
        let message = dns::negative_answer(bytes, dns::NXDOMAIN)?;
        Some(Reaction::Answer { client: flow.local, server: flow.peer, message })
    }

    /// What to do about a refused name. Many programs ask for the machine's own (git for an address to sign with), and
    /// nobody thinks of it as a destination.
    fn suggest_lookup(&self, name: &str, rule: &str) -> String {
        let own = rule == "default" && host::is_own(name, &host::about_host().0, &self.judge.search);
        if own { suggest::own_name(name) } else { suggest::lookup(name, rule) }
    }

    /// A lookup that was refused because it could not be read.
    fn unreadable_lookup(&mut self, at: Instants, who: ProcessId, flow: &Flow, host: Option<Rc<str>>) {
        let process = self.who(who, Some(flow));
        self.last_rule = Some(self.word(Reason::Unreadable));
        self.ledger.breach(Breach {
            at: at.wall_ns,
            action: Action::Block,
            host,
            address: None,
            port: flow.peer.port(),
            protocol: "dns".into(),
            rule: self.word(Reason::Unreadable),
            process,
            direction: Direction::Out,
            about: None,
            suggestion: suggest::unreadable_lookup(),
        });
    }

    /// A lookup over TCP that the agent's own resolver answered; `client` is the target's end of its connection. Gives
    /// what a sensor would have seen, for the record: the question, and the answer where one came.
    pub(crate) fn looked_up(
        &mut self,
        at: Instants,
        client: SocketAddr,
        query: &[u8],
        answer: Option<&[u8]>,
    ) -> Vec<Observation> {
        (self.last_host, self.last_rule) = (None, None);
        let local = |o: &&Open| o.flow.protocol == Protocol::Tcp && o.flow.local == client;
        let Some((flow, process)) = self.flows.values().find(local).map(|o| (o.flow, o.process.clone())) else {
            let detail = || format!("a lookup over TCP from {client}, whose connection is not known");
            self.ledger.gap("unattributed", 1, detail);
            return Vec::new();
        };
        let tgid = process.map_or(0, |p| p.pid);
        let process = ProcessId { tgid, tid: tgid, ..ProcessId::default() };
        // The answer that the client gets is the resolver's business, so nothing is left to be done here.
        let _ = self.query(at, process, &flow, None, true, query);
        let name = self.last_host.clone();
        let refuses = self.judge.enforce && name.is_some_and(|n| self.lookup_action(Class::default(), &n).0.refuses());
        let refused = refuses.then_some(LookupRefusal::Policy);
        let mut facts = vec![Fact::Query { flow, refused, resolver: true, message: query.into() }];
        if let Some(answer) = answer {
            self.answer(at, Class::default(), &flow, true, answer);
            facts.push(Fact::Answer { flow, believed: true, bound: None, message: answer.into() });
        }
        facts.into_iter().map(|fact| Observation { at, sensor: SensorKind::Ebpf, process, fact }).collect()
    }

    fn lookup_action(&self, class: Class, name: &str) -> (Action, Rc<str>, Option<RuleIndex>) {
        let Some(m) = &self.judge.policy else { return (Action::Allow, Rc::clone(&self.internal.none), None) };
        let d = m.decide_query_as(class, name);
        let rule = d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into());
        if d.action.refuses() && m.is_search_expansion(class, name, &self.judge.search).is_some() {
            return (Action::Allow, "search list".into(), None);
        }
        (d.action, rule, d.rule)
    }

    pub(super) fn answer(&mut self, at: Instants, class: Class, flow: &Flow, believed: bool, bytes: &[u8]) {
        let Ok(message) = dns::Message::decode_start(bytes) else { return };
        let name: Rc<str> = message.question.name.as_str().into();
        self.last_host = Some(Rc::clone(&name));
        let addresses = message.addresses();
        let kind = dns::type_word(message.question.qtype);
        let plain: Vec<_> = addresses.iter().map(|(ip, _)| *ip).collect();
        self.ledger.answers(&name, &kind, flow.peer, &plain);
        // Exactly what the kernel binds: answers to believed queries for names that may be connected to.
        let refused = self.judge.policy.as_ref().is_some_and(|m| m.decide_query_as(class, &name).action.refuses());
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
}
