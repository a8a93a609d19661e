//! What stands between the command and the world besides the hooks: its own locks, and what it is given from outside.

use std::{fmt::Write as _, path::PathBuf};

use trustrun_guard::locks::{self, Stdio, Subject, Wanted, stdio};
use trustrun_model::{Limit, LockState};

use crate::commands::run::{
    inherited,
    plan::{Plan, RunError},
};

const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];

impl Plan {
    /// Looks at the locks and at the standard descriptors.
    ///
    /// # Errors
    /// If an enforcing session would be left by what the command is given, or `--strict` wants a lock that this host
    /// cannot hold.
    pub(super) fn look_at_doors(&mut self) -> Result<(), RunError> {
        let ways: Vec<(&str, Stdio)> = NAMES.into_iter().zip(stdio()).collect();
        if !self.enforce {
            let network = ways.iter().filter(|(_, kind)| *kind == Stdio::Network);
            self.from_outside = network.map(|(name, _)| from_outside(name)).chain(inherited::sockets()).collect();
            return Ok(());
        }
        if self.args.best_effort {
            let open = ways.iter().filter(|(_, kind)| matches!(kind, Stdio::Network | Stdio::Folder));
            self.from_outside = open.map(|(name, _)| from_outside(name)).collect();
        } else if let Some((name, kind)) = ways.iter().find(|(_, k)| matches!(k, Stdio::Network | Stdio::Folder)) {
            let kind = if *kind == Stdio::Folder { "a folder" } else { "a network socket" };
            return Err(RunError::Outside { name, kind });
        }
        let surveyed = locks::survey(&self.subject());
        let mut missing = String::new();
        for checked in surveyed.iter().filter(|c| self.args.strict && !c.excused) {
            if let Some(why) = &checked.absent {
                let _ = write!(missing, "\n  {}: {why}", checked.lock.name);
            }
        }
        self.surveyed = surveyed.into_iter().map(state).collect();
        if !missing.is_empty() {
            return Err(RunError::Locks { missing });
        }
        Ok(())
    }

    /// What the child takes upon itself.
    pub(super) fn locks(&self) -> Option<(Subject, Wanted)> {
        let wanted = match (self.args.strict, self.args.best_effort) {
            (true, _) => Wanted::All,
            (_, true) => Wanted::Some,
            _ => Wanted::Possible,
        };
        self.enforce.then(|| (self.subject(), wanted))
    }

    fn subject(&self) -> Subject {
        let own = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let (uid, gid) = self.identity.as_ref().map_or(own, |i| (i.uid, i.gid));
        Subject { uid, gid, allowed: self.allowed_sockets() }
    }

    /// What the policy names, and where users are looked up.
    pub(super) fn allowed_sockets(&self) -> Vec<PathBuf> {
        self.named_sockets().into_iter().chain(user_databases()).collect()
    }

    fn named_sockets(&self) -> Vec<PathBuf> {
        self.policy.iter().flat_map(|p| p.unix_sockets.iter().cloned()).collect()
    }

    /// Unix sockets that the command may reach, and that it was given.
    #[cfg(feature = "ebpf")]
    pub(super) fn known_sockets(&self) -> trustrun_session::Doors {
        use std::os::unix::fs::MetadataExt as _;
        let sockets = (0..3).zip(stdio()).filter(|(_, kind)| *kind == Stdio::Unix);
        let inode = |(fd, _)| std::fs::metadata(format!("/proc/self/fd/{fd}")).ok().map(|m| m.ino());
        trustrun_session::Doors::new(self.allowed_sockets(), sockets.filter_map(inode).collect())
    }

    /// What leads around an enforcing session by the operator's own choice.
    pub(super) fn doors(&self) -> Vec<Limit> {
        let limit = |kind: &str, detail: String| Limit { kind: kind.into(), detail };
        let others = NAMES.into_iter().zip(stdio()).filter(|(_, kind)| matches!(kind, Stdio::Pipe | Stdio::Unix));
        let others: Vec<&str> = others.map(|(name, _)| name).collect();
        let mut out: Vec<Limit> = self.conditions.iter().flat_map(|c| c.limits.iter().cloned()).collect();
        if !others.is_empty() {
            let detail = format!(
                "{} lead to processes outside: what is written there goes where they take it",
                others.join(", ")
            );
            out.push(limit("outside-stdio", detail));
        }
        let databases: Vec<String> = user_databases().map(|p| p.to_string_lossy().into_owned()).collect();
        if !databases.is_empty() {
            let detail = format!(
                "users and groups are looked up at {}: a directory server may be asked for whatever name is given",
                databases.join(", ")
            );
            out.push(limit("user-database", detail));
        }
        let allowed = self.named_sockets();
        if self.enforce && !allowed.is_empty() {
            let allowed: Vec<_> = allowed.iter().map(|p| p.to_string_lossy()).collect();
            let detail = format!(
                "the policy lets the command reach {}: what those services do for it is their traffic",
                allowed.join(", ")
            );
            out.push(limit("allowed-sockets", detail));
        }
        out
    }
}

fn user_databases() -> impl Iterator<Item = PathBuf> {
    locks::USER_DATABASES.iter().map(PathBuf::from).filter(|p| p.exists())
}

fn from_outside(name: &str) -> String {
    format!("{name} was opened outside the session: what goes through it cannot be seen")
}

fn state(checked: locks::Checked) -> LockState {
    LockState {
        name: checked.lock.name.into(),
        closes: checked.lock.closes.into(),
        held: checked.absent.is_none(),
        reason: checked.absent,
        refused: Vec::new(),
    }
}
