//! The child's own locks under an enforcing policy: no new privileges, a container-like capability set, and seccomp
//! that lets no socket family through whose packets the cgroup hooks do not see.

use std::collections::BTreeMap;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::GuardError;

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

/// Compiles the filter, in the parent, so that the child only installs it.
///
/// # Errors
/// If this processor is none that the filter is written for.
pub(crate) fn filter() -> Result<BpfProgram, GuardError> {
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
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()), arch)
            .map_err(bad)?;
    BpfProgram::try_from(filter).map_err(bad)
}

/// Drops what the child must not have. Called in the child, after it became its user.
///
/// # Errors
/// What failed, for a person.
pub(crate) fn apply(filter: &BpfProgram) -> Result<(), String> {
    prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))?;
    seccompiler::apply_filter(filter).map_err(|e| format!("seccomp: {e}"))
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
