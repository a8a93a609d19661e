//! The mount namespace: the lab's own resolver configuration and certificates over those of the machine.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::namespace::{joined, refused};
use crate::error::LabError;

/// Where glibc finds a name service cache, which would answer a lookup past the lab's resolver. (systemd-resolved is
/// asked only where nsswitch.conf says so, and resolv.conf may be a link into its folder: that one stays.)
const CACHE_DAEMON: &str = "/run/nscd";
/// Where distributions keep the bundle of trusted authorities, for programs whose environment was cleaned.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The files that are mounted, in the lab's folder.
#[derive(Clone, Debug)]
pub(crate) struct EtcFiles {
    folder: PathBuf,
}

impl EtcFiles {
    /// Writes them into `folder`, readable by everyone.
    pub(crate) fn write(folder: &Path, resolv_conf: &str, ca_pem: &str) -> Result<Self, LabError> {
        let files = Self { folder: folder.to_owned() };
        let denied = |path: &Path| {
            let path = path.to_owned();
            move |source| LabError::File { what: "write", path, source }
        };
        let empty = files.empty();
        fs::create_dir(&empty).map_err(denied(&empty))?;
        let hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
        for (name, text) in [
            ("resolv.conf", resolv_conf),
            ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"),
            ("hosts", hosts),
            ("ca.pem", ca_pem),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(denied(&path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(denied(&path))?;
        }
        Ok(files)
    }

    /// The certificate of the lab's authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Rewrites resolv.conf in place: the mounted file is the same inode.
    pub(crate) fn set_resolv_conf(&self, text: &str) -> io::Result<()> {
        fs::write(self.folder.join("resolv.conf"), text)
    }

    fn empty(&self) -> PathBuf {
        self.folder.join("empty")
    }

    /// What goes over what. A missing place is skipped, but for resolv.conf.
    fn mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        let mut list: Vec<(PathBuf, PathBuf)> = ["resolv.conf", "nsswitch.conf", "hosts"]
            .iter()
            .map(|name| (self.folder.join(name), Path::new("/etc").join(name)))
            .collect();
        list.extend(BUNDLES.iter().map(|place| (self.ca(), PathBuf::from(place))));
        list.push((self.empty(), CACHE_DAEMON.into()));
        list
    }
}

/// A mount namespace of our own.
#[derive(Clone, Debug)]
pub(crate) struct MountNs {
    fd: Arc<OwnedFd>,
}

impl MountNs {
    /// Makes it. Mounts of the machine still arrive inside (slave propagation); nothing of the lab gets out.
    pub(crate) fn create(files: &EtcFiles) -> Result<Self, LabError> {
        let list = files.mounts();
        joined(thread::Builder::new().name("lab-mntns".into()).spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(|e| refused("mount namespace", e))?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(|e| LabError::File {
                what: "make private",
                path: "/".into(),
                source: e.into(),
            })?;
            for (source, target) in &list {
                bind(source, target)?;
            }
            let fd = File::open("/proc/thread-self/ns/mnt")
                .map_err(|source| LabError::Namespace { what: "open its mount namespace", source })?;
            Ok(Self { fd: Arc::new(fd.into()) })
        }))
    }

    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Moves the calling thread inside, for good, with a root and working folder of its own.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let here = std::env::current_dir();
        unshare(CloneFlags::CLONE_FS)?;
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNS)?;
        here.and_then(std::env::set_current_dir)
    }
}

fn bind(source: &Path, target: &Path) -> Result<(), LabError> {
    let none: Option<&str> = None;
    // mount(2) follows links too; canonical, so that an error names the real place.
    let place = match fs::canonicalize(target) {
        Ok(place) => place,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !target.ends_with("resolv.conf") => return Ok(()),
        Err(source) => return Err(LabError::File { what: "find", path: target.into(), source }),
    };
    mount(Some(source), &place, none, MsFlags::MS_BIND, none).map_err(|e| LabError::File {
        what: "mount over",
        path: target.into(),
        source: e.into(),
    })
}
