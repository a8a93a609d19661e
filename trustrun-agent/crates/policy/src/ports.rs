//! What the rules of one target say about protocols and ports: disjoint spans, the most severe rule of each.

use std::{borrow::Cow, cmp::Ordering, collections::BinaryHeap};

use trustrun_model::{Action, Protocol};

/// One rule's word on a destination. Greater is what wins: the more severe action, then the earlier rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hit {
    pub(crate) action: Action,
    /// The rule's place in the order that decides between equals (`rank`).
    pub(crate) rank: u32,
    /// Only rules with a condition speak here, and it is not known whether it holds: the default counts too.
    pub(crate) weak: bool,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_rank = || other.rank.cmp(&self.rank);
        self.action.cmp(&other.action).then_with(by_rank).then_with(|| other.weak.cmp(&self.weak))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ports `lo..=hi` of a protocol; of every protocol, and then every port, where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reach {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) lo: u16,
    pub(crate) hi: u16,
}

impl Reach {
    /// Whether nothing of `other` is outside it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.protocol.is_none() || (self.protocol == other.protocol && self.lo <= other.lo && other.hi <= self.hi)
    }

    /// Whether some protocol and port is in both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let same = self.protocol.is_none() || other.protocol.is_none() || self.protocol == other.protocol;
        same && self.lo <= other.hi && other.lo <= self.hi
    }

    /// Whether it speaks about a protocol and port.
    pub(crate) fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol.is_none_or(|p| p == protocol) && (self.lo..=self.hi).contains(&port)
    }
}

/// What is said about the ports `lo..=hi` of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) lo: u16,
    pub(crate) hi: u16,
    /// None is silence, where `every` would speak.
    pub(crate) hit: Option<Hit>,
}

/// A span that somebody speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    lo: u16,
    hi: u16,
    hit: Hit,
}

/// One pattern's word, before its target's words are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) reach: Reach,
    pub(crate) hit: Hit,
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
        let every = entries.iter().filter(|e| e.reach.protocol.is_none()).map(|e| e.hit).max();
        let said =
            |e: &Entry| e.reach.protocol.map(|p| (p.number(), Said { lo: e.reach.lo, hi: e.reach.hi, hit: e.hit }));
        let mut spans: Vec<(u8, Said)> = entries.iter().filter_map(said).collect();
        spans.sort_by_key(|(protocol, _)| *protocol);
        let mut table = Self { every, protocols: Vec::new() };
        for group in spans.chunk_by(|a, b| a.0 == b.0) {
            let mut said: Vec<Said> = group.iter().map(|(_, span)| *span).collect();
            said.extend(every.map(|hit| Said { lo: 0, hi: u16::MAX, hit }));
            table.push(group[0].0, sweep(said));
        }
        table
    }

    /// The table of two targets that both match.
    pub(crate) fn merge(&self, other: &Self) -> Self {
        let mut table = Self { every: self.every.max(other.every), protocols: Vec::new() };
        for protocol in self.numbers(other) {
            let mut said = self.said(protocol);
            said.extend(other.said(protocol));
            table.push(protocol, sweep(said));
        }
        table
    }

    /// The table without what an exception takes out.
    pub(crate) fn without<'a>(&self, holes: impl IntoIterator<Item = &'a Reach>) -> Self {
        let mut table = Cow::Borrowed(self);
        for hole in holes {
            let Some(protocol) = hole.protocol else { return Self::default() };
            table = Cow::Owned(table.cut(protocol.number(), hole));
        }
        table.into_owned()
    }

    fn cut(&self, number: u8, hole: &Reach) -> Self {
        let mut table = Self { every: self.every, protocols: Vec::new() };
        for protocol in self.numbers(&Self { every: None, protocols: vec![(number, Vec::new())] }) {
            let mut said = self.said(protocol);
            if protocol == number {
                said = said.into_iter().flat_map(|s| outside(s, hole)).collect();
            }
            table.push(protocol, said);
        }
        table
    }

    /// The same words, weak where `sure`, which says no more than this table, is silent.
    pub(crate) fn weak_beyond(&self, sure: &Self) -> Self {
        let mark = |hit: Hit, weak| Hit { weak, ..hit };
        let every = self.every.map(|hit| mark(hit, sure.every.is_none()));
        let mut table = Self { every, protocols: Vec::new() };
        for protocol in self.numbers(sure) {
            let (known, mut spans) = (sure.said(protocol), Vec::new());
            for span in self.said(protocol) {
                let mut piece = |lo: u32, hi: u32, weak| {
                    if lo <= hi {
                        spans.push(Said { lo: lo as u16, hi: hi as u16, hit: mark(span.hit, weak) });
                    }
                };
                let (mut at, last) = (u32::from(span.lo), u32::from(span.hi));
                for known in known.iter().filter(|k| k.lo <= span.hi && span.lo <= k.hi) {
                    let (lo, hi) = (at.max(known.lo.into()), last.min(known.hi.into()));
                    if at < lo {
                        piece(at, lo - 1, true);
                    }
                    piece(lo, hi, false);
                    at = hi + 1;
                }
                piece(at, last, true);
            }
            table.push(protocol, joined(spans));
        }
        table
    }

    /// Adds a protocol, about whose ports `said` is all that is said: disjoint and in order.
    fn push(&mut self, protocol: u8, said: Vec<Said>) {
        let mut spans = Vec::with_capacity(said.len());
        // The ports before `end`, which is a port or one past the last.
        let silence = |lo: u32, end: u32, spans: &mut Vec<Span>| {
            if self.every.is_some() && lo < end {
                spans.push(Span { lo: lo as u16, hi: (end - 1) as u16, hit: None });
            }
        };
        let mut next = 0;
        for span in said {
            silence(next, u32::from(span.lo), &mut spans);
            next = u32::from(span.hi) + 1;
            if Some(span.hit) != self.every {
                spans.push(Span { lo: span.lo, hi: span.hi, hit: Some(span.hit) });
            }
        }
        silence(next, 1 << 16, &mut spans);
        if !spans.is_empty() {
            self.protocols.push((protocol, spans));
        }
    }

    /// The protocols that either speaks of, ascending.
    fn numbers(&self, other: &Self) -> Vec<u8> {
        let mut numbers: Vec<u8> = self.protocols.iter().chain(&other.protocols).map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// All that is said about the ports of a protocol: disjoint and in order.
    fn said(&self, protocol: u8) -> Vec<Said> {
        let mut said = Vec::new();
        let mut next = 0;
        let gap = |lo: u32, hi: u32, said: &mut Vec<Said>| {
            if let Some(hit) = self.every.filter(|_| lo < hi) {
                said.push(Said { lo: lo as u16, hi: (hi - 1) as u16, hit });
            }
        };
        for span in self.spans(protocol) {
            gap(next, u32::from(span.lo), &mut said);
            said.extend(span.hit.map(|hit| Said { lo: span.lo, hi: span.hi, hit }));
            next = u32::from(span.hi) + 1;
        }
        gap(next, 1 << 16, &mut said);
        said
    }

    /// What is said about one protocol and port.
    pub(crate) fn lookup(&self, protocol: Protocol, port: u16) -> Option<Hit> {
        let spans = self.spans(protocol.number());
        let at = spans.partition_point(|s| s.hi < port);
        match spans.get(at).filter(|s| s.lo <= port) {
            Some(span) => span.hit,
            None => self.every,
        }
    }

    /// Every hit that holds somewhere.
    pub(crate) fn hits(&self) -> impl Iterator<Item = Hit> {
        self.protocols.iter().flat_map(|(_, spans)| spans.iter().filter_map(|s| s.hit)).chain(self.every)
    }

    /// Every hit that holds somewhere on a protocol.
    pub(crate) fn hits_of(&self, protocol: Protocol) -> impl Iterator<Item = Hit> {
        self.said(protocol.number()).into_iter().map(|s| s.hit)
    }

    /// Whether something is said about every port of a protocol.
    pub(crate) fn covers(&self, protocol: Protocol) -> bool {
        self.said(protocol.number()).iter().map(|s| u32::from(s.hi) - u32::from(s.lo) + 1).sum::<u32>()
            > u32::from(u16::MAX)
    }

    /// How many spans there are.
    pub(crate) fn spans_in_all(&self) -> usize {
        self.protocols.iter().map(|(_, spans)| spans.len()).sum()
    }

    fn spans(&self, protocol: u8) -> &[Span] {
        match self.protocols.binary_search_by_key(&protocol, |(number, _)| *number) {
            Ok(at) => &self.protocols[at].1,
            Err(_) => &[],
        }
    }
}

/// What is left of a span outside a hole.
fn outside(span: Said, hole: &Reach) -> impl Iterator<Item = Said> {
    let below = hole.lo.checked_sub(1).map(|hi| Said { hi: hi.min(span.hi), ..span });
    let above = hole.hi.checked_add(1).map(|lo| Said { lo: lo.max(span.lo), ..span });
    below.into_iter().chain(above).filter(|s| s.lo <= s.hi)
}

/// Joins spans that touch and agree.
fn joined(spans: Vec<Said>) -> Vec<Said> {
    let mut flat: Vec<Said> = Vec::with_capacity(spans.len());
    for span in spans {
        match flat.last_mut() {
            Some(last) if last.hit == span.hit && u32::from(last.hi) + 1 == u32::from(span.lo) => last.hi = span.hi,
            _ => flat.push(span),
        }
    }
    flat
}

/// Spans that overlap to spans that do not: at each port the greatest hit. Touching equal spans are joined.
fn sweep(mut spans: Vec<Said>) -> Vec<Said> {
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
    let mut flat: Vec<Said> = Vec::new();
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
        flat.push(Said { lo, hi, hit });
    }
    joined(flat)
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
        let span = |lo, hi, action, rank| Said { lo, hi, hit: Hit { action, rank, weak: false } };
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
