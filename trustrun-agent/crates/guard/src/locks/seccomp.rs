//! The child's own locks under an enforcing policy: no new privileges, a container-like capability set, seccomp that
//! lets no socket family through whose packets the cgroup hooks do not see, and the kernel's own files read-only, so
//! that no process leaves its cgroup.

use std::{collections::BTreeMap, fs, io, path::Path};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::prctl,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::{GuardError, cgroup};

/// What a container keeps by default, without CAP_NET_RAW, CAP_SYS_CHROOT and CAP_MKNOD, which are ways out.
const KEPT: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// The child's system call filters.
pub(crate) struct Filters {
    refused: BpfProgram,
    unknown: BpfProgram,
}

/// Compiles the filters, in the parent, so that the child only installs it.
///
/// # Errors
/// If this processor is none that the filter is written for.
pub(crate) fn filter() -> Result<Filters, GuardError> {
    let bad = |e: seccompiler::BackendError| GuardError::Guard { reason: format!("seccomp filter: {e}") };
    let other_family = |family: i32| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.cast_unsigned()))
    };
    // AF_PACKET, AF_VSOCK, AF_XDP, AF_ALG and the rest carry bytes past the hooks or are nobody's need.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let conditions = families.into_iter().map(other_family).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let socket = vec![SeccompRule::new(conditions).map_err(bad)?];
    let always = Vec::new;
    let rules: BTreeMap<i64, Vec<SeccompRule>> = [
        (libc::SYS_socket, socket),
        (libc::SYS_io_uring_setup, always()),
        (libc::SYS_io_uring_enter, always()),
        (libc::SYS_io_uring_register, always()),
        (libc::SYS_bpf, always()),
        (libc::SYS_setns, always()),
        (libc::SYS_mount, always()),
        (libc::SYS_ptrace, always()),
    ]
    .into();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
    // EPERM: what a program expects from a system that does not let it. Another ABI's calls end the process.
    let refused = compile(rules, libc::EPERM, arch).map_err(bad)?;
    // clone3 can place a child in another cgroup (CLONE_INTO_CGROUP), and a filter cannot read its flags. "No such call"
    // is what container engines say, and C libraries then use clone.
    let unknown = compile([(libc::SYS_clone3, always())].into(), libc::ENOSYS, arch).map_err(bad)?;
    Ok(Filters { refused, unknown })
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}

/// Drops what the child must not have. Called in the child, after it became its user.
///
/// # Errors
/// What failed, for a person.
pub(crate) fn apply(filters: &Filters) -> Result<(), String> {
    prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))?;
    seccompiler::apply_filter(&filters.unknown)
        .and_then(|()| seccompiler::apply_filter(&filters.refused))
        .map_err(|e| format!("seccomp: {e}"))
}

/// Kinds of file systems through which root governs the kernel: cgroups (the way out of the session's own), pinned
/// programs (ours), and what needs no name here.
const SEALED_KINDS: [&str; 8] = ["cgroup", "cgroup2", "bpf", "sysfs", "securityfs", "debugfs", "tracefs", "configfs"];
/// As a container has them: writing here runs programs or changes the network for the whole machine.
const SEALED_PLACES: [&str; 2] = ["/proc/sys", "/proc/sysrq-trigger"];

/// Makes the kernel's own files read-only, in a mount namespace of the child's: root could else write itself into
/// another cgroup, whose connections no hook of this session sees. Who is not root could not in any case.
///
/// # Errors
/// What failed, for a person; never for a child that is not root.
pub(crate) fn seal_kernel_files(root: bool) -> Result<(), String> {
    let sealed = seal();
    if root { sealed.map_err(|e| format!("a mount namespace with read-only kernel files: {e}")) } else { Ok(()) }
}

fn seal() -> io::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts of the machine still arrive; nothing of ours gets out.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    for place in SEALED_PLACES.into_iter().filter(|p| Path::new(p).exists()) {
        mount(Some(place), place, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(none, place, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, none)?;
    }
    for m in cgroup::mounts(&fs::read_to_string("/proc/self/mountinfo")?) {
        if SEALED_KINDS.contains(&m.kind) {
            let kept = m.options.split(',').fold(MsFlags::empty(), |flags, word| flags | flag(word));
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
            match mount(none, m.place.as_str(), none, flags, none) {
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

/// Drops every capability that is not kept, while still root.
///
/// # Errors
/// What failed, for a person.
pub(crate) fn drop_capabilities() -> Result<(), String> {
    for cap in caps::all().into_iter().filter(|c| !KEPT.contains(c)) {
        // EINVAL: a capability that this kernel does not know.
        let _ = caps::drop(None, CapSet::Bounding, cap);
        let _ = caps::drop(None, CapSet::Inheritable, cap);
    }
    let kept = KEPT.into_iter().collect();
    // Effective first: it may never exceed what is permitted.
    caps::set(None, CapSet::Effective, &kept)
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept))
        .map_err(|e| format!("capabilities: {e}"))
}
