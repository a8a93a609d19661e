//! Every map, and the small readers of the single-element ones.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, CgroupArray, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use trustrun_common::{
    Address, Binding, BoundName, Config, DatagramKey, DatagramState, ListenKey, MODE_ENFORCE, NAME_KEY, NameValue,
    NetValue, PendingKey, PendingValue, PortKey, PortValue, SEARCH_MOST, SearchName, SocketState, counter,
};

/// Names of the policy, reversed (`common::NameValue`).
#[map]
pub static NAMES: LpmTrie<[u8; NAME_KEY], NameValue> = LpmTrie::with_max_entries(1 << 20, 0);
/// The target's DNS search list, reversed with a trailing dot; the value is the suffix's length.
#[map]
pub static SEARCH: LpmTrie<[u8; NAME_KEY], u32> = LpmTrie::with_max_entries(32, 0);
/// The same, one by one.
#[map]
pub static SEARCH_LIST: Array<SearchName> = Array::with_max_entries(SEARCH_MOST, 0);
/// Networks of the policy: address to set of rules.
#[map]
pub static NETS: LpmTrie<Address, NetValue> = LpmTrie::with_max_entries(1 << 20, 0);
/// Networks of peers who connect to the command, of the policy's `listen` rules.
#[map]
pub static LISTEN_NETS: LpmTrie<Address, NetValue> = LpmTrie::with_max_entries(1 << 20, 0);
/// Addresses that are nobody's on the Internet: there a name's other set counts.
#[map]
pub static PRIVATE: LpmTrie<Address, u32> = LpmTrie::with_max_entries(64, 0);
/// What each set says about a protocol and port.
#[map]
pub static PORTS: LpmTrie<PortKey, PortValue> = LpmTrie::with_max_entries(1 << 20, 0);
/// Resolvers that the target is configured with, frozen at attach.
#[map]
pub static RESOLVERS: HashMap<Address, u32> = HashMap::with_max_entries(16, 0);

/// Plain hash, not LRU: when it is full new bindings are refused and counted; a flood evicts nothing allowed.
#[map]
pub static BINDINGS: HashMap<Address, Binding> = HashMap::with_max_entries(1 << 17, BPF_F_NO_PREALLOC);
/// Which names were answered with an address; the value is when the binding ends.
#[map]
pub static BOUND_NAMES: HashMap<BoundName, u64> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);
/// Queries waiting for their answer. LRU, since losing one only means that its answer binds nothing.
#[map]
pub static PENDING: LruHashMap<PendingKey, PendingValue> = LruHashMap::with_max_entries(1 << 14, 0);

/// Sockets by cookie. Its buckets, one for each possible entry, are a megabyte, which a processor's own cache holds: a
/// larger table costs each connect a tenth of a microsecond.
#[map]
pub static SOCKETS: HashMap<u64, SocketState> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);
/// UDP peers by cookie and address.
#[map]
pub static DATAGRAMS: HashMap<DatagramKey, DatagramState> = HashMap::with_max_entries(1 << 17, BPF_F_NO_PREALLOC);
/// Where sockets of the session listen; the value is how many do.
#[map]
pub static LISTENERS: HashMap<ListenKey, u64> = HashMap::with_max_entries(1 << 12, BPF_F_NO_PREALLOC);
/// Whether any socket of the session ever listened at a port of this bucket: mostly none did, and nothing need be looked
/// up.
#[map]
static LISTEN_PORTS: Array<u32> = Array::with_max_entries(LISTEN_BUCKETS, 0);
const LISTEN_BUCKETS: u32 = 4096;
/// First payloads that came in part.
#[map]
pub static GATHER: HashMap<u64, Gathered> = HashMap::with_max_entries(512, BPF_F_NO_PREALLOC);

/// The session's cgroup, for the tracepoints.
#[map]
pub static SESSION: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// Thread groups of the session, to know one that leaves its cgroup; the value is the class of each (`classify`).
#[map]
pub static TASKS: HashMap<u32, u8> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// To the agent. The loader may change its size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 23, 0);
/// `common::counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
/// One element.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// Programs that `egress` goes on in, each with a stack and a verifier's budget of its own: see [`JUMP_FIRST`].
#[map]
pub static JUMPS: ProgramArray = ProgramArray::with_max_entries(3, 0);
/// The same for `ingress`, whose attach type is another: from Linux 6.18 on one array holds programs of one only.
#[map]
pub static JUMPS_IN: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// `egress_first`
pub const JUMP_FIRST: u32 = 0;
/// `egress_query`
pub const JUMP_QUERY: u32 = 1;
/// `egress_other`
pub const JUMP_OTHER: u32 = 2;
/// `ingress_answer`
pub const JUMP_ANSWER: u32 = 0;

/// Most bytes of a first payload that are gathered from pieces.
pub const GATHER_MAX: usize = 8192;

/// The beginning of a stream.
#[repr(C)]
pub struct Gathered {
    /// The bytes; how many is in `SocketState.looked`.
    pub bytes: [u8; GATHER_MAX],
}

/// The session's settings; none before the loader wrote them, which a zeroed array never is.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Whether refusals are carried out.
#[inline(always)]
pub fn enforcing(config: &Config) -> bool {
    config.mode == MODE_ENFORCE
}

/// Notes that somebody listens at a port.
#[inline(always)]
pub fn note_listener(port: u16) {
    if let Some(p) = LISTEN_PORTS.get_ptr_mut(port as u32 & (LISTEN_BUCKETS - 1)) {
        // SAFETY: a live map value; it is only ever set.
        unsafe { *p = 1 }
    }
}

/// Whether anybody may listen at a port; false is certain.
#[inline(always)]
pub fn may_listen(port: u16) -> bool {
    LISTEN_PORTS.get(port as u32 & (LISTEN_BUCKETS - 1)).is_some_and(|p| *p != 0)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(p) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a valid, aligned pointer. Atomic, since another run may preempt this one on the same CPU; the result
        // is unused, so that it compiles to the plain atomic add that every kernel knows.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(p, 1) };
    }
}

/// Counts a run of a hook (`common::hook`) for the self-test.
#[inline(always)]
pub fn hit(config: &Config, hook: u32) {
    if config.counting != 0 {
        count(counter::HOOK + hook);
    }
}

/// Adds to a byte count that other CPUs add to as well.
#[inline(always)]
pub fn add(p: *mut u64, n: u64) {
    // SAFETY: callers pass an aligned field of a live map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(p, n) };
}
