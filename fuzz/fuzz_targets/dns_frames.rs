//! A TCP stream of DNS messages, in pieces of a size that the first octet gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::dns::TcpFrames;

fuzz_target!(|data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    let cut = |size: usize| {
        let mut frames = TcpFrames::new();
        let mut messages = Vec::new();
        for mut part in stream.chunks(size) {
            while let Some(message) = frames.next(&mut part) {
                messages.push(message);
            }
        }
        messages
    };
    assert_eq!(cut(usize::from(*size) + 1), cut(stream.len().max(1)));
});
