//! System calls that are refused: no socket family whose packets the cgroup hooks do not see, and no call that changes
//! which files, processes or kernel programs there are.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::GuardError;

/// Calls that are refused whatever their arguments: those that reach the network past the hooks, leave the session,
/// take descriptors of other processes, or change what is mounted (what hides sockets is a mount).
const REFUSED: [i64; 19] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
];

/// The command's system call filters.
pub(super) struct Filters {
    refused: BpfProgram,
    unknown: BpfProgram,
}

/// Compiles the filters, in the parent, so that the child only installs them.
///
/// # Errors
/// If this processor is none that the filter is written for.
pub(super) fn filters() -> Result<Filters, GuardError> {
    let bad = |e: seccompiler::BackendError| GuardError::Guard { reason: format!("seccomp filter: {e}") };
    let other_family = |family: i32| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.cast_unsigned()))
    };
    // AF_PACKET, AF_VSOCK, AF_XDP, AF_ALG and the rest carry bytes past the hooks or are nobody's need.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let conditions = families.into_iter().map(other_family).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let is = |argument, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    let all = |conditions: Vec<_>| {
        conditions.into_iter().collect::<Result<Vec<_>, _>>().and_then(SeccompRule::new).map_err(bad)
    };
    // Of netlink's protocols the one that anybody may use to talk to another process outside.
    let talk = all(vec![is(0, libc::AF_NETLINK as u64), is(2, libc::NETLINK_USERSOCK as u64)])?;
    let socket = vec![SeccompRule::new(conditions).map_err(bad)?, talk];
    // The terminal's input: the shell that started the session would execute what is pushed into it.
    let ioctl = [libc::TIOCSTI, libc::TIOCLINUX].into_iter().map(|request| all(vec![is(1, request)]));
    let ioctl = ioctl.collect::<Result<Vec<_>, _>>()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, socket);
    rules.insert(libc::SYS_ioctl, ioctl);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
    // EPERM: what a program expects from a system that does not let it. Another ABI's calls end the process.
    let refused = compile(rules, libc::EPERM, arch).map_err(bad)?;
    // clone3 can place a child in another cgroup (CLONE_INTO_CGROUP), and a filter cannot read its flags. "No such call"
    // is what container engines say, and C libraries then use clone.
    let unknown = compile([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS, arch).map_err(bad)?;
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

impl Filters {
    /// Installs them, for good. Needs no_new_privs.
    pub(super) fn install(&self) -> Result<(), String> {
        seccompiler::apply_filter(&self.unknown)
            .and_then(|()| seccompiler::apply_filter(&self.refused))
            .map_err(|e| e.to_string())
    }
}
