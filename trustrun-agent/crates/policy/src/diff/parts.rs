//! Addresses and ports cut where something begins or ends.

use std::collections::BTreeSet;

use trustrun_model::Protocol;

use super::field::Touch;
use crate::{
    pattern::{Net, V4, has_ports},
    private,
};

/// A protocol number that no pattern names, for those that only `any/` speaks about (RFC 3692: for experiments).
const OTHER: u8 = 253;

/// A part of the addresses within which no network begins or ends.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// An address in it.
    pub(super) address: u128,
    /// The narrowest network around it; none where no pattern names it.
    net: Option<Net>,
    /// Whether it is a piece of one that is there already, cut by where private addresses begin.
    pub(super) split: bool,
}

impl Region {
    pub(super) fn shown(&self) -> String {
        match self.net {
            Some(net) => net.to_string(),
            None if V4.contains(self.address) => "IPv4 addresses that no rule names".to_owned(),
            None => "IPv6 addresses that no rule names".to_owned(),
        }
    }
}

/// Every part of the addresses.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) parts: Vec<Region>,
}

/// A network with its last address, and whether a pattern names it.
#[derive(Clone, Copy)]
struct Span {
    net: Net,
    last: u128,
    named: bool,
}

impl Regions {
    pub(super) fn new(named: impl Iterator<Item = Net>) -> Self {
        let named: BTreeSet<(u128, u8)> = named.map(|net| (net.address, net.bits)).collect();
        let whole = [Net { address: 0, bits: 0 }, V4];
        let mut all: BTreeSet<(u128, u8)> = named.clone();
        all.extend(private::networks().chain(whole).map(|net| (net.address, net.bits)));
        let spans: Vec<Span> = all
            .iter()
            .map(|&(address, bits)| {
                let host = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                Span { net: Net { address, bits }, last: address | host, named: named.contains(&(address, bits)) }
            })
            .collect();
        let mut parts = Vec::new();
        let mut seen: BTreeSet<Option<(u128, u8, bool)>> = BTreeSet::new();
        for (at, span) in spans.iter().enumerate() {
            let Some(address) = gap(span, &spans[at + 1..]) else { continue };
            let net = around(&spans[..=at], address);
            // One part of each network that is named, or of what is outside all, stands for it where no name is asked.
            let key = net.map(|net| (net.address, net.bits, false));
            let key = Some(key.unwrap_or((0, 0, V4.contains(address))));
            parts.push(Region { address, net, split: !seen.insert(key) });
        }
        Self { parts }
    }
}

/// An address of a network that is in none of those inside it, which follow it in order.
fn gap(span: &Span, following: &[Span]) -> Option<u128> {
    let mut at = span.net.address;
    for inner in following.iter().take_while(|inner| inner.net.address <= span.last) {
        if at < inner.net.address {
            return Some(at);
        }
        if inner.last >= at {
            at = inner.last.checked_add(1)?;
        }
        if at > span.last {
            return None;
        }
    }
    (at <= span.last).then_some(at)
}

/// The narrowest network of those that are named, of the address's own family.
fn around(before: &[Span], address: u128) -> Option<Net> {
    let v4 = V4.contains(address);
    let has = |span: &&Span| span.named && span.net.is_v4() == v4 && span.net.contains(address);
    before.iter().rev().find(has).map(|span| span.net)
}

/// The protocols and ports that the patterns tell apart: as a row shows the protocol, one to ask about, first and last port.
pub(super) fn intervals(touches: &[Touch<'_>]) -> Vec<(Option<Protocol>, Protocol, u16, u16)> {
    let mut protocols: BTreeSet<u8> = touches.iter().filter_map(|t| t.pattern.protocol).map(Protocol::number).collect();
    let every = touches.iter().any(|touch| touch.pattern.protocol.is_none());
    if every {
        protocols.extend([Protocol::Tcp.number(), Protocol::Udp.number()]);
    }
    let mut all = Vec::new();
    for number in protocols {
        let protocol = Protocol::from_number(number);
        if !has_ports(protocol) {
            all.push((Some(protocol), protocol, 0, u16::MAX));
            continue;
        }
        let mut edges: BTreeSet<u32> = [0, 1 << 16].into();
        for pattern in touches.iter().map(|t| t.pattern).filter(|p| p.protocol == Some(protocol)) {
            edges.extend([u32::from(pattern.ports.0), u32::from(pattern.ports.1) + 1]);
        }
        let edges: Vec<u32> = edges.into_iter().collect();
        // All are at most 65536, so what is before an edge is a port.
        all.extend(edges.windows(2).map(|e| (Some(protocol), protocol, e[0] as u16, (e[1] - 1) as u16)));
    }
    if every {
        all.push((None, Protocol::Other(OTHER), 0, u16::MAX));
    }
    all
}
