//! A SOCKS client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::socks::Request;

fuzz_target!(|data: &[u8]| {
    if let Some(request) = Request::from_stream(data).complete() {
        assert!(request.length <= data.len());
        assert!(Request::from_stream(&data[..request.length - 1]).is_incomplete());
    }
});
