//! Doing what the invoking user may do, and no more: output files under sudo.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::unistd::{Gid, Uid, geteuid, setegid, seteuid};

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
    let own = nix::unistd::getegid();
    setegid(gid)?;
    if let Err(e) = seteuid(uid) {
        setegid(own)?;
        return Err(e.into());
    }
    let result = action();
    seteuid(Uid::from_raw(0))?;
    setegid(own)?;
    result
}

/// Opens a file to write lines to: new or emptied, 0600, never through a link.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    as_caller(|| {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)
    })
}

/// Replaces a file whole: written beside it, then renamed, so that nobody reads half of it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    as_caller(|| {
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
