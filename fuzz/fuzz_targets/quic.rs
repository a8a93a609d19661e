//! Datagrams to one QUIC server, each with its length before it in two octets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::{dns::TcpFrames, quic::Initials};

fuzz_target!(|data: &[u8]| {
    let mut initials = Initials::new();
    let (mut frames, mut rest) = (TcpFrames::new(), data);
    while let Some(datagram) = frames.next(&mut rest) {
        let _ = initials.push(&datagram);
    }
    let _ = initials.push(data);
});
