//! Segments of a stream: an offset, a length, and that many octets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::{Gather, gather::LIMIT};

fuzz_target!(|data: &[u8]| {
    let mut gather = Gather::new();
    let mut rest = data;
    while let [high, low, length, after @ ..] = rest {
        let (segment, next) = after.split_at(after.len().min(usize::from(*length)));
        let before = gather.prefix().to_vec();
        gather.insert(u64::from(u16::from_be_bytes([*high, *low])), segment);
        assert!(gather.prefix().starts_with(&before) && gather.prefix().len() <= LIMIT);
        rest = next;
    }
});
