//! Which kernels the guard works on, and what it does without on the older ones. `cargo xtask vm` runs the tests on the
//! oldest.

use std::{fmt, fs, path::Path};

use crate::GuardError;

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// Reads a kernel's release: "6.1.0-56-cloud-amd64".
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The oldest kernel that every program loads on: 5.9 has `sock_release`, 5.10 is the first with long-term support after it,
/// and older ones were never tried.
pub const MINIMUM: Release = Release(5, 10);

/// What only newer kernels have: what, since when, and what becomes of a session without. The programs among it are attached
/// by themselves (`Loaded::watch_unix`, `Loaded::guard_border`); all others must load everywhere.
pub const OPTIONAL: &[(&str, Release, &str)] = &[
    ("cgroup.kill", Release(5, 14), "a session's processes are ended one by one, over and over, until none is left"),
    ("Landlock's domains", Release(5, 19), "the memory and descriptors of the user's other processes are within reach"),
    ("the hook unix_peer", Release(6, 3), "who is reached over a unix socket is not seen: a limit"),
    (
        "the hooks unix_connect and unix_send (with `bpf` among the security modules)",
        Release(6, 1),
        "a unix socket that somebody outside makes later is reached and told, and not refused",
    ),
    ("the hook packet_sent", Release(6, 1), "packet sockets of a watched command of root's are a limit, and not told"),
    ("Landlock's scopes", Release(6, 12), "abstract sockets and signals to processes outside are within reach"),
    ("the verifier's count", Release(5, 16), "the verifier budget is not tested, only that the programs load"),
];

const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Whether this kernel is new enough.
///
/// # Errors
/// If it is older than [`MINIMUM`], or does not say what it is.
pub(crate) fn check() -> Result<(), GuardError> {
    let path = Path::new(RELEASE);
    let text = fs::read_to_string(path).map_err(GuardError::file("reading", path))?;
    judge(text.trim())
}

fn judge(release: &str) -> Result<(), GuardError> {
    if Release::parse(release).is_some_and(|found| found >= MINIMUM) {
        return Ok(());
    }
    Err(GuardError::OldKernel { wanted: MINIMUM, found: release.to_owned() })
}

/// Whether this kernel is older than a release such as `6.12`. One that cannot be read is not.
pub(crate) fn older_than(since: &str) -> bool {
    let here = fs::read_to_string(RELEASE).ok().and_then(|text| Release::parse(&text));
    here.zip(Release::parse(since)).is_some_and(|(here, since)| here < since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_are_refused_with_both_numbers() {
        for release in ["4.18.0-553.el8_10.x86_64", "5.4.0-216-generic", "5.9.16"] {
            let error = judge(release).unwrap_err().to_string();
            assert!(error.contains("5.10") && error.contains(release), "{error}");
        }
    }

    #[test]
    fn newer_kernels_are_not_compared_as_text() {
        for release in ["5.10.0-46-cloud-amd64", "5.15.0", "6.1.0-56-cloud-amd64", "6.12.117+deb12", "7.2-rc1", "10.0"]
        {
            assert!(judge(release).is_ok(), "{release}");
        }
    }

    #[test]
    fn a_release_that_cannot_be_read_is_refused() {
        for release in ["", "six", "6", "6.x"] {
            assert!(judge(release).is_err(), "{release:?}");
        }
    }

    #[test]
    fn this_kernel_is_new_enough_for_its_own_tests() {
        check().unwrap();
    }
}
