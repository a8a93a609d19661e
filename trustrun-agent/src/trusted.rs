//! Whose policies count.
//!
//! Run by root, a policy is a word of root's: it counts only if nobody else could have written it, or could put another
//! in its place. So its owner, its mode, and every folder and link on the way to it are looked at. Under sudo the user
//! who ran it may say so as well as root: the policy on their own command line is their word, and the report names the
//! file, its owner and its digest. Whoever else the command runs as (`--run-as`) may not.
//!
//! The file is opened once, and what was opened is what is asked about, read and hashed.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User, geteuid};
use trustrun_model::{PolicyFile, Untrusted};
use trustrun_policy::{Opened, Opener, PolicyError, sha256};

use crate::caller;

/// Most links on one path, as path_resolution(7).
const LINKS: u32 = 40;
/// S_IWGRP and S_IWOTH.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// S_ISVTX: only its owner may rename or remove a file in such a folder.
const STICKY: u32 = 0o1000;

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// It cannot be read, or is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Somebody else could have written it, or put it there.
    #[error(transparent)]
    NotOurs(Box<NotOurs>),
    /// Another file was there when it was looked at again.
    #[error("the policy {policy} was exchanged while it was opened: find out who did it, then run it again")]
    Exchanged {
        /// The file, as it was named, fit to be shown.
        policy: Untrusted<String>,
    },
}

/// What somebody else could have changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the policy {policy} does not count: {what} {path} is owned by {owner} and has mode {mode:04o}, wanted {wanted}; {help}"
)]
pub(crate) struct NotOurs {
    /// The file, as it was named, fit to be shown.
    policy: Untrusted<String>,
    /// The file, or a folder or link that leads to it.
    what: &'static str,
    /// Where that is, fit to be shown.
    path: Untrusted<String>,
    /// Name and number.
    owner: String,
    /// Its permissions.
    mode: u32,
    /// Who may own it and write to it.
    wanted: String,
    /// A command.
    help: String,
}

/// Opens the files of a session's policy, the extended ones too, and remembers whose they are.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// Each file, as it was read.
    pub(crate) files: Vec<PolicyFile>,
    /// Whether the user behind sudo has no say: nobody named these files on a command line.
    root_alone: bool,
}

impl Counting {
    /// For settings, and for the policies that they name.
    pub(crate) fn of_settings() -> Self {
        Self { files: Vec::new(), root_alone: true }
    }
}

impl Opener for Counting {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let name = path.to_string_lossy().into_owned();
        let unreadable = |e| PolicyError::unreadable(&name, e);
        let (file, hidden) = match caller::as_caller(|| File::open(path)) {
            // Under sudo a policy that only root may read counts, but its text is not that user's to see.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && caller::behind_sudo().is_some() => {
                (File::open(path).map_err(unreadable)?, true)
            }
            opened => (opened.map_err(unreadable)?, false),
        };
        let found = file.metadata().map_err(unreadable)?;
        if geteuid().is_root() {
            let trust = if self.root_alone { Trust { invoker: None } } else { Trust::now() };
            let checked = trust.check(path, &file, &found);
            checked.map_err(|error| match error {
                TrustError::Policy(error) => error,
                other => PolicyError::NotTaken(Box::new(other)),
            })?;
        }
        let octets = trustrun_policy::read_file(&name, file)?;
        let file = PolicyFile { path: name, owner: found.uid(), sha256: sha256(&octets) };
        if !self.files.contains(&file) {
            self.files.push(file);
        }
        Ok(Opened { octets, hidden, identity: Some(identity(&found)) })
    }
}

/// Opens files to say what is in them, with the rights of the user behind sudo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looking;

impl Opener for Looking {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let name = path.to_string_lossy();
        let unreadable = |e| PolicyError::unreadable(&name, e);
        let file = caller::as_caller(|| File::open(path)).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        Ok(Opened { octets: trustrun_policy::read_file(&name, file)?, hidden: false, identity: Some(identity(&found)) })
    }
}

/// A pipe that is read twice is empty the second time, and by its inode known to be the same.
fn identity(found: &Metadata) -> String {
    format!("{}:{}", found.dev(), found.ino())
}

/// Who is trusted to say what counts.
struct Trust {
    /// The user behind sudo.
    invoker: Option<u32>,
}

/// Something that somebody else could change.
struct Fault {
    what: &'static str,
    path: PathBuf,
    found: Metadata,
}

impl Trust {
    fn now() -> Self {
        Self { invoker: caller::behind_sudo().map(|(uid, _)| uid.as_raw()) }
    }

    fn check(&self, path: &Path, file: &File, found: &Metadata) -> Result<(), TrustError> {
        let name = path.to_string_lossy();
        let policy = || Untrusted::new(name.clone().into_owned());
        if !self.holds(found, false) {
            let fault = Fault { what: "the file", path: path.into(), found: found.clone() };
            return Err(self.error(policy(), &fault));
        }
        if !in_a_folder(file) {
            return Ok(());
        }
        let walked = self.walk(path).map_err(|e| PolicyError::unreadable(&name, e))?;
        match walked {
            Err(fault) => Err(self.error(policy(), &fault)),
            Ok(end) if (end.dev(), end.ino()) == (found.dev(), found.ino()) => Ok(()),
            Ok(_) => Err(TrustError::Exchanged { policy: policy() }),
        }
    }

    /// Goes the way to a file, and looks at each folder and link before it goes on through it; what is at the end.
    fn walk(&self, path: &Path) -> io::Result<Result<Metadata, Fault>> {
        let mut way = words(&std::path::absolute(path)?);
        let mut links = LINKS;
        let mut at = PathBuf::from("/");
        let mut here = fs::symlink_metadata(&at)?;
        while let Some(word) = way.pop_front() {
            if !self.holds(&here, true) {
                return Ok(Err(Fault { what: "the folder", path: at, found: here }));
            }
            if word == ".." {
                at.pop(); // which holds no link
                here = fs::symlink_metadata(&at)?;
                continue;
            }
            let next = at.join(&word);
            let found = fs::symlink_metadata(&next)?;
            if !found.is_symlink() {
                (at, here) = (next, found);
                continue;
            }
            if !self.owns(found.uid()) {
                return Ok(Err(Fault { what: "the link", path: next, found }));
            }
            links = links.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ELOOP))?;
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
                here = fs::symlink_metadata(&at)?;
            }
            let mut longer = words(&target);
            longer.append(&mut way);
            way = longer;
        }
        Ok(Ok(here))
    }

    fn owns(&self, uid: u32) -> bool {
        uid == 0 || Some(uid) == self.invoker
    }

    /// Whether only those who are trusted can change it.
    fn holds(&self, found: &Metadata, folder: bool) -> bool {
        let (mode, uid) = (found.mode(), found.uid());
        let group = mode & GROUP_WRITES != 0 && !private_group(uid, found.gid());
        let shared = group || mode & OTHERS_WRITE != 0;
        self.owns(uid) && (!shared || (folder && mode & STICKY != 0))
    }

    fn error(&self, policy: Untrusted<String>, fault: &Fault) -> TrustError {
        let mode = fault.found.mode() & 0o7777;
        let also = self.invoker.map(|uid| format!(" or {}, who ran sudo", user(uid))).unwrap_or_default();
        let shown = Untrusted::new(fault.path.to_string_lossy().into_owned());
        let help = match (self.owns(fault.found.uid()), fault.what) {
            (true, _) => format!("`chmod go-w {shown}`"),
            (false, "the link") => "name the file that it leads to".to_owned(),
            (false, "the folder") => "put the policy in a folder of root's, such as /etc/trustrun".to_owned(),
            (false, _) => format!("look at what it says, then `chown root:root {shown}`"),
        };
        let wrong = NotOurs {
            policy,
            what: fault.what,
            path: shown,
            owner: user(fault.found.uid()),
            mode,
            wanted: format!("root{also}, and that nobody else may write to it"),
            help,
        };
        TrustError::NotOurs(Box::new(wrong))
    }
}

/// Name and number of a user, for people.
fn user(uid: u32) -> String {
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| Untrusted::new(u.name).to_string());
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// The user's own group, as most distributions make one for each: of the same name, with nobody else in it. An umask of
/// 0002 then shares a file with nobody.
fn private_group(uid: u32, gid: u32) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(Some(group)) = Group::from_gid(Gid::from_raw(gid)) else { return false };
    user.gid == group.gid && user.name == group.name && group.mem.iter().all(|m| *m == user.name)
}

/// Whether the file has a place in a folder: a pipe, such as a shell's `<(…)`, has none.
fn in_a_folder(file: &File) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.map_or(true, |l| l.into_os_string().into_vec().starts_with(b"/"))
}

fn words(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(word) => Some(word.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The invoker is whoever runs the tests, so that they need no root.
    fn trust() -> Trust {
        Trust { invoker: Some(geteuid().as_raw()) }
    }

    fn fault(path: &Path) -> Option<(&'static str, PathBuf)> {
        trust().walk(path).unwrap().err().map(|f| (f.what, f.path))
    }

    #[test]
    fn whoever_can_write_a_folder_on_the_way_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("inner"), dir.path().join("inner/p.yaml"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(fault(&file), None);
        assert_eq!(fault(&dir.path().join("inner/../inner/./p.yaml")), None);
        mode(dir.path(), 0o777);
        assert_eq!(fault(&file), Some(("the folder", dir.path().into())), "not only the last folder");
        mode(dir.path(), 0o1777);
        assert_eq!(fault(&file), None, "sticky: nobody else may replace what is in it");
        mode(&inner, 0o702);
        assert_eq!(fault(&file), Some(("the folder", inner)));
    }

    #[test]
    fn links_are_followed_and_both_ends_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (open, shut) = (dir.path().join("open"), dir.path().join("shut"));
        for folder in [&open, &shut] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(shut.join("p.yaml"), "").unwrap();
        fs::write(open.join("p.yaml"), "").unwrap();
        symlink("../shut/p.yaml", open.join("there")).unwrap();
        symlink(open.join("p.yaml"), shut.join("back")).unwrap();
        symlink(&open, dir.path().join("folder")).unwrap();
        assert_eq!(fault(&open.join("there")), None);
        mode(&open, 0o777);
        let found = Some(("the folder", fs::canonicalize(&open).unwrap()));
        assert_eq!(fault(&open.join("there")), found, "where the link is");
        assert_eq!(fault(&shut.join("back")), found, "where it leads to");
        assert_eq!(fault(&dir.path().join("folder/p.yaml")), found);
        symlink("loop", shut.join("loop")).unwrap();
        assert_eq!(trust().walk(&shut.join("loop")).err().unwrap().raw_os_error(), Some(nix::libc::ELOOP));
    }
}
