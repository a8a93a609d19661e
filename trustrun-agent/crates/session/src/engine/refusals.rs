//! What of the command met its own locks, so that a program which fails under an enforcing policy fails for a reason
//! that a person can read.
//!
//! A lock's refusal is an error code inside the program, which nobody else sees. What is seen is which programs ran and
//! how they ended: a setuid program without the rights of its file, or one that is known to need what a lock takes and
//! that ended with an error.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use trustrun_model::{LockState, Untrusted};

/// Most lines of one lock; more are alike.
const MOST: usize = 20;
/// S_ISUID, S_ISGID
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Programs that need what a lock takes: the lock, what it took, what to do.
const NEEDY: [(&[&str], &str, &str); 6] = [
    (
        &["strace", "ltrace", "gdb", "lldb", "rr", "gcore", "py-spy"],
        "seccomp",
        "ptrace is refused: trace it without trustrun, or under an observing policy (--observe)",
    ),
    (
        &["tcpdump", "dumpcap", "tshark", "wireshark", "arping", "nmap", "hping3"],
        "seccomp",
        "packet sockets are refused: run it outside, or under an observing policy (--observe)",
    ),
    (
        &[
            "mount",
            "umount",
            "bwrap",
            "unshare",
            "nsenter",
            "buildah",
            "podman",
            "runc",
            "crun",
            "apptainer",
            "singularity",
        ],
        "seccomp",
        "mounts and other namespaces are refused: run trustrun inside the container instead",
    ),
    (
        &["docker", "docker-compose", "nerdctl", "ctr", "crictl"],
        "private-run",
        "the engine's socket is hidden: what a container does is not seen; run trustrun inside the container instead",
    ),
    (
        &["systemctl", "systemd-run", "loginctl", "busctl", "dbus-send", "gdbus", "notify-send", "machinectl", "snap"],
        "private-run",
        "the sockets of systemd and D-Bus are hidden; a socket that it has to reach goes under `unix_sockets` of the policy",
    ),
    (
        &[
            "psql",
            "pg_dump",
            "mysql",
            "mariadb",
            "redis-cli",
            "ssh-add",
            "gpg",
            "tmux",
            "xdpyinfo",
            "xterm",
            "srun",
            "sbatch",
        ],
        "unix-sockets",
        "sockets of services are hidden; one that it has to reach goes under `unix_sockets` of the policy",
    ),
];

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Running programs that need something, by thread group.
    needy: BTreeMap<u32, usize>,
    /// Lines for each lock, and how often.
    lines: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Refusals {
    /// A process became a program.
    pub(crate) fn exec(&mut self, tgid: u32, uid: u32, exe: &str, argv: &[String]) {
        self.needy.remove(&tgid);
        let name = base(exe);
        // A script is its interpreter; its own name is the first or second argument.
        let names = [name].into_iter().chain(argv.iter().take(2).map(|a| base(a)));
        let found = names.into_iter().find_map(|n| NEEDY.iter().position(|(names, ..)| names.contains(&n)));
        if let Some(place) = found {
            self.needy.insert(tgid, place);
        }
        let Ok(file) = fs::metadata(exe) else { return };
        let setuid = file.mode() & SETUID != 0 && file.uid() != uid;
        if setuid || file.mode() & (SETGID | 0o010) == SETGID | 0o010 && uid != 0 {
            let kind = if setuid { "setuid" } else { "setgid" };
            let what = format!(
                "{} ran without the rights that its file gives ({kind}): run trustrun itself as the user you want, \
                 --run-as USER",
                Untrusted::new(name)
            );
            self.line("no-new-privs", what);
        }
    }

    /// A process ended.
    pub(crate) fn exit(&mut self, tgid: u32, status: i32, name: impl FnOnce() -> String) {
        let Some((_, lock, why)) = self.needy.remove(&tgid).and_then(|place| NEEDY.get(place)) else { return };
        if status != 0 {
            self.line(lock, format!("{} ended with an error; {why}", name()));
        }
    }

    /// One line of what a lock refused.
    pub(crate) fn line(&mut self, lock: &'static str, what: String) {
        let lines = self.lines.entry(lock).or_default();
        if lines.len() < MOST || lines.contains_key(&what) {
            *lines.entry(what).or_default() += 1;
        }
    }

    /// Adds what was met to the locks that held.
    pub(crate) fn tell(&self, locks: &mut [LockState]) {
        for lock in locks.iter_mut().filter(|l| l.held) {
            let lines = self.lines.get(lock.name.as_str()).into_iter().flatten();
            let times = |n: u64| if n > 1 { format!(" ({n} times)") } else { String::new() };
            lock.refused = lines.map(|(what, n)| format!("{what}{}", times(*n))).collect();
        }
    }
}

fn base(path: &str) -> &str {
    Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(refusals: &Refusals, name: &str) -> Vec<String> {
        let mut locks = [LockState { name: name.into(), held: true, ..LockState::default() }];
        refusals.tell(&mut locks);
        locks[0].refused.clone()
    }

    #[test]
    fn a_program_that_needs_what_a_lock_takes_is_named_when_it_fails() {
        let mut r = Refusals::default();
        r.exec(7, 1000, "/no/such/bin/strace", &["strace".into(), "ls".into()]);
        r.exec(8, 1000, "/no/such/bin/gdb", &[]);
        r.exec(9, 1000, "/no/such/bin/gdb", &[]);
        r.exec(9, 1000, "/no/such/bin/ls", &[]);
        r.exit(7, 0x100, || "strace".into());
        r.exit(8, 0, || "gdb".into());
        r.exit(9, 0x100, || "ls".into());
        let told = told(&r, "seccomp");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("strace ended with an error; ptrace is refused"), "{told:?}");
    }

    #[test]
    fn a_lock_that_did_not_hold_refused_nothing() {
        let mut r = Refusals::default();
        r.exec(7, 1000, "/no/such/bin/docker", &[]);
        r.exit(7, 9, || "docker".into());
        let mut locks = [LockState { name: "private-run".into(), ..LockState::default() }];
        r.tell(&mut locks);
        assert!(locks[0].refused.is_empty());
        assert_eq!(told(&r, "private-run").len(), 1);
    }
}
