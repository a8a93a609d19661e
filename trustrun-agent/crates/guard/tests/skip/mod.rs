//! Skipping a test aloud, as the lab's `skip` does: this crate must not depend on the lab.

use std::{fs::OpenOptions, io::Write as _};

/// Says that a test is skipped, and why. The line also goes to the file in `TRUSTRUN_SKIP_LOG`, which CI counts.
pub(crate) fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    let Some(path) = std::env::var_os("TRUSTRUN_SKIP_LOG") else { return };
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut f| writeln!(f, "{reason}"));
    if let Err(e) = written {
        eprintln!("SKIPPED, and it could not be written to {}: {e}", path.display());
    }
}
