//! What the kernel programs count, and the hooks by number and name.

/// Indices of `COUNTERS` (per-CPU array of u64).
pub mod counter {
    /// Events made, whether or not the ring had room.
    pub const EMITTED: u32 = 0;
    /// Events that the ring had no room for.
    pub const RING_FULL: u32 = 1;
    /// Bindings refused because `BINDINGS` or an address's slots were full.
    pub const BINDINGS_FULL: u32 = 2;
    /// Sockets not kept because `SOCKETS` was full.
    pub const SOCKETS_FULL: u32 = 3;
    /// UDP peers not kept because `DATAGRAMS` was full.
    pub const DATAGRAMS_FULL: u32 = 4;
    /// ClientHellos that could not be gathered because `GATHER` was full.
    pub const GATHER_FULL: u32 = 5;
    /// Answers that were not believed.
    pub const UNBELIEVED: u32 = 6;
    /// Answers with more records than are read.
    pub const RECORDS_CUT: u32 = 7;
    /// Listeners not kept because `LISTENERS` was full.
    pub const LISTENERS_FULL: u32 = 8;
    /// Egress packets that could not be read.
    pub const UNREADABLE: u32 = 9;
    /// Packets whose scratch memory was taken by another run of the program on the same CPU.
    pub const CLOBBERED: u32 = 10;
    /// Processes not kept because `TASKS` was full: one of them could leave the cgroup unseen.
    pub const TASKS_FULL: u32 = 11;
    /// Packets that were led elsewhere first (a source route), while only watching.
    pub const SOURCE_ROUTED: u32 = 12;
    /// 1 if the counters could not be read; set by the guard, not by a program.
    pub const UNREAD: u32 = 13;
    /// First of one counter for each hook, while `Config.counting`: [`HOOK`]` + hook`.
    pub const HOOK: u32 = 32;
    /// How many counters there are.
    pub const COUNT: u32 = 64;
}

/// The hooks, in the order of their counters and of [`HOOK_NAMES`].
pub mod hook {
    /// connect4
    pub const CONNECT4: u32 = 0;
    /// connect6
    pub const CONNECT6: u32 = 1;
    /// sendmsg4
    pub const SENDMSG4: u32 = 2;
    /// sendmsg6
    pub const SENDMSG6: u32 = 3;
    /// cgroup_skb egress
    pub const EGRESS: u32 = 4;
    /// cgroup_skb ingress
    pub const INGRESS: u32 = 5;
    /// sock_create
    pub const SOCK_CREATE: u32 = 6;
    /// sock_release
    pub const SOCK_RELEASE: u32 = 7;
    /// sockops
    pub const SOCKOPS: u32 = 8;
    /// post_bind4
    pub const POST_BIND4: u32 = 9;
    /// post_bind6
    pub const POST_BIND6: u32 = 10;
    /// sched_process_exec
    pub const EXEC: u32 = 11;
    /// sched_process_fork
    pub const FORK: u32 = 12;
    /// sched_process_exit
    pub const EXIT: u32 = 13;
    /// cgroup_attach_task
    pub const MOVED: u32 = 14;
    /// How many there are.
    pub const COUNT: u32 = 15;
    /// sk_data_ready: not every kernel has it, so it is none of those.
    pub const UNIX_PEER: u32 = COUNT;
    /// The same program, where somebody outside sends to a socket of the session.
    pub const UNIX_VISIT: u32 = COUNT + 1;
    /// unix_stream_connect: few kernels have it on.
    pub const UNIX_CONNECT: u32 = COUNT + 2;
    /// unix_may_send: as that.
    pub const UNIX_SEND: u32 = COUNT + 3;
}

/// Program names in the object, by [`hook`] number.
pub const HOOK_NAMES: [&str; hook::COUNT as usize] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "egress",
    "ingress",
    "sock_create",
    "sock_release",
    "sock_ops",
    "post_bind4",
    "post_bind6",
    "process_exec",
    "process_fork",
    "process_exit",
    "process_moved",
];
