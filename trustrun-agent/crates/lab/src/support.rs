//! Small helps for tests: is a program there, skipping aloud, waiting with a deadline.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

/// Whether `program` can be found on the PATH.
#[must_use]
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Says that a test is skipped, and why. The line also goes to the file in `TRUSTRUN_SKIP_LOG`, which CI counts.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    let Some(path) = std::env::var_os("TRUSTRUN_SKIP_LOG") else { return };
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{reason}\n").as_bytes()));
    if let Err(e) = written {
        eprintln!("SKIPPED, and it could not be written to {}: {e}", path.display());
    }
}

/// Waits until `condition` holds, at most so long. Gives its last answer.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
