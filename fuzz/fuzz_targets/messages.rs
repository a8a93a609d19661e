//! Messages between guard, engine and foreground process: what is read is written again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_guard::{Note, Order};

fuzz_target!(|data: &[u8]| {
    if let Some(order) = Order::from_bytes(data) {
        assert_eq!(Order::from_bytes(&order.to_bytes()), Some(order));
    }
    if let Some(note) = Note::from_bytes(data) {
        assert_eq!(Note::from_bytes(&note.to_bytes()), Some(note));
    }
});
