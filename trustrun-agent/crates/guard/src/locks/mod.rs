//! The command's own locks under an enforcing policy.
//!
//! [`LOCKS`] is the one list: what each closes, and from which kernel on. [`survey`] says which of them this host can
//! hold, before anything is started; the child applies them and tells which it did (`Child::held`), so that a report
//! claims nothing that was only meant. An observing session has none: watching changes nothing.

mod capabilities;
mod landlock;
mod namespace;
mod run;
mod seccomp;
mod sockets;
mod stdio;

use std::path::PathBuf;

use nix::sys::prctl;

use crate::{GuardError, kernel};

#[cfg(feature = "ebpf")]
pub(crate) use namespace::leave_the_machines;
pub use stdio::{Stdio, stdio};

/// One lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// A short stable word.
    pub name: &'static str,
    /// What it closes, for a person.
    pub closes: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
}

/// The locks, in the order in which they are applied. Their places are the bits of [`Held`].
pub const LOCKS: [Lock; 11] = [
    Lock {
        name: "ordinary-user",
        closes: "what root can have others do: cron files, raw devices, the files of services",
        since: "any",
    },
    Lock {
        name: "descriptors",
        closes: "sockets and folders that were opened before the command: it inherits nothing but 0 to 2",
        since: "any",
    },
    Lock {
        name: "kernel-files",
        closes: "leaving the session's cgroup and taking its hooks away: kernel file systems are read-only",
        since: "2.6.26",
    },
    Lock {
        name: "private-run",
        closes: "services behind /run: container engines, D-Bus, name caches, systemd, agents that hold keys",
        since: "2.6.15",
    },
    Lock {
        name: "unix-sockets",
        closes: "services with a socket elsewhere in the file system: display, agents, databases, multiplexers",
        since: "3.3",
    },
    Lock {
        name: "capabilities",
        closes: "raw packets, kernel modules, other mounts, other network setups",
        since: "any",
    },
    Lock { name: "no-new-privs", closes: "becoming another user: sudo, su and other setuid programs", since: "3.5" },
    Lock {
        name: "other-processes",
        closes: "memory, sockets and files of processes outside, through ptrace's rights (Landlock)",
        since: "5.19",
    },
    Lock { name: "abstract-sockets", closes: "services with a socket that has no path (Landlock)", since: "6.12" },
    Lock {
        name: "signals",
        closes: "ending or stopping processes outside, trustrun's own too (Landlock)",
        since: "6.12",
    },
    Lock {
        name: "seccomp",
        closes: "packet, VM and other sockets past the hooks, io_uring, bpf, setns, mount, ptrace",
        since: "3.17",
    },
];

/// A lock that the guard holds from outside, for the session's whole cgroup, where this kernel runs programs as a security
/// module. It is none of [`LOCKS`]: few kernels do, and a session without it is told of what it would refuse.
pub const BORDER: Lock = Lock {
    name: "unix-border",
    closes: "unix sockets of processes outside, whenever they were made, both ways (BPF LSM)",
    since: "6.1",
};

/// Sockets where C libraries look users and groups up (SSSD, nslcd, systemd's user database). Without them a user of a
/// directory has no name, and git, ssh and Python fail. They answer for no host, and ask the machine's own directory
/// server for the names that they are given.
pub const USER_DATABASES: [&str; 3] = ["/var/lib/sss/pipes/nss", "/run/nslcd/socket", "/run/systemd/userdb"];

const USER: usize = 0;
const DESCRIPTORS: usize = 1;
const KERNEL_FILES: usize = 2;
const PRIVATE_RUN: usize = 3;
const UNIX_SOCKETS: usize = 4;
const CAPABILITIES: usize = 5;
const NO_NEW_PRIVS: usize = 6;
const PROCESSES: usize = 7;
const ABSTRACT: usize = 8;
const SIGNALS: usize = 9;
const SECCOMP: usize = 10;

/// Which locks of [`LOCKS`] are held: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held(pub u64);

impl Held {
    /// Whether the lock at this place of [`LOCKS`] is held.
    #[must_use]
    pub fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    fn add(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    /// The bits that stand for a lock; others say nothing.
    #[must_use]
    pub fn known(bits: u64) -> Self {
        Self(bits & ((1 << LOCKS.len()) - 1))
    }
}

/// Whom the locks are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// User that the command runs as.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Sockets, or folders with sockets, that the policy lets in: absolute paths.
    pub allowed: Vec<PathBuf>,
}

/// A lock, and why this host or session cannot hold it, if it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub lock: Lock,
    /// Why not, and what to do about it; none where it can be held.
    pub absent: Option<String>,
    /// Whether `--strict` does without it: nobody could hold it here, since the kernel is older than it or the command
    /// is root's. The session is not `contained` then, and the report says why.
    pub excused: bool,
}

/// Which locks can be held for this command on this host, in the order of [`LOCKS`]. Changes nothing.
#[must_use]
pub fn survey(subject: &Subject) -> Vec<Checked> {
    let domain = landlock::Domain::prepare();
    let root = nix::unistd::geteuid().is_root();
    let absent = |place: usize| match place {
        USER if subject.uid == 0 => Some("the command runs as root: name another user (--run-as USER)".into()),
        DESCRIPTORS => open_ways(),
        KERNEL_FILES | PRIVATE_RUN | CAPABILITIES if !root => Some("a mount namespace needs root".into()),
        UNIX_SOCKETS => unlocated(),
        PROCESSES => domain.as_ref().err().cloned(),
        ABSTRACT | SIGNALS => match &domain {
            Ok(domain) if domain.scoped => None,
            Ok(_) => Some("Landlock of this kernel has no scopes: Linux 6.12 has".into()),
            Err(why) => Some(why.clone()),
        },
        SECCOMP => seccomp::filters().err().map(|e| e.to_string()),
        _ => None,
    };
    let checked = (0..).zip(LOCKS).map(|(place, lock)| {
        let absent = absent(place);
        Checked { lock, excused: absent.is_some() && excused(place, subject), absent }
    });
    checked.collect()
}

/// Whether nobody could hold the lock for this command on this kernel.
fn excused(place: usize, subject: &Subject) -> bool {
    (place == USER && subject.uid == 0) || kernel::older_than(LOCKS[place].since)
}

/// A standard descriptor that leads past the locks.
fn open_ways() -> Option<String> {
    ["input", "output", "error"].iter().zip(stdio()).find_map(|(name, kind)| match kind {
        Stdio::Network => Some(format!("standard {name} is a network socket from outside: use a pipe or a file")),
        Stdio::Folder => Some(format!("standard {name} is a folder: use a pipe or a file")),
        Stdio::Plain | Stdio::Pipe | Stdio::Unix => None,
    })
}

fn unlocated() -> Option<String> {
    match sockets::locate() {
        Ok(located) => lost(&located),
        Err(e) => Some(format!("the kernel does not list unix sockets (CONFIG_UNIX_DIAG): {e}")),
    }
}

fn lost(located: &sockets::Located) -> Option<String> {
    let first = located.lost.first()?;
    let first = trustrun_model::Untrusted::new(first.to_string_lossy()).to_string();
    Some(format!("nobody can tell where {} sockets are, among them {first}", located.lost.len()))
}

/// What to do about a lock that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Every lock of the list that this kernel has, or the command is not started (`--strict`).
    All,
    /// Every lock that the survey found possible.
    Possible,
    /// Whatever holds (`--best-effort`).
    Some,
}

/// The locks of one child, made ready in the parent.
pub(crate) struct Locks {
    subject: Subject,
    wanted: Wanted,
    filters: seccomp::Filters,
    domain: Result<landlock::Domain, String>,
}

/// What is applied so far.
pub(crate) struct Applying<'a> {
    locks: &'a Locks,
    held: Held,
}

impl Locks {
    /// Makes them ready.
    ///
    /// # Errors
    /// If this processor is none that the filter is written for.
    pub(crate) fn prepare(subject: Subject, wanted: Wanted) -> Result<Self, GuardError> {
        Ok(Self { subject, wanted, filters: seccomp::filters()?, domain: landlock::Domain::prepare() })
    }

    /// In the child, while it is root: its own mounts, and no capability but the usual ones.
    ///
    /// # Errors
    /// Which wanted lock does not hold, for a person.
    pub(crate) fn as_root(&self) -> Result<Applying<'_>, String> {
        let mut a = Applying { locks: self, held: Held::default() };
        if self.subject.uid != 0 {
            a.held.add(USER);
        }
        let located = sockets::locate().map_err(|e| e.to_string());
        let apart = namespace::leave_the_machines().map_err(|e| e.to_string());
        let then =
            |step: &dyn Fn() -> std::io::Result<()>| apart.clone().and_then(|()| step().map_err(|e| e.to_string()));
        a.note(KERNEL_FILES, then(&namespace::seal_kernel_files))?;
        a.note(PRIVATE_RUN, then(&|| run::cover(&self.subject)))?;
        let masked = located.and_then(|located| {
            then(&|| sockets::mask(&located, &self.subject.allowed))?;
            Ok(lost(&located))
        });
        match masked {
            // The survey said so too, unless it came between: only who wants all is refused.
            Ok(Some(lost)) if self.wanted == Wanted::All => return Err(lost),
            Ok(Some(_)) => {}
            Ok(None) => a.held.add(UNIX_SOCKETS),
            Err(why) => a.note(UNIX_SOCKETS, Err(why))?,
        }
        a.note(CAPABILITIES, capabilities::drop_the_rest())?;
        Ok(a)
    }
}

impl Applying<'_> {
    /// In the child, after it became its user: what lasts for it and everyone it starts.
    ///
    /// # Errors
    /// Which wanted lock does not hold, for a person.
    pub(crate) fn into_user(mut self) -> Result<Held, String> {
        self.note(NO_NEW_PRIVS, prctl::set_no_new_privs().map_err(|e| e.to_string()))?;
        match &self.locks.domain {
            Ok(domain) => {
                let scoped = domain.scoped;
                let entered = domain.enter();
                let held = entered.is_ok();
                self.note(PROCESSES, entered)?;
                if held && scoped {
                    self.held.add(ABSTRACT);
                    self.held.add(SIGNALS);
                }
            }
            Err(why) if self.locks.wanted == Wanted::All && !excused(PROCESSES, &self.locks.subject) => {
                return Err(why.clone());
            }
            Err(_) => {}
        }
        self.note(SECCOMP, self.locks.filters.install())?;
        if open_ways().is_none() {
            self.held.add(DESCRIPTORS);
        }
        let missing = |place: usize| !self.held.has(place) && !excused(place, &self.locks.subject);
        match (0..).zip(LOCKS).find(|(place, _)| missing(*place)) {
            Some((_, missing)) if self.locks.wanted == Wanted::All => Err(format!("{} does not hold", missing.name)),
            _ => Ok(self.held),
        }
    }

    /// One lock's outcome.
    fn note(&mut self, place: usize, outcome: Result<(), String>) -> Result<(), String> {
        match outcome {
            Ok(()) => self.held.add(place),
            Err(_) if self.locks.wanted == Wanted::Some => {}
            Err(why) => return Err(format!("the lock {}: {why}", LOCKS[place].name)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lock_has_its_place() {
        let named: Vec<&str> = [
            USER,
            DESCRIPTORS,
            KERNEL_FILES,
            PRIVATE_RUN,
            UNIX_SOCKETS,
            CAPABILITIES,
            NO_NEW_PRIVS,
            PROCESSES,
            ABSTRACT,
            SIGNALS,
            SECCOMP,
        ]
        .map(|place| LOCKS[place].name)
        .into();
        let all: Vec<&str> = LOCKS.iter().map(|l| l.name).collect();
        assert_eq!(named, all);
        assert_eq!(
            named.join(" "),
            "ordinary-user descriptors kernel-files private-run unix-sockets capabilities no-new-privs other-processes \
             abstract-sockets signals seccomp"
        );
        assert_eq!(Held::known(u64::MAX).0.count_ones() as usize, LOCKS.len());
    }

    #[test]
    fn a_lock_that_this_kernel_does_not_have_yet_is_excused() {
        assert!(kernel::older_than("9999.0") && !kernel::older_than("2.6.26") && !kernel::older_than("any"));
        let root = survey(&Subject::default());
        assert!(root[USER].absent.is_some() && root[USER].excused);
        assert!(survey(&Subject { uid: 1000, ..Subject::default() }).iter().all(|c| c.absent.is_some() || !c.excused));
    }

    #[test]
    fn root_is_no_ordinary_user() {
        let absent = |uid| survey(&Subject { uid, ..Subject::default() })[USER].absent.is_some();
        assert!(absent(0) && !absent(1000));
    }
}
