//! What the conditions of a policy (`when`) mean on this host: executables to inodes, users to numbers, arguments to
//! hashes, the unit to yes or no. Found out before the session starts, by root, since the kernel compares nothing else.

mod files;

use std::{collections::BTreeMap, fs, os::fd::OwnedFd};

use trustrun_common::{Classing, FileKey, bytes_hash};
use trustrun_model::{Limit, Untrusted};
use trustrun_policy::{Classes, When};

use self::files::{Files, Writer};
use crate::Identity;

/// Why a condition cannot be followed here.
#[derive(Debug, thiserror::Error)]
pub enum ConditionError {
    /// No file matches.
    #[error("`when: {{exe: {}}}` matches no file on this host: write the path as `readlink -f` shows it, \
        or leave the rule out here", Untrusted::new(.glob))]
    NoFile {
        /// What was written.
        glob: String,
    },
    /// Too many files match, or stand beside those that do.
    #[error("`when: {{exe: {}}}` makes more than {limit} files to be looked at: write a narrower path", Untrusted::new(.glob))]
    TooManyFiles {
        /// What was written.
        glob: String,
        /// How many may be.
        limit: usize,
    },
    /// Not an absolute path.
    #[error("`when: {{exe: {}}}` is no absolute path: begin it with `/`", Untrusted::new(.glob))]
    NotAbsolute {
        /// What was written.
        glob: String,
    },
    /// No such user.
    #[error("`when: {{user: {}}}`: there is no such user on this host: write a name of `getent passwd`, or a number",
        Untrusted::new(.name))]
    NoUser {
        /// What was written.
        name: String,
    },
    /// Two ways of writing one thing.
    #[error("{} mean one and the same here, so that the rules' conditions cannot be told apart: write it in one way",
        .words.iter().map(|w| format!("`{}`", Untrusted::new(w))).collect::<Vec<_>>().join(" and "))]
    Same {
        /// What was written.
        words: Vec<String>,
    },
}

/// The conditions of one session, as the kernel's tables hold them.
#[derive(Debug)]
pub struct Conditions {
    pub(crate) classing: Classing,
    pub(crate) exes: Vec<(FileKey, u64)>,
    pub(crate) folders: Vec<(FileKey, u32)>,
    pub(crate) users: Vec<(u32, u64)>,
    pub(crate) arguments: Vec<(u64, u64)>,
    pub(crate) classes: Vec<(u64, u32)>,
    /// The executables, kept open, so that no other file gets their inode numbers.
    _held: Vec<OwnedFd>,
    /// What weakens them.
    pub limits: Vec<Limit>,
}

impl Conditions {
    /// Finds out what the conditions mean for a command that runs as `who` (the caller where that is none); none where
    /// there are no conditions. What cannot be followed is an error where the session enforces, and a limit where it
    /// does not: then the processes that it is about are not classified.
    ///
    /// # Errors
    /// As said.
    pub fn resolve(classes: &Classes, who: Option<&Identity>, enforce: bool) -> Result<Option<Self>, ConditionError> {
        let conditions = classes.conditions();
        if conditions.is_empty() {
            return Ok(None);
        }
        let all = u64::MAX.checked_shr(64u32.saturating_sub(conditions.len() as u32)).unwrap_or(0);
        let without = |key: fn(&When) -> &[String]| {
            (0..).zip(conditions).filter(|(_, when)| key(when).is_empty()).fold(0u64, |mask, (i, _)| mask | 1 << i)
        };
        let mut found = Self {
            classing: Classing {
                any_exe: without(|w| &w.exe),
                any_user: without(|w| &w.user),
                any_argument: without(|w| &w.argument),
                unit: without(|w| &w.unit) | units(classes),
                all,
                ..Classing::default()
            },
            exes: Vec::new(),
            folders: Vec::new(),
            users: Vec::new(),
            arguments: Vec::new(),
            classes: classes.masks().map(|(class, mask)| (mask, class.0.into())).collect(),
            _held: Vec::new(),
            limits: Vec::new(),
        };
        match found.look(classes, who) {
            Err(why) if enforce => return Err(why),
            Err(why) => {
                // Nobody is classified: what any class would get is told.
                found.classes.clear();
                found.limit(
                    "conditions-not-told",
                    format!("the conditions of the policy's rules cannot be told: {why}"),
                );
            }
            Ok(()) => {}
        }
        Ok(Some(found))
    }

    fn look(&mut self, classes: &Classes, who: Option<&Identity>) -> Result<(), ConditionError> {
        self.users = users(classes, self.classing.any_user)?;
        let arguments = words(classes, |w| &w.argument);
        self.arguments = arguments.iter().map(|(word, mask)| (bytes_hash(word.as_bytes()), *mask)).collect();
        let mut files = Files::new(self.classing.any_exe);
        let mut writers: BTreeMap<&str, String> = BTreeMap::new();
        let writer = Writer::new(who);
        for (glob, mask) in words(classes, |w| &w.exe) {
            if let Some(writable) = files.add(glob, mask, &writer)? {
                writers.insert(glob, writable);
            }
        }
        self.check(classes, &files)?;
        for (glob, path) in writers {
            let detail = format!(
                "the command's user can write {}, and so make any program one of `when: {{exe: {}}}`",
                Untrusted::new(path),
                Untrusted::new(glob)
            );
            self.limit("class-file-writable", detail);
        }
        if !arguments.is_empty() {
            self.limit(
                "class-argument",
                "any program can be started with the arguments that a rule's `when` asks for".to_owned(),
            );
        }
        (self.exes, self.folders, self._held) = files.into_tables();
        Ok(())
    }

    /// Sets of conditions that hold together though nobody thought they could: two paths of one file.
    fn check(&self, classes: &Classes, files: &Files) -> Result<(), ConditionError> {
        let c = &self.classing;
        let users = self.users.iter().map(|(_, mask)| *mask).chain([c.any_user]);
        for user in users {
            for (mask, words) in files.masks() {
                let holds = mask & user & c.any_argument & c.unit;
                if holds != 0 && classes.of(holds).0 == 0 {
                    return Err(ConditionError::Same { words });
                }
            }
        }
        Ok(())
    }

    fn limit(&mut self, kind: &str, detail: String) {
        self.limits.push(Limit { kind: kind.into(), detail });
    }
}

/// Each word of a key, with the conditions that have it.
fn words(classes: &Classes, key: fn(&When) -> &[String]) -> BTreeMap<&str, u64> {
    let mut words: BTreeMap<&str, u64> = BTreeMap::new();
    for (i, when) in (0..).zip(classes.conditions()) {
        for word in key(when) {
            *words.entry(word).or_default() |= 1 << i;
        }
    }
    words
}

fn users(classes: &Classes, any: u64) -> Result<Vec<(u32, u64)>, ConditionError> {
    let mut users: BTreeMap<u32, (u64, Vec<String>)> = BTreeMap::new();
    for (name, mask) in words(classes, |w| &w.user) {
        let user = Identity::find(name).map(|user| user.uid);
        // A number needs no name: containers' users have none.
        let uid =
            user.ok().or_else(|| name.parse().ok()).ok_or_else(|| ConditionError::NoUser { name: name.into() })?;
        let (known, words) = users.entry(uid).or_insert((any, Vec::new()));
        *known |= mask;
        words.push(name.into());
    }
    if let Some((_, (_, words))) = users.iter().find(|(_, (_, words))| words.len() > 1) {
        return Err(ConditionError::Same { words: words.clone() });
    }
    Ok(users.into_iter().map(|(uid, (mask, _))| (uid, mask)).collect())
}

/// The conditions whose unit is the one that this process was started in.
fn units(classes: &Classes) -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| unit_of(&text));
    let own = own.as_deref();
    let holds = |glob: &str| own.is_some_and(|unit| files::matches(glob, unit));
    words(classes, |w| &w.unit).into_iter().filter(|(glob, _)| holds(glob)).fold(0, |mask, (_, bits)| mask | bits)
}

/// The innermost unit of a `/proc/PID/cgroup`: that of systemd's own hierarchy.
fn unit_of(text: &str) -> Option<String> {
    let path = |prefix: &str| {
        text.lines().find_map(|line| line.split_once(prefix).filter(|(id, _)| id.bytes().all(|b| b.is_ascii_digit())))
    };
    let (_, path) = path(":name=systemd:").or_else(|| path("::"))?;
    let unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/').rev().find(unit).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost() {
        let v2 = "0::/system.slice/etl@1.service/sub\n";
        assert_eq!(unit_of(v2).as_deref(), Some("etl@1.service"));
        let hybrid = "5:memory:/a.service\n1:name=systemd:/user.slice/session-2.scope\n0::/\n";
        assert_eq!(unit_of(hybrid).as_deref(), Some("session-2.scope"));
        assert_eq!(unit_of("0::/\n"), None);
    }
}
