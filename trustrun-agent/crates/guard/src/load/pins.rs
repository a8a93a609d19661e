//! Where links are pinned.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use crate::GuardError;

const BPFFS: &str = "/sys/fs/bpf";
/// Beside a session's pinned links: a link to its cgroup's folder.
const PLACE: &str = "cgroup";

/// The bpffs, mounted where there is none.
pub(super) fn bpffs() -> Result<PathBuf, GuardError> {
    let path = Path::new(BPFFS);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|l| {
        let mut words = l.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    });
    if !mounted {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
            .map_err(GuardError::system("mounting a bpffs at /sys/fs/bpf"))?;
    }
    Ok(path.into())
}

/// Notes where the session's cgroup is, first of all: whoever reaps finds by it whether the session lives.
pub(super) fn note_place(folder: &Path, cgroup: &Path) -> Result<(), GuardError> {
    let place = folder.join(PLACE);
    symlink(cgroup, &place).map_err(GuardError::file("making the link", &place))
}

/// Removes the pins of sessions whose guard and processes are gone; `alive` says which sessions are not, by their name and
/// their cgroup, where that was noted.
pub(crate) fn reap_pins(alive: impl Fn(&str, Option<PathBuf>) -> bool) {
    let Ok(folders) = fs::read_dir(Path::new(BPFFS).join("trustrun")) else { return };
    for folder in folders.flatten() {
        // An empty one was made an instant ago.
        let empty = fs::read_dir(folder.path()).is_ok_and(|mut inside| inside.next().is_none());
        let place = fs::read_link(folder.path().join(PLACE)).ok();
        if !empty && folder.file_name().to_str().is_some_and(|name| !alive(name, place)) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}
