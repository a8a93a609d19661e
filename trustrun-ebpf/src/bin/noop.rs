//! What the benchmark compares with: programs on the same hooks that do nothing, and a maker of events.
//!
//! `generate` puts connections that never were on the ring buffer of a running session, counted as the session's own,
//! so that the road behind the kernel programs is measured with no network in front of it.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    helpers::bpf_ktime_get_boot_ns,
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, map, sock_ops, socket_filter},
    maps::{Array, PerCpuArray, RingBuf},
    programs::{SkBuffContext, SockAddrContext, SockContext, SockOpsContext},
};
use trustrun_common::{ACTION_ALLOW, FlowEvent, Header, Tuple, counter, kind, reason};

/// The session's, once the loader has put it here.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);
/// The session's, once the loader has put it here.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
/// The process that the events are said to be of; the next event's number; how many events one packet makes.
#[map]
static GENERATOR: Array<[u64; 3]> = Array::with_max_entries(1, 0);

/// Most events of one run.
const MOST: u64 = 256;

macro_rules! address_hook {
    ($name:ident) => {
        /// Allows.
        #[cgroup_sock_addr($name)]
        pub fn $name(_: SockAddrContext) -> i32 {
            1
        }
    };
}
address_hook!(connect4);
address_hook!(connect6);
address_hook!(sendmsg4);
address_hook!(sendmsg6);

macro_rules! packet_hook {
    ($name:ident) => {
        /// Allows.
        #[cgroup_skb($name)]
        pub fn $name(_: SkBuffContext) -> i32 {
            1
        }
    };
}
packet_hook!(egress);
packet_hook!(ingress);

macro_rules! socket_hook {
    ($name:ident) => {
        /// Allows.
        #[cgroup_sock($name)]
        pub fn $name(_: SockContext) -> i32 {
            1
        }
    };
}
socket_hook!(sock_create);
socket_hook!(sock_release);
socket_hook!(post_bind4);
socket_hook!(post_bind6);

/// Does nothing.
#[sock_ops]
pub fn sock_ops(_: SockOpsContext) -> u32 {
    1
}

/// Makes events for each packet of the socket that it is attached to.
#[socket_filter]
pub fn generate(_: SkBuffContext) -> i64 {
    let Some(state) = GENERATOR.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map value; one socket's packets come one after another.
    let [tgid, first, events] = unsafe { *state };
    let mut made = 0;
    for i in 0..MOST {
        if i >= events {
            break;
        }
        emit(tgid as u32, first + i);
        made += 1;
    }
    // SAFETY: as above.
    unsafe { (*state)[1] = first + made };
    0
}

/// Event `n`: a third each of opened, established and closed.
#[inline(always)]
fn emit(tgid: u32, n: u64) {
    count(counter::EMITTED);
    let Some(mut room) = EVENTS.reserve::<FlowEvent>(0) else {
        count(counter::RING_FULL);
        return;
    };
    let flow = n / 3;
    let kind = match n % 3 {
        0 => kind::OPENED,
        1 => kind::ESTABLISHED,
        _ => kind::CLOSED,
    };
    // SAFETY: the helper has no preconditions.
    let at = unsafe { bpf_ktime_get_boot_ns() };
    // No socket has such a cookie: they are counted from 1 on.
    let header = Header { kind, flags: 0, tgid, tid: tgid, uid: 0, at, cookie: flow | 1 << 62 };
    let mut peer = [0; 16];
    peer[10] = 0xff;
    peer[11] = 0xff;
    peer[12] = 203;
    peer[14] = 113;
    peer[15] = flow as u8;
    let tuple = Tuple {
        local: [0; 16],
        peer,
        sequence: 1,
        rule: u32::MAX,
        local_port: 40_000,
        peer_port: 443,
        protocol: 6,
        direction: 0,
        action: ACTION_ALLOW,
        reason: reason::DEFAULT,
    };
    room.write(FlowEvent { header, tuple, sent: 100, received: 1000 });
    room.submit(0);
}

#[inline(always)]
fn count(index: u32) {
    if let Some(p) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a valid, aligned pointer.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(p, 1) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// As the session's own programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
