//! Bytes that cross the session's border over a unix socket: raw tracepoint `sk_data_ready`, Linux 6.3
//! (<https://github.com/torvalds/linux/blob/v6.12/net/unix/af_unix.c#L1700>). A connect that a listener takes, and every
//! datagram or piece of a stream, wakes its receiver in the sender's own context, after it succeeded. So a lookup that
//! finds nobody is not told, the name is the receiver's own and not what a program claims, and no time lies between.
//! A socket belongs to the session if it was made in its cgroup; an accepted one counts as its client's.
//!
//! Sees every receiver of the host, TCP among them, and asks for the family first. What is read without being sent
//! for (a descriptor that waits in a socket that was given from outside) is not seen.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated},
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::RawTracePointContext,
};
use trustrun_common::{Config, MODE_OFF, UNIX_NAME, UnixEvent, UnixOffsets, UnixPeer, hook, kind};

use crate::{
    emit,
    hooks::process_exec::ours,
    maps::{config, hit},
};

const AF_UNIX: u16 = 1;

/// The offsets; none before the loader wrote them.
#[map]
static UNIX: Array<UnixOffsets> = Array::with_max_entries(1, 0);
/// What was told.
#[map]
static UNIX_TOLD: LruHashMap<UnixPeer, u8> = LruHashMap::with_max_entries(4096, 0);

/// Most levels of cgroups in which the session's is looked for. One that is deeper is not found, as the canary shows.
const DEEPEST: u32 = 64;

/// unix_peer
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn unix_peer(ctx: RawTracePointContext) -> i32 {
    let receiver: usize = ctx.arg(0);
    let Some(o) = UNIX.get(0) else { return 0 };
    // SAFETY: the helper checks every access.
    if unsafe { bpf_probe_read_kernel((receiver + o.family as usize) as *const u16) } != Ok(AF_UNIX) || o.ready == 0 {
        return 0;
    }
    let Some(config) = config() else { return 0 };
    if config.mode == MODE_OFF {
        return 0;
    }
    let sender = ours(config);
    if sender != in_session(receiver, o, config) {
        // Both ways, as the canary goes: so that a session that is not recognised is known.
        hit(config, if sender { hook::UNIX_PEER } else { hook::UNIX_VISIT });
        tell(receiver, o, !sender);
    }
    0
}

/// Whether a socket was made in the session's cgroup or below it. One that cannot be read was not.
#[inline(always)]
fn in_session(socket: usize, o: &UnixOffsets, config: &Config) -> bool {
    // SAFETY: the helper checks every access.
    let of = unsafe {
        bpf_probe_read_kernel((socket + o.cgroup as usize) as *const usize)
            .and_then(|cgroup| Ok((cgroup, bpf_probe_read_kernel((cgroup + o.level as usize) as *const u32)?)))
    };
    let Ok((cgroup, level)) = of else { return false };
    if o.depth != 0 {
        return level >= o.depth && ancestor(cgroup, o.depth, o) == Ok(config.cgroup);
    }
    // A path does not say how deep it is: in a cgroup namespace it begins at the namespace's own root. So the first
    // socket of the session tells, which is the canary's.
    for depth in 1..DEEPEST {
        if depth > level {
            break;
        }
        if ancestor(cgroup, depth, o) == Ok(config.cgroup) {
            if let Some(known) = UNIX.get_ptr_mut(0) {
                // SAFETY: a live map value; whoever writes it writes the same.
                unsafe { (*known).depth = depth }
            }
            return true;
        }
    }
    false
}

/// The id of a cgroup's ancestor (or itself) at a depth that is not below its own.
#[inline(always)]
fn ancestor(cgroup: usize, depth: u32, o: &UnixOffsets) -> Result<u64, i32> {
    // SAFETY: the helper checks every access.
    unsafe {
        let above = bpf_probe_read_kernel((cgroup + o.ancestors as usize + 8 * depth as usize) as *const usize)?;
        let node = bpf_probe_read_kernel((above + o.node as usize) as *const usize)?;
        bpf_probe_read_kernel((node + o.id as usize) as *const u64)
    }
}

#[inline(always)]
fn tell(receiver: usize, o: &UnixOffsets, incoming: bool) {
    let owner = emit::owner();
    let mut peer = UnixPeer {
        file: 0,
        own: 0,
        tgid: owner.tgid,
        incoming: incoming.into(),
        length: 0,
        device: 0,
        name: [0; UNIX_NAME],
    };
    // SAFETY: the helpers check every access; the name's length is masked to what it has room for.
    unsafe {
        if let Ok(address) = bpf_probe_read_kernel((receiver + o.address as usize) as *const usize)
            && let Ok(length) = bpf_probe_read_kernel((address + o.length as usize) as *const u32)
            && address != 0
        {
            // Less the family, which is in it.
            let length = length.wrapping_sub(2) & (UNIX_NAME as u32 - 1);
            let name = (address + o.name as usize) as *const _;
            if generated::bpf_probe_read_kernel((&raw mut peer.name).cast(), length, name) == 0 {
                peer.length = length;
            }
        }
        if let Ok(dentry) = bpf_probe_read_kernel((receiver + o.dentry as usize) as *const usize)
            && dentry != 0
            && let Ok(inode) = bpf_probe_read_kernel((dentry + o.inode as usize) as *const usize)
        {
            peer.file = bpf_probe_read_kernel((inode + o.number as usize) as *const u64).unwrap_or(0);
            if let Ok(above) = bpf_probe_read_kernel((inode + o.above as usize) as *const usize) {
                peer.device = bpf_probe_read_kernel((above + o.device as usize) as *const u32).unwrap_or(0);
            }
        }
        if let Ok(end) = bpf_probe_read_kernel((receiver + o.peer as usize) as *const usize)
            && end != 0
            && let Ok(socket) = bpf_probe_read_kernel((end + o.socket as usize) as *const usize)
            && socket != 0
        {
            let inode = socket + o.own as usize + o.number as usize;
            peer.own = bpf_probe_read_kernel(inode as *const u64).unwrap_or(0);
        }
        if UNIX_TOLD.get(&peer).is_some() {
            return;
        }
    }
    // Not told again if it does not fit; a record that is lost is counted all the same.
    let _ = UNIX_TOLD.insert(&peer, &1, 0);
    let header = emit::header(kind::UNIX, 0, owner, 0);
    let wake = emit::wake(&header);
    emit::record(UnixEvent { header, peer }, wake);
}
