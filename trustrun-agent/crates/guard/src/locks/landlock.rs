//! Landlock: the command is a domain of its own. Processes outside are then out of its reach (their memory, descriptors
//! and, through `/proc/PID/root`, their view of the file system), and so are abstract sockets and, for signals,
//! everything outside, where the kernel can say so.
//!
//! No file and no port is restricted: who may be talked to is the hooks' matter, and a rule of Landlock knows a port and
//! no peer. See the decision record on the command's locks.

use landlock::{
    Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// A domain that the child enters.
pub(super) struct Domain {
    ruleset: RulesetCreated,
    /// Whether abstract sockets and signals are scoped (ABI 6, Linux 6.12), or only other processes guarded.
    pub(super) scoped: bool,
}

impl Domain {
    /// The strongest that this kernel has.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub(super) fn prepare() -> Result<Self, String> {
        if let Ok(ruleset) = scoped() {
            return Ok(Self { ruleset, scoped: true });
        }
        plain().map(|ruleset| Self { ruleset, scoped: false }).map_err(|e| {
            format!("this kernel has no Landlock of Linux 5.19 or later, or does not enable it (`lsm=`): {e}")
        })
    }

    /// Enters it, for good.
    ///
    /// # Errors
    /// What the kernel said, for a person.
    pub(super) fn enter(&self) -> Result<(), String> {
        let ruleset = self.ruleset.try_clone().map_err(|e| e.to_string())?;
        let status = ruleset.restrict_self().map_err(|e| e.to_string())?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

fn scoped() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(landlock::ABI::V6))?
        .create()
}

/// A domain needs something to handle. Renaming between folders is what every domain refuses unless it is allowed
/// (ABI 2), so that is handled, and allowed everywhere.
fn plain() -> Result<RulesetCreated, String> {
    let everywhere = PathFd::new("/").map_err(|e| e.to_string())?;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .and_then(Ruleset::create)
        .and_then(|r| r.add_rule(PathBeneath::new(everywhere, AccessFs::Refer)))
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// A domain is its thread's, so that the other tests are none the wiser.
    fn inside(domain: Domain, then: impl FnOnce() + Send + 'static) {
        let run = move || {
            domain.enter().unwrap();
            then();
        };
        thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_domain_takes_other_processes_away_and_no_file() {
        // Both kinds, since an older kernel has the second one alone.
        let scoped = scoped().map_err(|e| e.to_string()).map(|ruleset| Domain { ruleset, scoped: true });
        let plain = plain().map(|ruleset| Domain { ruleset, scoped: false });
        for domain in [scoped, plain] {
            let Ok(domain) = domain else {
                eprintln!("SKIPPED: this kernel has no such Landlock");
                continue;
            };
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_owned();
            let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            let root = format!("/proc/{}/root", other.id());
            assert!(fs::read_dir(&root).is_ok());
            inside(domain, move || {
                assert!(fs::read_dir(root).is_err(), "another process's view of the files");
                fs::create_dir(path.join("a")).unwrap();
                fs::create_dir(path.join("b")).unwrap();
                fs::write(path.join("a/f"), "x").unwrap();
                fs::rename(path.join("a/f"), path.join("b/f")).unwrap();
                fs::hard_link(path.join("b/f"), path.join("a/g")).unwrap();
                assert_eq!(fs::read_to_string(path.join("a/g")).unwrap(), "x");
            });
            let _ = other.kill();
            let _ = other.wait();
        }
    }
}
