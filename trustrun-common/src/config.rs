//! The session's settings, as the loader writes them.

use core::mem::{offset_of, size_of};

/// The one element of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The session's cgroup id, for the tracepoints, which see the whole host.
    pub cgroup: u64,
    /// Shortest life of a binding.
    pub dns_grace: u64,
    /// `MODE_*`.
    pub mode: u32,
    /// The policy's default: `ACTION_*`.
    pub default_action: u32,
    /// IPv4 address (network order bytes as in memory) of the agent's DNS-over-TCP resolver; 0 where there is none.
    pub dns_tcp_v4: u32,
    /// Its port, host order.
    pub dns_tcp_port: u32,
    /// Port of the same on `::1`, host order; 0 where there is none.
    pub dns_tcp6_port: u32,
    /// `KIND_*` bits: unusual sockets that a rule lets be created.
    pub kinds: u32,
    /// 1 while each hook counts its runs, for the self-test.
    pub counting: u32,
    /// Not 0 if processes are classified (`Classing`).
    pub classes: u32,
    /// Not 0 if accepted connections are judged (`LISTEN_NETS`).
    pub listen: u32,
    /// Zero.
    pub pad: u32,
    /// Byte offsets in kernel structures, from this kernel's BTF.
    pub offsets: Offsets,
}

/// Byte offsets in kernel structures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.exit_code`
    pub task_exit_code: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `linux_binprm.filename`
    pub bprm_filename: u32,
    /// `linux_binprm.interp`
    pub bprm_interp: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`
    pub root_hierarchy: u32,
}

/// A rule speaks of ICMP, so ping and raw ICMP sockets may be created; their packets are judged by address.
pub const KIND_ICMP: u32 = 1;

/// Nothing is decided or told: before the session's tables are filled.
pub const MODE_OFF: u32 = 0;
/// Everything is told, nothing is refused.
pub const MODE_OBSERVE: u32 = 1;
/// Everything is told, and what the policy refuses is refused.
pub const MODE_ENFORCE: u32 = 2;

const _: () = {
    assert!(size_of::<Config>() == 96 && offset_of!(Config, offsets) == 56);
    assert!(size_of::<Offsets>() == 40);
};
