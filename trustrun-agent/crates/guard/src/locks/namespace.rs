//! The command's mount namespace: what of the kernel is read-only in it.

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::cgroup;

/// Kinds of file systems through which root governs the kernel: cgroups (the way out of the session's own), pinned
/// programs (ours), and what needs no name here.
const SEALED_KINDS: [&str; 8] = ["cgroup", "cgroup2", "bpf", "sysfs", "securityfs", "debugfs", "tracefs", "configfs"];
/// As a container has them: writing here runs programs or changes the network for the whole machine.
const SEALED_PLACES: [&str; 2] = ["/proc/sys", "/proc/sysrq-trigger"];

const NONE: Option<&str> = None;

/// A mount namespace of the command's own: mounts of the machine still arrive, nothing of ours gets out. And message
/// queues, semaphores and shared memory (System V) of its own, which processes outside could otherwise be asked through.
pub(crate) fn leave_the_machines() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
    Ok(mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?)
}

/// Makes the kernel's own files read-only: root could else write itself into another cgroup, whose connections no hook
/// of this session sees.
pub(super) fn seal_kernel_files() -> io::Result<()> {
    for place in SEALED_PLACES.into_iter().filter(|p| Path::new(p).exists()) {
        mount(Some(place), place, NONE, MsFlags::MS_BIND, NONE)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(NONE, place, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, NONE)?;
    }
    for m in cgroup::mounts(&fs::read_to_string("/proc/self/mountinfo")?) {
        if SEALED_KINDS.contains(&m.kind) {
            let kept = m.options.split(',').fold(MsFlags::empty(), |flags, word| flags | flag(word));
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
            match mount(NONE, m.place.as_str(), NONE, flags, NONE) {
                // Hidden under another mount: nobody reaches it by its path.
                Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// What a remount would lose if it were not said again.
fn flag(word: &str) -> MsFlags {
    match word {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    }
}
