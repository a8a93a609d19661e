//! A client's first bytes: the answer comes once, and stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::{First, classify};

fuzz_target!(|data: &[u8]| {
    let whole = classify(data);
    let _ = (whole.claim(), whole.word());
    assert!(whole.tunnel_at().is_none_or(|at| at <= data.len()));
    for end in [data.len() / 2, data.len().saturating_sub(1)] {
        let part = classify(&data[..end]);
        assert!(part == First::Incomplete || part == whole);
    }
});
