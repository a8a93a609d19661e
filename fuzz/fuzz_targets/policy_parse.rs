//! A policy file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_policy::Policy;

fuzz_target!(|data: &[u8]| {
    let _ = Policy::parse("fuzz", data);
});
