//! Files by which others are made to act: by the clock, by the service manager, or since everybody runs or loads them.
//! Whether any was changed while a session ran, by whomever. See `docs/decisions/0010-limits-that-become-gaps.md`.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::Path,
};

use nix::time::{ClockId, clock_gettime};

/// A file or folder, and what of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub path: &'static str,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Everything in it and below.
    All,
    /// The folder and what is right in it.
    Here,
    /// Shared objects in it and in its folders.
    Libraries,
}

const fn all(path: &'static str) -> Place {
    Place { path, counts: Counts::All }
}

const fn here(path: &'static str) -> Place {
    Place { path, counts: Counts::Here }
}

const fn libraries(path: &'static str) -> Place {
    Place { path, counts: Counts::Libraries }
}

/// How many of [`PLACES`], from the first, are such that a user can change them through a program that is allowed to
/// (crontab, at).
const CLOCKS: usize = 9;

/// All of them. Not among them is what only a person or the next start of the machine brings to life.
pub const PLACES: [Place; 49] = [
    all("/etc/crontab"),
    all("/etc/anacrontab"),
    all("/etc/cron.d"),
    all("/etc/cron.hourly"),
    all("/etc/cron.daily"),
    all("/etc/cron.weekly"),
    all("/etc/cron.monthly"),
    all("/var/spool/cron"),
    all("/var/spool/at"),
    // The service manager, devices and the network.
    all("/etc/systemd"),
    all("/usr/lib/systemd"),
    all("/usr/local/lib/systemd"),
    all("/etc/init.d"),
    all("/etc/udev"),
    all("/usr/lib/udev"),
    all("/etc/network"),
    all("/etc/NetworkManager"),
    all("/etc/modprobe.d"),
    // What every program loads or asks.
    all("/etc/ld.so.preload"),
    all("/etc/ld.so.conf"),
    all("/etc/ld.so.conf.d"),
    all("/etc/ld.so.cache"),
    all("/etc/nsswitch.conf"),
    all("/etc/pam.d"),
    all("/etc/security"),
    // Logins and shells.
    all("/etc/passwd"),
    all("/etc/shadow"),
    all("/etc/group"),
    all("/etc/sudoers"),
    all("/etc/sudoers.d"),
    all("/etc/ssh"),
    all("/etc/profile"),
    all("/etc/profile.d"),
    all("/etc/bash.bashrc"),
    all("/etc/environment"),
    all("/root/.bashrc"),
    all("/root/.profile"),
    all("/root/.bash_profile"),
    all("/root/.ssh/authorized_keys"),
    // Programs and libraries.
    here("/usr/bin"),
    here("/usr/sbin"),
    here("/usr/local/bin"),
    here("/usr/local/sbin"),
    here("/bin"),
    here("/sbin"),
    libraries("/usr/lib"),
    libraries("/usr/lib64"),
    libraries("/usr/local/lib"),
    libraries("/lib"),
];

/// Most files that are looked at.
const MOST: usize = 50_000;
/// Deepest that folders are followed.
const DEEPEST: usize = 8;

/// When a session began, on two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    real: i64,
    boot: i64,
}

impl Since {
    /// Now. By the clock that files are marked with, which is behind by a tick.
    pub(crate) fn now() -> Self {
        Self { real: nanoseconds(ClockId::CLOCK_REALTIME_COARSE), boot: nanoseconds(ClockId::CLOCK_BOOTTIME) }
    }

    /// The same moment by the clock as it is now set, or as it was set: the earlier of the two.
    fn earliest(self) -> i64 {
        let now = Self::now();
        self.real.min(now.real - (now.boot - self.boot))
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// What became of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its number in [`PLACES`].
    pub place: u32,
    /// Whether it could not be looked at, so that nobody knows.
    pub unknown: bool,
}

/// Places that were changed since, or could not be looked at; those that only root can change where `root` is told.
pub(crate) fn changed(since: Since, root: bool) -> Vec<Changed> {
    let places = if root { &PLACES[..] } else { &PLACES[..CLOCKS] };
    let mut walk = Walk { since: since.earliest(), left: MOST, seen: HashSet::new() };
    let looked = (0..).zip(places).map(|(number, place)| (number, walk.changed(place)));
    looked
        .filter_map(|(place, found)| match found {
            Ok(true) => Some(Changed { place, unknown: false }),
            Ok(false) => None,
            Err(_) => Some(Changed { place, unknown: true }),
        })
        .collect()
}

struct Walk {
    since: i64,
    left: usize,
    /// Folders by device and number: `/bin` may be `/usr/bin`.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    fn changed(&mut self, place: &Place) -> io::Result<bool> {
        let path = Path::new(place.path);
        // A link is followed, and counts itself.
        let link = match fs::symlink_metadata(path) {
            Ok(m) => m,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        if self.is_new(&link) && (!link.is_dir() || place.counts != Counts::Libraries) {
            return Ok(true);
        }
        match fs::metadata(path) {
            Ok(m) if m.is_dir() => self.folder(path, &m, place.counts, 0),
            Ok(m) => Ok(self.is_new(&m)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn is_new(&self, m: &fs::Metadata) -> bool {
        m.ctime().saturating_mul(1_000_000_000).saturating_add(m.ctime_nsec()) >= self.since
    }

    fn folder(&mut self, path: &Path, m: &fs::Metadata, counts: Counts, depth: usize) -> io::Result<bool> {
        if !self.seen.insert((m.dev(), m.ino())) {
            return Ok(false);
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
            let kind = entry.file_type()?;
            let library = entry.file_name().as_encoded_bytes().windows(3).any(|w| w == b".so");
            let (wanted, below) = match counts {
                Counts::All => (true, depth < DEEPEST),
                Counts::Here => (!kind.is_dir(), false),
                Counts::Libraries => (library && !kind.is_dir(), depth < 1),
            };
            let inside = kind.is_dir() && below;
            if !(wanted || inside) || self.seen.contains(&(m.dev(), entry.ino())) {
                continue;
            }
            // It may be gone by now, which its folder tells.
            let Ok(m) = entry.metadata() else { continue };
            let found = wanted && self.is_new(&m);
            if found || (inside && self.folder(&entry.path(), &m, counts, depth + 1)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path, counts: Counts, since: i64) -> bool {
        let path: &'static str = Box::leak(path.to_string_lossy().into_owned().into_boxed_str());
        let mut walk = Walk { since, left: 100, seen: HashSet::new() };
        walk.changed(&Place { path, counts }).unwrap()
    }

    /// A moment after everything that was done so far.
    fn later() -> i64 {
        nanoseconds(ClockId::CLOCK_REALTIME) + 1
    }

    #[test]
    fn what_was_made_changed_or_taken_away_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("job"), "1").unwrap();
        let wait = |since: i64| while nanoseconds(ClockId::CLOCK_REALTIME_COARSE) <= since {};
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(deep.join("job"), "2").unwrap(),
            &|| fs::write(deep.join("other"), "").unwrap(),
            &|| fs::remove_file(deep.join("other")).unwrap(),
            &|| fs::rename(deep.join("job"), dir.path().join("a/moved")).unwrap(),
        ];
        for change in changes {
            let since = later();
            assert!(!look(dir.path(), Counts::All, since));
            wait(since);
            change();
            assert!(look(dir.path(), Counts::All, since));
        }
        let since = later();
        wait(since);
        fs::write(deep.join("text"), "").unwrap();
        assert!(!look(&dir.path().join("a"), Counts::Libraries, since), "no library");
        fs::write(deep.join("libx.so.1"), "").unwrap();
        assert!(look(&dir.path().join("a"), Counts::Libraries, since));
        assert!(!look(&dir.path().join("none"), Counts::All, 0));
    }

    #[test]
    fn too_many_files_are_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        (0..3).for_each(|n| fs::write(dir.path().join(n.to_string()), "").unwrap());
        let path: &'static str = Box::leak(dir.path().to_string_lossy().into_owned().into_boxed_str());
        let mut walk = Walk { since: i64::MAX, left: 2, seen: HashSet::new() };
        assert!(walk.changed(&all(path)).is_err());
    }

    #[test]
    fn nothing_changes_here_in_no_time() {
        assert!(PLACES[..CLOCKS].iter().all(|p| p.path.contains("cron") || p.path.contains("/at")));
        assert!(PLACES.iter().all(|p| p.path.starts_with('/')));
    }
}
