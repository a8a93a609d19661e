//! Unix sockets: whose they are, what is told of them, which are let in. For `unix_peer` and `unix_border`.
//!
//! A socket belongs to the session if it was made in its cgroup; an accepted one counts as its client's.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::{bpf_probe_read_kernel, generated},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use trustrun_common::{Config, UNIX_DOORS_MOST, UNIX_NAME, UnixDoor, UnixEvent, UnixOffsets, UnixPeer, kind};

use crate::emit;

/// Most levels of cgroups in which the session's is looked for. One that is deeper is not found, as the canary shows.
const DEEPEST: u32 = 64;

/// The offsets; none before the loader wrote them.
#[map]
static UNIX: Array<UnixOffsets> = Array::with_max_entries(1, 0);
/// What was told.
#[map]
static UNIX_TOLD: LruHashMap<UnixPeer, u8> = LruHashMap::with_max_entries(4096, 0);
/// Files of sockets, and folders with such, that the policy lets in.
#[map]
static UNIX_DOORS: HashMap<UnixDoor, u8> = HashMap::with_max_entries(UNIX_DOORS_MOST, BPF_F_NO_PREALLOC);

/// Where this kernel has what is read here.
#[inline(always)]
pub fn offsets() -> Option<&'static UnixOffsets> {
    UNIX.get(0).filter(|o| o.ready != 0)
}

/// Whether a socket was made in the session's cgroup or below it. One that cannot be read was not.
#[inline(always)]
pub fn in_session(socket: usize, o: &UnixOffsets, config: &Config) -> bool {
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

/// The directory entry of a socket's file, where it has one.
#[inline(always)]
fn entry(socket: usize, o: &UnixOffsets) -> Option<usize> {
    // SAFETY: the helper checks every access.
    let entry = unsafe { bpf_probe_read_kernel((socket + o.dentry as usize) as *const usize) };
    entry.ok().filter(|e| *e != 0)
}

/// The file of a directory entry. Zeroes are none.
#[inline(always)]
fn file(entry: usize, o: &UnixOffsets) -> UnixDoor {
    let mut door = UnixDoor { file: 0, device: 0, pad: 0 };
    // SAFETY: the helper checks every access.
    unsafe {
        if let Ok(inode) = bpf_probe_read_kernel((entry + o.inode as usize) as *const usize)
            && inode != 0
        {
            door.file = bpf_probe_read_kernel((inode + o.number as usize) as *const u64).unwrap_or(0);
            if let Ok(above) = bpf_probe_read_kernel((inode + o.above as usize) as *const usize) {
                door.device = bpf_probe_read_kernel((above + o.device as usize) as *const u32).unwrap_or(0);
            }
        }
    }
    door
}

/// Whether the policy lets a socket in: by its file, or by the folder that it is in. A name proves nothing.
#[inline(always)]
pub fn let_in(socket: usize, o: &UnixOffsets) -> bool {
    let Some(entry) = entry(socket, o) else { return false };
    // SAFETY: only presence counts; the helper checks every access.
    unsafe {
        if UNIX_DOORS.get(&file(entry, o)).is_some() {
            return true;
        }
        bpf_probe_read_kernel((entry + o.parent as usize) as *const usize)
            .is_ok_and(|folder| UNIX_DOORS.get(&file(folder, o)).is_some())
    }
}

/// Tells who crosses the border to which socket, once for each.
#[inline(always)]
pub fn tell(receiver: usize, o: &UnixOffsets, incoming: bool, flags: u16) {
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
        if let Some(entry) = entry(receiver, o) {
            let door = file(entry, o);
            (peer.file, peer.device) = (door.file, door.device);
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
    let header = emit::header(kind::UNIX, flags, owner, 0);
    let wake = emit::wake(&header);
    emit::record(UnixEvent { header, peer }, wake);
}
