//! What crossed the session's border over a unix socket: who did it, to whom, and whether the policy lets it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use trustrun_guard::locks::BORDER;
use trustrun_model::{ProcessId, Untrusted};

use super::Engine;

/// A file: the device as the kernel numbers it (12 bits of major and 20 of minor number), and the inode's number.
type FileId = (u32, u64);

/// Unix sockets that are nobody's secret: told as limits before the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// What the policy lets in: absolute paths of sockets, or of folders with sockets.
    pub allowed: Vec<PathBuf>,
    /// The files that were there at the start.
    pub files: Vec<FileId>,
    /// Inode numbers of the sockets that the command was given as standard descriptors.
    pub stdio: Vec<u64>,
}

impl Doors {
    /// The doors of these paths, as they are now.
    #[must_use]
    pub fn new(allowed: Vec<PathBuf>, stdio: Vec<u64>) -> Self {
        Self { files: allowed.iter().flat_map(|p| files(p)).collect(), allowed, stdio }
    }

    /// Whether the policy lets a socket in: by its file. A name proves nothing, since it is whatever the service said
    /// when it bound it, perhaps with another root.
    fn lets(&self, file: FileId) -> bool {
        file.1 != 0 && (self.files.contains(&file) || self.allowed.iter().any(|a| files(a).contains(&file)))
    }
}

/// The file at a path, and those in it if it is a folder.
fn files(path: &Path) -> Vec<FileId> {
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    below.chain([path.to_owned()]).filter_map(|p| fs::metadata(p).ok()).map(|m| (device(m.dev()), m.ino())).collect()
}

/// From user space's encoding of a device number to the kernel's own.
fn device(dev: u64) -> u32 {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    u32::try_from((major << 20) | (minor & 0xf_ffff)).unwrap_or(0)
}

impl Engine {
    /// What went over it cannot be seen: a gap, unless it was said before.
    pub(super) fn unix(&mut self, process: ProcessId, incoming: bool, name: &str, (file, own): (FileId, u64)) {
        if (own != 0 && self.judge.doors.stdio.contains(&own)) || (!incoming && self.judge.doors.lets(file)) {
            return;
        }
        let who = self.processes.name(process.tgid);
        self.ledger.gap("unix-socket-outside", 1, || {
            let name =
                if name.is_empty() { "a unix socket without a name".into() } else { Untrusted::new(name).to_string() };
            if incoming {
                format!(
                    "{name}, a socket of the session, was sent to by a process outside, which cannot be seen: {who}"
                )
            } else {
                format!("{name}, a socket of a process outside, was reached, and what it does cannot be seen: by {who}")
            }
        });
    }

    /// No byte went over it: the lock says what it refused.
    pub(super) fn unix_refused(&mut self, process: ProcessId, incoming: bool, name: &str) {
        let who = self.processes.name(process.tgid);
        let name =
            if name.is_empty() { "a unix socket without a name".into() } else { Untrusted::new(name).to_string() };
        self.refusals.line(
            BORDER.name,
            if incoming {
                format!("a process outside came to {name}, a socket of the session, and was refused: {who}")
            } else {
                format!(
                    "{name}, a socket of a process outside, was refused to {who}; one that it has to reach goes under \
                     `unix_sockets` of the policy"
                )
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_let_in_by_its_file_and_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let bind = || std::os::unix::net::UnixListener::bind(&path).unwrap();
        let id = || fs::metadata(&path).map(|m| (device(m.dev()), m.ino())).unwrap();
        let _first = bind();
        let first = id();
        for allowed in [folder.path().to_owned(), path.clone()] {
            let doors = Doors::new(vec![allowed], Vec::new());
            assert!(doors.lets(first));
            assert!(!doors.lets((first.0, 0)) && !doors.lets((first.0 + 1, first.1)) && !doors.lets((0, 0)));
        }
        let doors = Doors::new(vec![path.clone()], Vec::new());
        fs::rename(&path, folder.path().join("old")).unwrap();
        let _second = bind();
        assert!(doors.lets(id()), "a service that began anew");
        assert!(doors.lets(first), "and what was there at the start");
    }
}
