//! The session's cgroup: under systemd in a scope of the caller's slice, else, or where systemd makes none, at
//! `<mount>/trustrun/<session>`.

mod scope;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::ChildStdin,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::GuardError;

/// Where the cgroup v2 hierarchy is mounted: alone or beside v1 ("hybrid"), so it is read, never assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its mount point.
    pub mount: PathBuf,
}

impl Hierarchy {
    /// Finds it in `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self, GuardError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(GuardError::file("reading", path))?;
        Self::parse(&text).ok_or(GuardError::NoCgroup2)
    }

    /// The first cgroup2 mount of a mountinfo text (proc_pid_mountinfo(5)) that may be written to, else the first. A
    /// container may have both.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all: Vec<Mount<'_>> = mounts(text).collect();
        // Of several at one place the last is seen.
        let seen =
            |(i, m): &(usize, &Mount<'_>)| m.kind == "cgroup2" && all[i + 1..].iter().all(|o| o.place != m.place);
        let seen: Vec<&Mount<'_>> = all.iter().enumerate().filter(seen).map(|(_, m)| m).collect();
        let writable = seen.iter().find(|m| !m.is_read_only());
        writable.or(seen.first()).map(|m| Self { mount: m.place.clone().into() })
    }
}

/// One line of a mountinfo text.
pub(crate) struct Mount<'a> {
    /// The file system's device, `major:minor`.
    pub(crate) device: &'a str,
    /// What of that file system is mounted.
    pub(crate) root: String,
    /// The mount point.
    pub(crate) place: String,
    /// Options of the mount itself, with commas.
    pub(crate) options: &'a str,
    /// The kind of file system.
    pub(crate) kind: &'a str,
}

impl Mount<'_> {
    fn is_read_only(&self) -> bool {
        self.options.split(',').any(|o| o == "ro")
    }
}

/// The mounts of a mountinfo text (proc_pid_mountinfo(5)).
pub(crate) fn mounts(text: &str) -> impl Iterator<Item = Mount<'_>> {
    text.lines().filter_map(|line| {
        let (mount, after) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(2);
        Some(Mount {
            device: words.next()?,
            root: unescape(words.next()?),
            place: unescape(words.next()?),
            options: words.next()?,
            kind: after.split(' ').next()?,
        })
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(b) => {
                out.push(char::from(b));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

/// One cgroup of ours.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// Its folder.
    pub path: PathBuf,
    /// Its id: the inode of the folder.
    pub id: u64,
    /// Its path below the root of the hierarchy.
    pub below: String,
}

/// What keeps a session's cgroup, in any process that inherited it.
#[derive(Debug)]
pub(crate) struct Held {
    /// While it is open, no other session reaps the cgroup.
    _lock: File,
    /// While it is open, systemd keeps the scope.
    _scope: Option<ChildStdin>,
    /// Why there is no scope, where systemd should have made one.
    pub(crate) no_scope: Option<String>,
}

impl Cgroup {
    /// Makes it and holds it.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub(crate) fn create(hierarchy: &Hierarchy, session: &str) -> Result<(Self, Held), GuardError> {
        let (path, scope, no_scope) = match scope::booted().then(|| scope::start(&hierarchy.mount, session)) {
            Some(Ok((path, kept))) => (path, Some(kept), None),
            Some(Err(why)) => (own_place(hierarchy, session), None, Some(why)),
            None => (own_place(hierarchy, session), None, None),
        };
        // A session that starts or ends beside this one may remove either folder until it is held.
        let mut tries = 1000;
        let held = loop {
            tries -= 1;
            match hold(&path) {
                Err(e) if tries > 0 && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => break result.map_err(GuardError::file("making the cgroup", &path))?,
            }
        };
        Ok((Self::open(&path, &hierarchy.mount)?, Held { _lock: held, _scope: scope, no_scope }))
    }

    fn open(path: &Path, mount: &Path) -> Result<Self, GuardError> {
        let id = fs::metadata(path).map_err(GuardError::file("reading", path))?.ino();
        let below = path.strip_prefix(mount).unwrap_or(path);
        Ok(Self { path: path.into(), id, below: format!("/{}", below.display()) })
    }

    /// The folder, for attaching programs.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn fd(&self) -> Result<File, GuardError> {
        File::open(&self.path).map_err(GuardError::file("opening", &self.path))
    }

    /// Moves the calling process in.
    ///
    /// # Errors
    /// As write(2).
    pub fn enter(path: &Path) -> io::Result<()> {
        fs::write(path.join("cgroup.procs"), "0")
    }

    /// The processes in it and below.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }

    /// Whether it was not removed, which only an empty one can be.
    #[must_use]
    pub(crate) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.id)
    }

    /// Whether any process is in it.
    #[must_use]
    pub fn populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|t| t.lines().any(|l| l == "populated 1"))
    }

    /// Waits until it is empty or the time is over; whether it is empty.
    #[must_use]
    pub fn wait_empty(&self, most: Duration) -> bool {
        let end = Instant::now() + most;
        let Ok(mut events) = File::open(self.path.join("cgroup.events")) else { return !self.populated() };
        loop {
            let mut text = String::new();
            let _ = io::Seek::rewind(&mut events);
            if events.read_to_string(&mut text).is_err() || !text.lines().any(|l| l == "populated 1") {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // kernfs wakes POLLPRI when the file changes.
            let timeout = PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
        }
    }

    /// Ends every process in it: `cgroup.kill` (Linux 5.14), else one by one until none is left.
    pub fn kill(&self) {
        if fs::write(self.path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for _ in 0..100 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for pid in processes {
                // The list was read from our own cgroup an instant ago; an ended process is a zombie until its
                // parent reaps it, so the number is not reused meanwhile.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }

    /// Removes it if it is empty; whether it is gone.
    #[must_use]
    pub fn remove(&self) -> bool {
        let gone = fs::remove_dir(&self.path).is_ok();
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent); // only the last session succeeds
        }
        gone
    }
}

/// Where a session's cgroup is without systemd.
fn own_place(hierarchy: &Hierarchy, session: &str) -> PathBuf {
    hierarchy.mount.join("trustrun").join(session)
}

/// Makes a folder and locks it, if it still is the same one then.
fn hold(path: &Path) -> io::Result<File> {
    fs::create_dir_all(path)?;
    let folder = File::open(path)?;
    folder.try_lock().map_err(io::Error::from)?;
    if fs::metadata(path)?.ino() == folder.metadata()?.ino() { Ok(folder) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The lock on a session's cgroup whose guard and processes are gone; none while any is there.
pub(crate) fn abandoned(path: &Path) -> Option<File> {
    let folder = File::open(path).ok()?;
    let populated = fs::read_to_string(path.join("cgroup.events")).is_ok_and(|t| t.contains("populated 1"));
    (!populated && folder.try_lock().is_ok()).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_in_hybrid_and_pure_mounts() {
        let hybrid = "30 23 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      31 23 0:27 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::parse(hybrid).unwrap().mount, Path::new("/sys/fs/cgroup/uni fied"));
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Hierarchy::parse(pure).unwrap().mount, Path::new("/sys/fs/cgroup"));
        assert_eq!(Hierarchy::parse("1 1 0:1 / /a rw - tmpfs cgroup2 rw\n"), None);
    }
}
