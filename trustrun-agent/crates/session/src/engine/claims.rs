//! What the client itself says: ClientHello, Host, proxy requests, and what the kernel judged by them.

use std::{net::SocketAddr, rc::Rc};

use trustrun_model::{ClaimSource, Decided, Evidence, Flow, FlowId, Observation, Protocol, Reason};
use trustrun_wire::{First, Gather, classify};

use super::{Engine, Reaction};

impl Engine {
    pub(super) fn judged(&mut self, o: &Observation, flow: &Flow, decided: &Decided) -> Option<Reaction> {
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

    pub(super) fn payload(&mut self, flow: &Flow, offset: u32, bytes: &[u8]) {
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
}
