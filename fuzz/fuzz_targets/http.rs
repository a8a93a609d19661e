//! The head of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::http::{HEAD_MAX, Head};

fuzz_target!(|data: &[u8]| {
    if let Some(Head::Request(request)) = Head::from_stream(data).complete() {
        assert!(request.length <= HEAD_MAX && request.length <= data.len());
        assert_eq!(Head::from_stream(&data[..request.length]).complete(), Some(Head::Request(request)));
    }
});
