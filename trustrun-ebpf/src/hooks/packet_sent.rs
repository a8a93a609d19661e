//! Frames of packet sockets (AF_PACKET), which the cgroup's hooks do not see: raw tracepoint `net_dev_queue`, Linux 4.17
//! (<https://github.com/torvalds/linux/blob/v6.12/net/core/dev.c#L4407>), with a cgroup's ancestors as from 6.1. It
//! runs for every device of every network namespace, also those that come later, where a program of traffic control
//! would have to be put on each. For sessions that only watch, and whose command runs as root: an enforcing session
//! refuses such sockets.
//!
//! Sees every packet of the host. Cannot see frames past the queueing discipline (PACKET_QDISC_BYPASS), nor AF_XDP.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel,
    macros::{map, raw_tracepoint},
    maps::LruHashMap,
    programs::RawTracePointContext,
};
use trustrun_common::{ACTION_ALLOW, MODE_OFF, SocketState, kind, reason};

use crate::{emit, hooks::process_exec::ours, maps::config, sockets, unix};

const AF_PACKET: u16 = 17;

/// Sockets that were told.
#[map]
static PACKET_TOLD: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);

/// packet_sent
#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn packet_sent(ctx: RawTracePointContext) -> i32 {
    let packet: usize = ctx.arg(0);
    let Some(o) = unix::offsets() else { return 0 };
    // SAFETY: the helper checks every access.
    let socket = unsafe { bpf_probe_read_kernel((packet + o.packet_sock as usize) as *const usize) };
    let Ok(socket) = socket else { return 0 };
    // SAFETY: as above.
    if socket == 0 || unsafe { bpf_probe_read_kernel((socket + o.family as usize) as *const u16) } != Ok(AF_PACKET) {
        return 0;
    }
    let Some(config) = config() else { return 0 };
    let key = socket as u64;
    // SAFETY: only presence counts.
    if config.mode == MODE_OFF || unsafe { PACKET_TOLD.get(&key) }.is_some() || !unix::in_session(socket, o, config) {
        return 0;
    }
    // Not told again if it does not fit.
    let _ = PACKET_TOLD.insert(&key, &1, 0);
    // A frame that waited may be sent while another task runs.
    let owner = if ours(config) { emit::owner() } else { emit::NOBODY };
    let st = SocketState { action: ACTION_ALLOW, reason: reason::KIND, ..sockets::known(0, owner) };
    emit::flow(emit::header(kind::SOCKET, 0, owner, 0), emit::tuple(&st), AF_PACKET as u64, 0);
    0
}
