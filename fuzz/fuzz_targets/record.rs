//! A record of the kernel's ring buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_observe::{Clock, decode};

fuzz_target!(|data: &[u8]| {
    let _ = decode(data, &Clock::new());
});
