//! The command's own `/run`: a new, empty one, with what programs need and what is nobody's proxy.
//!
//! Services listen there: container engines, D-Bus, the name service cache, systemd, agents that hold keys. What they
//! do for the command is their traffic, which no hook of the session sees. So nothing is there unless it is named here
//! or by the policy (`unix_sockets`).

use std::{
    env,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::Subject;

/// What programs need of it: locks, who is logged in, mounted media, credentials, device names, and where some
/// distributions keep their programs (NixOS). Sockets in these are masked like those elsewhere.
const KEPT: [&str; 13] = [
    "lock",
    "utmp",
    "mount",
    "media",
    "secrets",
    "credentials",
    "udev/data",
    "resolvconf",
    "netconfig",
    "current-system",
    "booted-system",
    "opengl-driver",
    "wrappers",
];
/// Files of `/etc` that may be links into it: the resolver's configuration is one on most machines.
const LINKED: [&str; 7] = ["resolv.conf", "hosts", "nsswitch.conf", "localtime", "hostname", "machine-id", "krb5.conf"];
/// What else the resolver's configuration is read from, next to what `/etc/resolv.conf` is a link to.
const RESOLVER: [&str; 4] = [
    "systemd/resolve/resolv.conf",
    "systemd/resolve/stub-resolv.conf",
    "NetworkManager/resolv.conf",
    "NetworkManager/no-stub-resolv.conf",
];

const NONE: Option<&str> = None;

/// Where `/run` is, and `/var/run` where that is another folder.
pub(super) fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = ["/run", "/var/run"].iter().filter_map(|p| fs::canonicalize(p).ok()).collect();
    places.dedup();
    places
}

/// Covers it, in the calling process's mount namespace.
///
/// # Errors
/// If something cannot be mounted, or the working folder is not there any more.
pub(super) fn cover(subject: &Subject) -> io::Result<()> {
    let places = places();
    let Some(run) = places.first() else { return Ok(()) };
    let here = env::current_dir().ok();
    let kept = kept(run, subject);
    let links = links(run)?;
    mount(Some("trustrun"), run, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755,size=10%"))?;
    for (at, to) in links {
        symlink(to, at)?;
    }
    runtime_folder(run, subject)?;
    for (at, original) in kept {
        bind(&at, &original)?;
    }
    for other in places.iter().skip(1) {
        mount(Some(run), other, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    }
    // A working folder in the old one would lead around the new one.
    match here {
        Some(here) if places.iter().any(|p| here.starts_with(p)) => env::set_current_dir(&here).map_err(|e| {
            let here = trustrun_model::Untrusted::new(here.to_string_lossy()).to_string();
            io::Error::new(e.kind(), format!("the working folder {here} is not in the command's own /run ({e})"))
        }),
        _ => Ok(()),
    }
}

/// What is let in: each path and the thing itself, opened, so that it is still there when it is covered.
fn kept(run: &Path, subject: &Subject) -> Vec<(PathBuf, File)> {
    let own = format!("user/{}/krb5cc", subject.uid);
    let named = KEPT.iter().chain(&RESOLVER).copied().chain([own.as_str()]).map(|name| run.join(name));
    let linked = LINKED.iter().map(|name| Path::new("/etc").join(name));
    let allowed = subject.allowed.iter().cloned();
    let found = named.chain(linked).chain(allowed).filter_map(|path| fs::canonicalize(path).ok());
    let mut found: Vec<PathBuf> = found.filter(|path| path.starts_with(run) && path != run).collect();
    // Folders before what is in them, which is there with them.
    found.sort();
    found.dedup_by(|path, folder| path.starts_with(folder));
    let open = |path: PathBuf| {
        let original = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).ok()?;
        Some((path, original))
    };
    found.into_iter().filter_map(open).collect()
}

/// Links at its top: they are names and no sockets.
fn links(run: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let entries = fs::read_dir(run)?.flatten();
    Ok(entries.filter_map(|e| Some((e.path(), fs::read_link(e.path()).ok()?))).collect())
}

/// XDG_RUNTIME_DIR: it must be there, the user's own and writable; what was in the old one are mostly sockets.
fn runtime_folder(run: &Path, subject: &Subject) -> io::Result<()> {
    let users = run.join("user");
    folder(&users)?;
    let own = users.join(subject.uid.to_string());
    folder(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    chown(&own, Some(subject.uid), Some(subject.gid))
}

/// A folder that all may read, whatever the umask; one that is there stays as it is.
fn folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Mounts the opened thing at a path of the new one, with what is mounted below it.
fn bind(at: &Path, original: &File) -> io::Result<()> {
    let mut above: Vec<&Path> = at.ancestors().skip(1).take_while(|p| !p.exists()).collect();
    above.reverse();
    above.into_iter().try_for_each(folder)?;
    if original.metadata()?.is_dir() {
        folder(at)?;
    } else {
        File::create(at)?;
    }
    let original = format!("/proc/self/fd/{}", original.as_raw_fd());
    Ok(mount(Some(original.as_str()), at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?)
}
