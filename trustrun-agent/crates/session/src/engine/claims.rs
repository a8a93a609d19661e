//! What the client itself says: ClientHello, Host, proxy requests, and what the kernel judged by them.

use std::{net::SocketAddr, rc::Rc};

use trustrun_model::{Action, ClaimSource, Decided, Evidence, Flow, FlowId, Instants, Observation, Protocol, Reason};
use trustrun_wire::{First, Gather, classify, first::Error as Unread};

use super::{Engine, Open, Reaction};

/// Whether what could not be read asks a proxy: SOCKS, CONNECT, or a target with a scheme.
fn for_a_proxy(stream: &[u8]) -> bool {
    match stream {
        [5, methods, ..] => return *methods > 0,
        [4, command, ..] => return matches!(command, 1 | 2),
        _ => {}
    }
    let mut words = stream.split(|b| *b == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    method == b"CONNECT" || target.windows(3).any(|w| w == b"://")
}

impl Engine {
    pub(super) fn judged(&mut self, o: &Observation, flow: &Flow, decided: &Decided) -> Option<Reaction> {
        let rule = self.word(decided.reason);
        if decided.reason == Reason::Claim {
            let _ = self.read_so_far(o.at, flow);
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
                    let d = match name {
                        Some(name) if open.beyond.is_none() => {
                            m.decide_claim(open.class, name, flow.peer.ip(), port, flow.protocol)
                        }
                        _ => m.decide_as(open.class, name, address, port, flow.protocol),
                    };
                    open.index = d.rule;
                    d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into())
                }
                _ => {
                    open.index = None;
                    rule
                }
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

    pub(super) fn payload(&mut self, at: Instants, flow: &Flow, offset: u32, bytes: &[u8]) -> Option<Reaction> {
        let key = (flow.id, flow.peer);
        if flow.protocol == Protocol::Udp {
            let hello = self.quic.entry(key).or_default().push(bytes).complete();
            if let Some(sni) = hello.and_then(|h| h.sni) {
                return self.claimed(at, key, ClaimSource::Sni, &sni, None);
            }
            return None;
        }
        let gather = self.flows.get_mut(&key).and_then(|o| o.gather.as_mut())?;
        gather.insert(u64::from(offset), bytes);
        let first = classify(gather.prefix());
        if matches!(first, First::Incomplete) && !gather.overflowed() {
            return None;
        }
        self.first(at, flow, &first)
    }

    /// The kernel judges a proxy request as soon as the authority is there, and tells no more of it: what was told is
    /// read as if the head ended behind its target.
    fn read_so_far(&mut self, at: Instants, flow: &Flow) -> Option<Reaction> {
        let open = self.flows.get(&(flow.id, flow.peer));
        let prefix = open.and_then(|o| o.gather.as_ref()).map(Gather::prefix)?;
        let mut words = prefix.split(|b| *b <= b' ');
        let (method, target) = (words.next()?, words.next()?);
        let first = classify(&[method, b" ", target, b" HTTP/1.0\r\n\r\n"].concat());
        self.first(at, flow, &first)
    }

    /// What a connection begins with is known.
    fn first(&mut self, at: Instants, flow: &Flow, first: &First) -> Option<Reaction> {
        let key = (flow.id, flow.peer);
        if let Some(open) = self.flows.get_mut(&key) {
            let unread = matches!(first, First::Incomplete | First::Malformed(Unread::Http(_) | Unread::Socks(_)));
            open.unread = unread && open.gather.as_ref().is_some_and(|g| for_a_proxy(g.prefix()));
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
            return None;
        };
        match claim.host {
            Some(host) => return self.claimed(at, key, claim.source, &host, claim.port),
            None if claim.source == ClaimSource::Proxy => self.proxy_gap(flow, "a proxy request that names nobody"),
            None => {}
        }
        None
    }

    fn proxy_gap(&mut self, flow: &Flow, why: &'static str) {
        self.ledger.gap("proxy-hides-destination", 1, || format!("{why} ({})", flow.peer));
    }

    /// What the client said is judged again when its connection is over: where the kernel read it otherwise, or not at
    /// all, the connection went where the policy does not let it, or nobody knows where.
    pub(super) fn judge_claim(&mut self, at: Instants, open: &mut Open, sent: u64) {
        let Some(m) = &self.judge.policy else { return };
        if open.action.refuses() {
            return;
        }
        // More followed than the kernel told, which it does until it knows or gives up.
        let cut = |told: &[u8]| sent > told.len() as u64 && for_a_proxy(told);
        if open.unread || open.gather.as_ref().is_some_and(|g| cut(g.prefix())) {
            return self.proxy_gap(&open.flow, "a proxy request that cannot be read");
        }
        let (Some(claim), Some(source)) = (&open.claim, open.said) else { return };
        let (named, port) = match (source, open.beyond) {
            (ClaimSource::Proxy, Some(port)) => (open.host.as_ref().unwrap_or(claim), port),
            (ClaimSource::Sni, _) => (claim, open.flow.peer.port()),
            _ => return,
        };
        let address = named.parse().ok();
        let d = if source == ClaimSource::Sni && address.is_none() {
            m.decide_claim(open.class, named, open.flow.peer.ip(), port, open.flow.protocol)
        } else {
            m.decide_as(open.class, address.is_none().then_some(&**named), address, port, open.flow.protocol)
        };
        // A server name takes away only by a rule of its own; of a proxy's authority the default speaks too.
        let speaks = d.rule.is_some() || source == ClaimSource::Proxy;
        if !speaks || d.action <= open.action || !d.action.violates() {
            return;
        }
        let target = named.to_string();
        open.rule = d.rule.map_or_else(|| Rc::clone(&self.internal.default), |r| m.rule_name(r).into());
        open.index = d.rule;
        open.action = d.action;
        let decided = Decided { action: d.action, reason: Reason::Claim, enforced: false };
        let _ = self.violated(at, open, &decided);
        self.ledger.gap("decision-mismatch", 1, || {
            format!("the kernel let a connection through that names {target}, about which the policy says {}", d.action)
        });
    }

    /// The client said whom it talks to.
    fn claimed(
        &mut self,
        at: Instants,
        key: (FlowId, SocketAddr),
        source: ClaimSource,
        host: &str,
        port: Option<u16>,
    ) -> Option<Reaction> {
        let bound = self.names.knows(key.1.ip(), host).cloned();
        let lied = source == ClaimSource::Host && bound.is_none();
        let open = self.flows.get_mut(&key)?;
        open.said = Some(source);
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
                } else if lied {
                    return self.other_host(at, key);
                }
            }
        }
        None
    }

    /// A request in the clear for a host that DNS did not give for this address. Where names opened the connection, it is
    /// what a disagreeing server name is to TLS, but the kernel read no further than the request's first line: it is on
    /// its way, so it is a violation that was let through, and its connection ends.
    fn other_host(&mut self, at: Instants, key: (FlowId, SocketAddr)) -> Option<Reaction> {
        let policy = self.judge.policy.as_ref()?;
        let open = self.flows.get(&key)?;
        let peer = open.flow.peer;
        let itself = open.claim.as_deref().is_some_and(|c| c.trim_matches(['[', ']']).parse() == Ok(peer.ip()));
        let by_address =
            !policy.decide_as(open.class, None, Some(peer.ip()), peer.port(), Protocol::Tcp).action.refuses();
        if itself || by_address || open.action.refuses() {
            return None;
        }
        let mut open = self.flows.remove(&key)?;
        open.action = open.action.max(Action::Alert);
        open.rule = self.word(Reason::Mismatch);
        open.index = None;
        let decided = Decided { action: open.action, reason: Reason::Mismatch, enforced: false };
        let _ = self.violated(at, &open, &decided);
        let end = Reaction::Destroy { flow: open.flow.id, local: open.flow.local, peer };
        self.flows.insert(key, open);
        self.judge.enforce.then_some(end)
    }
}
