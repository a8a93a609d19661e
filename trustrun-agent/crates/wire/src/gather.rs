//! Puts the beginning of a stream together from segments in any order.

/// Most bytes that a [`Gather`] holds unless told otherwise.
pub const LIMIT: usize = 16 * 1024;

/// Most separate pieces that a [`Gather`] keeps. A sender who leaves more holes than this is not a client that lost a
/// few packets.
pub const PIECES_MAX: usize = 64;

/// The beginning of a stream, from segments that may come in any order, more than once, and overlapping.
///
/// Where two segments disagree about a byte the first one stays, and [`Gather::conflicting`] tells: a sender that does
/// this wants to be read in two ways.
#[derive(Clone, Debug)]
pub struct Gather {
    bytes: Vec<u8>,
    /// Filled ranges of `bytes`: sorted, disjoint and not touching.
    pieces: Vec<(usize, usize)>,
    limit: usize,
    overflowed: bool,
    conflicting: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

impl Gather {
    /// Holds at most [`LIMIT`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(LIMIT)
    }

    /// Holds at most `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { bytes: Vec::new(), pieces: Vec::new(), limit, overflowed: false, conflicting: false }
    }

    /// Takes a segment that begins `offset` bytes into the stream. What lies beyond the limit is dropped, and
    /// [`Gather::overflowed`] tells.
    pub fn insert(&mut self, offset: u64, segment: &[u8]) {
        let room = usize::try_from(offset).ok().and_then(|start| Some((start, self.limit.checked_sub(start)?)));
        let Some((start, room)) = room else {
            self.overflowed |= !segment.is_empty();
            return;
        };
        let kept = segment.get(..room).unwrap_or(segment);
        self.overflowed |= kept.len() < segment.len();
        let end = start + kept.len();
        if kept.is_empty() {
            return;
        }
        let joins = self.pieces.iter().any(|(from, to)| start <= *to && *from <= end);
        if !joins && self.pieces.len() >= PIECES_MAX {
            self.overflowed = true;
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.fill(start, kept);
        self.join(start, end);
    }

    /// Copies `segment` into the holes and compares it with what is there.
    fn fill(&mut self, start: usize, segment: &[u8]) {
        let end = start + segment.len();
        let mut at = start;
        for (from, to) in self.pieces.iter().copied().chain([(end, end)]) {
            let hole_end = from.clamp(at, end);
            copy(&mut self.bytes, at, hole_end, segment, start);
            let known_end = to.clamp(hole_end, end);
            let known = self.bytes.get(hole_end..known_end);
            self.conflicting |= known != segment.get(hole_end - start..known_end - start);
            at = known_end;
        }
    }

    /// Adds the range to `pieces`, together with those that it overlaps or touches.
    fn join(&mut self, mut start: usize, mut end: usize) {
        self.pieces.retain(|(from, to)| {
            let touches = start <= *to && *from <= end;
            if touches {
                start = start.min(*from);
                end = end.max(*to);
            }
            !touches
        });
        let at = self.pieces.partition_point(|(from, _)| *from < start);
        self.pieces.insert(at, (start, end));
    }

    /// The bytes from the start of the stream to the first hole.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        match self.pieces.first() {
            Some((0, end)) => self.bytes.get(..*end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Whether bytes were dropped: beyond the limit, or with too many holes before them.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether segments disagreed about a byte.
    #[must_use]
    pub fn conflicting(&self) -> bool {
        self.conflicting
    }
}

/// Copies `segment`, which begins at `start` of the stream, into `bytes[from..to]`.
fn copy(bytes: &mut [u8], from: usize, to: usize, segment: &[u8], start: usize) {
    if let (Some(into), Some(part)) = (bytes.get_mut(from..to), segment.get(from - start..to - start)) {
        into.copy_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_for_the_hole_to_close() {
        let mut gather = Gather::new();
        gather.insert(3, b"def");
        assert_eq!(gather.prefix(), b"");
        gather.insert(0, b"ab");
        assert_eq!(gather.prefix(), b"ab");
        gather.insert(1, b"bcd");
        assert_eq!(gather.prefix(), b"abcdef");
        assert!(!gather.conflicting() && !gather.overflowed());
    }

    #[test]
    fn keeps_what_came_first_and_tells_of_a_conflict() {
        let mut gather = Gather::new();
        gather.insert(0, b"allowed.example");
        gather.insert(0, b"evil");
        assert_eq!(gather.prefix(), b"allowed.example");
        assert!(gather.conflicting());
    }

    #[test]
    fn is_bounded() {
        let mut gather = Gather::with_limit(8);
        gather.insert(4, &[1; 100]);
        gather.insert(u64::MAX, b"x");
        gather.insert(8, b"x");
        gather.insert(0, &[0; 4]);
        assert_eq!(gather.prefix(), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert!(gather.overflowed());
        let mut holes = Gather::new();
        for at in 0..200 {
            holes.insert(2 * at, b"x");
        }
        assert!(holes.overflowed() && holes.pieces.len() == PIECES_MAX);
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_same_stream(
            stream in proptest::collection::vec(any::<u8>(), 1..200),
            cuts in proptest::collection::vec((0_usize..200, 1_usize..60), 0..40),
        ) {
            let mut gather = Gather::new();
            let mut seen = vec![false; stream.len()];
            for (at, length) in cuts {
                let start = at.min(stream.len());
                let end = (at + length).min(stream.len());
                gather.insert(start as u64, &stream[start..end]);
                seen[start..end].fill(true);
                let whole = seen.iter().position(|s| !s).unwrap_or(seen.len());
                prop_assert_eq!(gather.prefix(), &stream[..whole]);
            }
            prop_assert!(!gather.conflicting() && !gather.overflowed());
        }

        #[test]
        fn never_panics(segments in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20), near in any::<bool>()) {
            let mut gather = Gather::with_limit(100);
            for (offset, segment) in segments {
                gather.insert(if near { offset % 120 } else { offset }, &segment);
            }
            prop_assert!(gather.prefix().len() <= 100);
        }
    }
}
