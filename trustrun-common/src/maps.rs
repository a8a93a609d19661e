//! Keys and values of the kernel maps, and the names that they are loaded under.

use core::mem::{offset_of, size_of};

use crate::Address;

/// Longest host name, RFC 1035 2.3.4 without the trailing dot.
pub const NAME_MAX: usize = 253;
/// Bytes of a key of `NAMES`: the name reversed, in lower case, then NUL for an exact name
/// (`moc.elpmaxe\0`) or `.` for everything below (`moc.elpmaxe.`).
pub const NAME_KEY: usize = 256;
/// Most sets of rules that are kept for one address (several names on it); see [`Binding`].
pub const BOUND_SETS: usize = 8;

/// Actions as the kernel sees them: `model::Action` plus one, so that zero means "no rule matched".
pub const ACTION_NONE: u8 = 0;
/// Let it through.
pub const ACTION_ALLOW: u8 = 1;
/// Let it through and record it.
pub const ACTION_ALERT: u8 = 2;
/// Refuse.
pub const ACTION_BLOCK: u8 = 3;
/// Refuse, then end the target.
pub const ACTION_KILL: u8 = 4;

/// Most domains of a search list that are known to the kernel programs; more are unheard of.
pub const SEARCH_MOST: u32 = 8;

/// Value of `SEARCH_LIST`: one domain of the target's search list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SearchName {
    /// Reversed, with the dot that goes before it: `tset.` for `test`.
    pub name: [u8; NAME_KEY],
    /// Its bytes, the dot among them; 0 where there is none.
    pub length: u32,
}

/// Value of `NAMES` (LPM trie, key `[u8; NAME_KEY]`): the rules that match a name. A node's set holds all rules that
/// match, those of shorter wildcards too, because a lookup returns only the longest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameValue {
    /// Set of rules, a key part of `PORTS`; never 0.
    pub set: u32,
    /// What becomes of a lookup of this name: `ACTION_*`, never none.
    pub ask: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Key of `PORTS` (LPM trie): set (big endian), protocol, port (big endian), zero. A prefix of 32 bits is "every
/// protocol", 40 "every port of it", up to 56 one port.
pub type PortKey = [u8; 8];

/// Builds a key of `PORTS`.
#[must_use]
pub const fn port_key(set: u32, protocol: u8, port: u16) -> PortKey {
    let (s, p) = (set.to_be_bytes(), port.to_be_bytes());
    [s[0], s[1], s[2], s[3], protocol, p[0], p[1], 0]
}

/// Value of `PORTS`: what the most severe rule of a set says about a protocol and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortValue {
    /// Index into the policy's rules, for the event.
    pub rule: u32,
    /// `ACTION_*`; none where the set says nothing about this port.
    pub action: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Value of `BINDINGS` (hash by address): what the target's believed DNS answers say about an address. Names that
/// the policy treats alike share a set, so few slots hold any number of names.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Sets of rules; 0 in a slot is "no rule matches that name" where `expires` is not 0.
    pub sets: [u32; BOUND_SETS],
    /// When each slot's binding ends; 0 is an empty slot.
    pub expires: [u64; BOUND_SETS],
}

/// Key of `BOUND_NAMES` (hash): that a name was answered with an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundName {
    /// The address.
    pub address: Address,
    /// [`crate::name_hash`] of the name that was asked.
    pub name: u64,
}

/// Key of `LISTENERS` (hash): a socket of the session that listens. Port in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenKey {
    /// The bound address; all zero for any (both families).
    pub address: Address,
    /// The port.
    pub port: u16,
    /// IPPROTO.
    pub protocol: u16,
    /// Zero.
    pub pad: u32,
}

/// Key of `PENDING` (LRU hash): a DNS query that this target sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingKey {
    /// The socket.
    pub cookie: u64,
    /// The resolver, as the program addressed it.
    pub server: Address,
    /// Its port.
    pub port: u16,
    /// The DNS message id.
    pub id: u16,
    /// Zero.
    pub pad: u32,
}

/// Value of `PENDING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingValue {
    /// [`crate::name_hash`] of the name asked.
    pub name: u64,
    /// The name's set of rules; 0 where none matches.
    pub set: u32,
    /// 1 if answers may be bound, 0 for a search-list expansion that is outside the policy.
    pub bind: u32,
}

/// Value of `SOCKETS` (hash by cookie): what was decided about a socket, before any address rewriting.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The peer of the last connect, or of the last datagram.
    pub peer: Address,
    /// Where it is bound, for a UDP socket that waits there; zero else.
    pub local: Address,
    /// Who connected last, or created the socket.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Counts the connections of this cookie, from 1; 0 before the first.
    pub sequence: u32,
    /// Rule index of the decision.
    pub rule: u32,
    /// Next TCP sequence number whose payload has not been looked at.
    pub next: u32,
    /// TCP payload bytes looked at so far.
    pub looked: u32,
    /// Where in the stream the message begins that is being gathered.
    pub base: u32,
    /// Zero.
    pub pad2: u32,
    /// Peer port.
    pub port: u16,
    /// IPPROTO; 1 for ICMP and so on.
    pub protocol: u8,
    /// `DIRECTION_*`.
    pub direction: u8,
    /// `ACTION_*`; none before the first decision.
    pub action: u8,
    /// `REASON_*`.
    pub reason: u8,
    /// `STAGE_*`: how far the reading of the first payload is.
    pub stage: u8,
    /// `SOCKET_*` bits.
    pub flags: u8,
    /// Local port, once known.
    pub local_port: u16,
    /// Zero.
    pub pad: u16,
    /// Transport payload bytes.
    pub sent: u64,
    /// Transport payload bytes.
    pub received: u64,
}

/// Begun by the target.
pub const DIRECTION_OUT: u8 = 0;
/// Accepted by the target.
pub const DIRECTION_IN: u8 = 1;

/// The grant of this connection rests on names, so a first payload must agree with one of them.
pub const SOCKET_BY_NAME: u8 = 1;
/// Some names bound to the address are refused: without a readable name it cannot be let through.
pub const SOCKET_NEEDS_NAME: u8 = 2;
/// Connected (TCP), or `connect(2)` was called on it (UDP).
pub const SOCKET_CONNECTED: u8 = 4;
/// A datagram was let through by sendmsg: the second lock lets rewritten addresses pass.
pub const SOCKET_SENDS: u8 = 8;
/// It sent to a resolver of the target: what it sends elsewhere without a decision must be a DNS query.
pub const SOCKET_RESOLVER: u8 = 16;
/// Loopback to a port where nobody listened: if somebody answers after all, it must be the session itself.
pub const SOCKET_NOBODY: u8 = 64;
/// A raw, ping or other unusual socket: each packet is judged by its address.
pub const SOCKET_UNUSUAL: u8 = 32;

/// Nothing was read yet.
pub const STAGE_FIRST: u8 = 0;
/// A ClientHello came in part.
pub const STAGE_HELLO: u8 = 1;
/// A SOCKS5 greeting was read; the request is to come.
pub const STAGE_SOCKS: u8 = 2;
/// Nothing more is read: the name was judged, or there is none to read.
pub const STAGE_DONE: u8 = 3;
/// A ClientHello was judged; a second one may follow (HelloRetryRequest) and may name somebody else.
pub const STAGE_SECOND: u8 = 4;

/// Key of `DATAGRAMS` (hash): one peer of a UDP socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramKey {
    /// The socket.
    pub cookie: u64,
    /// The peer.
    pub peer: Address,
    /// Its port.
    pub port: u16,
    /// Zero.
    pub pad: [u16; 3],
}

/// Value of `DATAGRAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramState {
    /// Transport payload bytes.
    pub sent: u64,
    /// Transport payload bytes.
    pub received: u64,
    /// Last datagram in either direction.
    pub seen: u64,
    /// Which of the cookie's connections this is.
    pub sequence: u32,
    /// Rule index.
    pub rule: u32,
    /// `ACTION_*`.
    pub action: u8,
    /// `REASON_*`.
    pub reason: u8,
    /// `DIRECTION_*`.
    pub direction: u8,
    /// 1 once the agent was told.
    pub told: u8,
    /// Owner.
    pub tgid: u32,
    /// Owner's thread.
    pub tid: u32,
    /// Owner's user.
    pub uid: u32,
}

/// The one element of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The session's cgroup id, for the tracepoints, which see the whole host.
    pub cgroup: u64,
    /// Shortest life of a binding.
    pub dns_grace: u64,
    /// The depth of the session's cgroup below the root of the hierarchy.
    pub level: u32,
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
    /// Hooks whose link was gone at the end; set by the guard, not by a program.
    pub const HOOKS_LOST: u32 = 12;
    /// 1 if the counters could not be read; set by the guard, not by a program.
    pub const UNREAD: u32 = 13;
    /// First of one counter for each hook: [`HOOK`]` + hook`.
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

const _: () = {
    assert!(size_of::<NameValue>() == 8 && offset_of!(NameValue, ask) == 4);
    assert!(size_of::<PortValue>() == 8 && offset_of!(PortValue, action) == 4);
    assert!(size_of::<Binding>() == 96 && offset_of!(Binding, expires) == 32);
    assert!(size_of::<BoundName>() == 24 && offset_of!(BoundName, name) == 16);
    assert!(size_of::<ListenKey>() == 24 && offset_of!(ListenKey, pad) == 20);
    assert!(size_of::<PendingKey>() == 32 && offset_of!(PendingKey, id) == 26);
    assert!(size_of::<PendingValue>() == 16 && offset_of!(PendingValue, bind) == 12);
    assert!(size_of::<SocketState>() == 96 && offset_of!(SocketState, port) == 68);
    assert!(offset_of!(SocketState, local_port) == 76 && offset_of!(SocketState, sent) == 80);
    assert!(size_of::<DatagramKey>() == 32 && offset_of!(DatagramKey, port) == 24);
    assert!(size_of::<DatagramState>() == 48 && offset_of!(DatagramState, tgid) == 36);
    assert!(size_of::<Config>() == 88 && offset_of!(Config, offsets) == 48);
    assert!(size_of::<Offsets>() == 40);
    assert!(size_of::<SearchName>() == 260 && offset_of!(SearchName, length) == 256);
};

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($t:ty),+) => { $(
            // SAFETY: repr(C), fixed-width integer fields and explicit padding only (asserted above), so every bit
            // pattern is a value and no byte is uninitialised.
            unsafe impl aya::Pod for $t {}
        )+ };
    }
    pod!(
        NameValue,
        SearchName,
        PortValue,
        Binding,
        BoundName,
        ListenKey,
        PendingKey,
        PendingValue,
        SocketState,
        DatagramKey,
        DatagramState,
        Config
    );
}
