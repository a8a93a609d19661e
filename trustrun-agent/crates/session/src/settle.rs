//! The end of a session: what the kernel counted against what came out of the ring.
//!
//! Nothing stops the kernel's programs while both are read: a connection of the session may close after its last process.
//! An event that comes between the two readings is in one of them alone, and would look like one that nobody counted, or
//! like one that was lost. A program counts before it sends, so reading again settles it.

use trustrun_common::counter;

/// The kernel's counters.
pub(crate) type Counts = [u64; counter::COUNT as usize];

/// How often both are read at most: what stays guarded may go on for ever.
const TRIES: usize = 16;

/// Where both are read.
pub(crate) trait Readings {
    /// Takes everything out of the ring; how many records came out of it from the beginning.
    fn take_out(&mut self) -> u64;
    /// The counters as they are now; none where nobody can tell any more.
    fn count(&mut self) -> Option<Counts>;
}

/// Takes everything out of the ring, and reads the counters again until both agree.
pub(crate) fn settle(readings: &mut impl Readings, mut counts: Counts) -> Counts {
    for _ in 0..TRIES {
        let received = readings.take_out();
        let of = |i: u32| counts.get(i as usize).copied().unwrap_or(0);
        let agree = received + of(counter::RING_FULL) == of(counter::EMITTED);
        if agree || of(counter::UNREAD) > 0 {
            break;
        }
        match readings.count() {
            Some(newer) => counts = newer,
            None => break,
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(emitted: u64, ring_full: u64) -> Counts {
        let mut c = [0; counter::COUNT as usize];
        c[counter::EMITTED as usize] = emitted;
        c[counter::RING_FULL as usize] = ring_full;
        c
    }

    /// A kernel that makes events at chosen moments.
    #[derive(Default)]
    struct Kernel {
        emitted: u64,
        ring_full: u64,
        received: u64,
        /// Events that come just before each of the next drains, and just after.
        before: Vec<u64>,
        after: Vec<u64>,
        counted: usize,
        gone: bool,
    }

    impl Readings for Kernel {
        fn take_out(&mut self) -> u64 {
            self.emitted += self.before.pop().unwrap_or(0);
            self.received = self.emitted - self.ring_full;
            self.emitted += self.after.pop().unwrap_or(0);
            self.received
        }

        fn count(&mut self) -> Option<Counts> {
            self.counted += 1;
            (!self.gone).then(|| counts(self.emitted, self.ring_full))
        }
    }

    fn emitted(c: &Counts) -> u64 {
        c[counter::EMITTED as usize]
    }

    #[test]
    fn nothing_is_read_again_where_both_agree() {
        let mut kernel = Kernel { emitted: 7, ring_full: 2, ..Kernel::default() };
        assert_eq!(emitted(&settle(&mut kernel, counts(7, 2))), 7);
        assert_eq!((kernel.received, kernel.counted), (5, 0));
    }

    #[test]
    fn an_event_between_the_counters_and_the_ring_is_counted() {
        // The counters were read at 7; one came before the ring was taken out.
        let mut kernel = Kernel { emitted: 7, before: vec![1], ..Kernel::default() };
        assert_eq!(emitted(&settle(&mut kernel, counts(7, 0))), 8);
        assert_eq!((kernel.received, kernel.counted), (8, 1));
    }

    #[test]
    fn an_event_between_the_ring_and_the_counters_is_taken_out() {
        let mut kernel = Kernel { emitted: 7, before: vec![0, 1], after: vec![0, 1], ..Kernel::default() };
        assert_eq!(emitted(&settle(&mut kernel, counts(7, 0))), kernel.received);
        assert_eq!(kernel.received, 9);
    }

    #[test]
    fn what_never_agrees_is_left_as_it_is() {
        struct Lost(usize);
        impl Readings for Lost {
            fn take_out(&mut self) -> u64 {
                6
            }
            fn count(&mut self) -> Option<Counts> {
                self.0 += 1;
                Some(counts(7, 0))
            }
        }
        let mut lost = Lost(0);
        assert_eq!(emitted(&settle(&mut lost, counts(7, 0))), 7, "an event that was lost stays a gap");
        assert_eq!(lost.0, TRIES);
        let mut gone = Kernel { emitted: 7, before: vec![1], gone: true, ..Kernel::default() };
        assert_eq!(emitted(&settle(&mut gone, counts(7, 0))), 7);
    }
}
