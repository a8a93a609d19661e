//! A ClientHello in records, and without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::{host::host_name, tls::ClientHello};

fuzz_target!(|data: &[u8]| {
    for outcome in [ClientHello::from_stream(data), ClientHello::from_handshake(data)] {
        if let Some(name) = outcome.complete().and_then(|hello| hello.sni) {
            assert_eq!(host_name(name.as_bytes()), Some(name));
        }
    }
});
