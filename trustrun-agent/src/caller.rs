//! Doing what the invoking user may do, and no more: output files under sudo.

use std::{
    env,
    ffi::CString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use nix::unistd::{Gid, Uid, User, geteuid, getgroups, initgroups, setegid, seteuid, setgroups};

/// The user behind sudo, where there is one: id and group.
pub(crate) fn behind_sudo() -> Option<(Uid, Gid)> {
    if !geteuid().is_root() {
        return None;
    }
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    Some((Uid::from_raw(number("SUDO_UID")?), Gid::from_raw(number("SUDO_GID")?))).filter(|(uid, _)| !uid.is_root())
}

/// Runs `action` with the credentials of the user behind sudo: root must not be talked into writing where that user
/// could not. The caller is single-threaded.
pub(crate) fn as_caller<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some((uid, gid)) = behind_sudo() else { return action() };
    let (own, groups) = (nix::unistd::getegid(), getgroups()?);
    let name = User::from_uid(uid).ok().flatten().and_then(|u| CString::new(u.name).ok());
    // Root's own groups may open what the user may not.
    let become_caller = || {
        name.map_or_else(|| setgroups(&[gid]), |name| initgroups(&name, gid))
            .and_then(|()| setegid(gid))
            .and_then(|()| seteuid(uid))
    };
    let result = become_caller().map_err(io::Error::from).and_then(|()| action());
    seteuid(Uid::from_raw(0))?;
    setegid(own)?;
    setgroups(&groups)?;
    result
}

/// Opens a file to write lines to: new or emptied, 0600, never through a link. A device or a pipe is written to.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    as_caller(|| {
        if kind(path)? == Kind::Other {
            return open(path);
        }
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
        let file = OpenOptions::new().write(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        // One that was there may have been readable by all.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
        Ok(file)
    })
}

#[derive(PartialEq, Eq)]
enum Kind {
    /// A file, or nothing yet.
    File,
    /// A device or a pipe.
    Other,
}

/// What is at `path`; a link or a folder is an error.
fn kind(path: &Path) -> io::Result<Kind> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Kind::File),
        found => found?.file_type(),
    };
    if found.is_symlink() {
        let why = "it is a symbolic link, which is not followed: name the file itself";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(if found.is_file() { Kind::File } else { Kind::Other })
}

/// Opens what is there and stays as it is.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

/// Replaces a file whole: written beside it, then renamed, so that nobody reads half of it. A device or a pipe is
/// written to, since root could else put a file in the place of `/dev/null`.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    as_caller(|| {
        if kind(path)? == Kind::Other {
            return open(path)?.write_all(bytes);
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = path.with_file_name(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&beside)
            .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("r.json"), dir.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for written in [replace(&link, b"no"), create(&link).map(drop), replace(dir.path(), b"no")] {
            assert!(written.is_err());
        }
        assert!(!path.exists() && fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(replace(&dir.path().join("no/r.json"), b"new").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing stays beside them");
        create(&path).unwrap();
        let m = fs::metadata(&path).unwrap();
        assert_eq!((m.len(), m.permissions().mode() & 0o7777), (0, 0o600));
    }

    #[test]
    fn a_device_is_written_to() {
        replace(Path::new("/dev/null"), b"gone").unwrap();
        create(Path::new("/dev/null")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
