//! A report from a file or a database: what can be read is shown without a character that acts on a terminal, and is
//! written as JSON that holds none either.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_model::{Report, inert_json};
use trustrun_session::summary::{Style, render};

fuzz_target!(|data: &[u8]| {
    let Ok(report) = serde_json::from_slice::<Report>(data) else { return };
    for full in [false, true] {
        let shown = render(&report, Style { color: false, width: 80, full, db: None });
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }
    let json = inert_json(serde_json::to_string(&report).expect("a report is JSON"));
    assert!(!json.chars().any(char::is_control));
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);
});
