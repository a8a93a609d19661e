//! A DNS message: decoded names encode again, and a refusal of a query is an answer to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_wire::dns::{Message, NXDOMAIN, matches, name_to_wire, negative_answer};

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::decode_start(data) else { return };
    assert!(name_to_wire(&message.question.name).is_ok());
    assert!(message.addresses().len() <= message.answers.len());
    if let Some(answer) = negative_answer(data, NXDOMAIN) {
        let answer = Message::decode(&answer).expect("our own answer can be read");
        assert!(matches(&message, &answer));
    }
});
