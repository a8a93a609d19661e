//! Where links are pinned.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use crate::GuardError;

const BPFFS: &str = "/sys/fs/bpf";

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

/// Removes the pins of sessions whose guard and processes are gone; `alive` says which sessions are not.
pub(crate) fn reap_pins(alive: impl Fn(&str) -> bool) {
    let Ok(folders) = fs::read_dir(Path::new(BPFFS).join("trustrun")) else { return };
    for folder in folders.flatten() {
        if folder.file_name().to_str().is_some_and(|name| !alive(name)) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}
