//! What the rules of one target say about protocols and ports: disjoint spans, the most severe rule of each.

use std::{cmp::Ordering, collections::BinaryHeap};

use trustrun_model::{Action, Protocol};

use crate::RuleIndex;

/// One rule's word on a destination. Greater is what wins: the more severe action, then the earlier rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hit {
    pub(crate) action: Action,
    pub(crate) rule: RuleIndex,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.action.cmp(&other.action).then_with(|| other.rule.cmp(&self.rule))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A hit on the ports `lo..=hi` of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) lo: u16,
    pub(crate) hi: u16,
    pub(crate) hit: Hit,
}

/// One pattern's word, before its target's words are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// None is every protocol, and then every port.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) span: Span,
}

/// What rules say about every protocol and port. Two tables that say the same are equal: spans are disjoint, sorted,
/// joined where they touch and agree, and hold what `every` says already put in (a span that only repeats `every` is
/// left out).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PortTable {
    /// What is said about all that no span covers.
    pub(crate) every: Option<Hit>,
    /// By protocol number, ascending; none is empty.
    pub(crate) protocols: Vec<(u8, Vec<Span>)>,
}

impl PortTable {
    /// Puts the words of one target's patterns together.
    pub(crate) fn new(entries: &[Entry]) -> Self {
        let every = entries.iter().filter(|e| e.protocol.is_none()).map(|e| e.span.hit).max();
        let mut spans: Vec<(u8, Span)> =
            entries.iter().filter_map(|e| e.protocol.map(|p| (p.number(), e.span))).collect();
        spans.sort_by_key(|(protocol, _)| *protocol);
        Self::assemble(every, spans)
    }

    /// The table of two targets that both match.
    pub(crate) fn merge(&self, other: &Self) -> Self {
        let mut spans: Vec<(u8, Span)> = [self, other]
            .into_iter()
            .flat_map(|t| &t.protocols)
            .flat_map(|(protocol, spans)| spans.iter().map(|s| (*protocol, *s)))
            .collect();
        spans.sort_by_key(|(protocol, _)| *protocol);
        Self::assemble(self.every.max(other.every), spans)
    }

    /// `spans` sorted by protocol.
    fn assemble(every: Option<Hit>, spans: Vec<(u8, Span)>) -> Self {
        let mut protocols = Vec::new();
        for group in spans.chunk_by(|a, b| a.0 == b.0) {
            let mut said: Vec<Span> = group.iter().map(|(_, span)| *span).collect();
            said.extend(every.map(|hit| Span { lo: 0, hi: u16::MAX, hit }));
            let mut flat = sweep(said);
            flat.retain(|s| Some(s.hit) != every);
            if !flat.is_empty() {
                protocols.push((group[0].0, flat));
            }
        }
        Self { every, protocols }
    }

    /// What is said about one protocol and port.
    pub(crate) fn lookup(&self, protocol: Protocol, port: u16) -> Option<Hit> {
        let spans = self.spans(protocol.number());
        let at = spans.partition_point(|s| s.hi < port);
        spans.get(at).filter(|s| s.lo <= port).map(|s| s.hit).or(self.every)
    }

    /// Every hit that holds somewhere.
    pub(crate) fn hits(&self) -> impl Iterator<Item = Hit> {
        self.protocols.iter().flat_map(|(_, spans)| spans.iter().map(|s| s.hit)).chain(self.every)
    }

    /// Every hit that holds somewhere on a protocol.
    pub(crate) fn hits_of(&self, protocol: Protocol) -> impl Iterator<Item = Hit> {
        // Spans that take all ports leave none for `every`.
        let every = self.every.filter(|_| self.ports_in_spans(protocol) <= u32::from(u16::MAX));
        self.spans(protocol.number()).iter().map(|s| s.hit).chain(every)
    }

    /// Whether something is said about every port of a protocol.
    pub(crate) fn covers(&self, protocol: Protocol) -> bool {
        self.every.is_some() || self.ports_in_spans(protocol) > u32::from(u16::MAX)
    }

    fn ports_in_spans(&self, protocol: Protocol) -> u32 {
        self.spans(protocol.number()).iter().map(|s| u32::from(s.hi) - u32::from(s.lo) + 1).sum()
    }

    fn spans(&self, protocol: u8) -> &[Span] {
        match self.protocols.binary_search_by_key(&protocol, |(number, _)| *number) {
            Ok(at) => &self.protocols[at].1,
            Err(_) => &[],
        }
    }
}

/// Spans that overlap to spans that do not: at each port the greatest hit. Touching equal spans are joined.
fn sweep(mut spans: Vec<Span>) -> Vec<Span> {
    if spans.len() <= 1 {
        return spans;
    }
    // Where anything may change; 65536 is one past the last port.
    let mut edges: Vec<u32> = spans.iter().flat_map(|s| [u32::from(s.lo), u32::from(s.hi) + 1]).collect();
    edges.sort_unstable();
    edges.dedup();
    spans.sort_unstable_by_key(|s| s.lo);
    let mut coming = spans.into_iter().peekable();
    let mut open: BinaryHeap<(Hit, u16)> = BinaryHeap::new();
    let mut flat: Vec<Span> = Vec::new();
    for pair in edges.windows(2) {
        let (lo, hi) = (pair[0], pair[1] - 1);
        while let Some(span) = coming.next_if(|s| u32::from(s.lo) <= lo) {
            open.push((span.hit, span.hi));
        }
        while open.peek().is_some_and(|(_, end)| u32::from(*end) < lo) {
            open.pop();
        }
        let Some(&(hit, _)) = open.peek() else { continue };
        // Both are edges below 65536, so they are ports.
        let (lo, hi) = (lo as u16, hi as u16);
        match flat.last_mut() {
            Some(last) if last.hit == hit && u32::from(last.hi) + 1 == u32::from(lo) => last.hi = hi,
            _ => flat.push(Span { lo, hi, hit }),
        }
    }
    flat
}

/// The prefixes of 16 bits that make up `lo..=hi`: first port and length of each.
pub(crate) fn prefixes(lo: u16, hi: u16) -> impl Iterator<Item = (u16, u32)> {
    let end = u32::from(hi) + 1;
    let mut at = u32::from(lo);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        // The largest aligned block that begins here and does not reach past the end.
        let aligned = at.trailing_zeros().min(16);
        let size = aligned.min((end - at).ilog2());
        let first = at as u16;
        at += 1 << size;
        Some((first, 16 - size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fall_into_the_fewest_aligned_prefixes() {
        assert_eq!(prefixes(0, u16::MAX).collect::<Vec<_>>(), [(0, 0)]);
        assert_eq!(prefixes(443, 443).collect::<Vec<_>>(), [(443, 16)]);
        assert_eq!(prefixes(8000, 8100).collect::<Vec<_>>(), [(8000, 10), (8064, 11), (8096, 14), (8100, 16)]);
        assert_eq!(prefixes(1, u16::MAX).count(), 16);
    }

    #[test]
    fn the_most_severe_span_wins_where_spans_overlap() {
        let span = |lo, hi, action, rule| Span { lo, hi, hit: Hit { action, rule: RuleIndex(rule) } };
        let flat = sweep(vec![
            span(0, u16::MAX, Action::Allow, 0),
            span(100, 200, Action::Block, 2),
            span(150, 300, Action::Block, 1),
        ]);
        assert_eq!(
            flat,
            [
                span(0, 99, Action::Allow, 0),
                span(100, 149, Action::Block, 2),
                span(150, 300, Action::Block, 1),
                span(301, u16::MAX, Action::Allow, 0)
            ]
        );
    }
}
