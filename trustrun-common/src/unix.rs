//! Unix sockets: what is told of bytes that cross the session's border over one.

use core::mem::{offset_of, size_of};

use crate::Header;

/// Room for a socket's name. `sun_path` has 108 bytes; a power of two lets the verifier see the bound.
pub const UNIX_NAME: usize = 128;

/// Byte offsets in kernel structures, and whether the hook is to look at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixOffsets {
    /// `sock.__sk_common.skc_family`
    pub family: u32,
    /// `sock.sk_cgrp_data` (its first member is the cgroup)
    pub cgroup: u32,
    /// `sock.sk_socket`
    pub socket: u32,
    /// `cgroup.level`
    pub level: u32,
    /// `cgroup.ancestors`
    pub ancestors: u32,
    /// `cgroup.kn`
    pub node: u32,
    /// `kernfs_node.id`
    pub id: u32,
    /// `unix_sock.addr`
    pub address: u32,
    /// `unix_sock.peer`
    pub peer: u32,
    /// `unix_sock.path` and, in it, `path.dentry`
    pub dentry: u32,
    /// `unix_address.len`
    pub length: u32,
    /// `unix_address.name` and, in it, `sockaddr_un.sun_path`
    pub name: u32,
    /// `dentry.d_inode`
    pub inode: u32,
    /// `inode.i_ino`
    pub number: u32,
    /// `socket_alloc.vfs_inode`
    pub own: u32,
    /// `inode.i_sb`
    pub above: u32,
    /// `super_block.s_dev`
    pub device: u32,
    /// `dentry.d_parent`
    pub parent: u32,
    /// `socket.sk`
    pub sock: u32,
    /// `sk_buff.sk`
    pub packet_sock: u32,
    /// 1 when the offsets are there.
    pub ready: u32,
    /// How deep below the root of the hierarchy the session's cgroup is; 0 until a kernel program met a socket of it.
    pub depth: u32,
}

/// Most files and folders of sockets that the policy lets in.
pub const UNIX_DOORS_MOST: u32 = 4096;

/// The file of a socket that the policy lets in, or a folder with such.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnixDoor {
    /// Inode number.
    pub file: u64,
    /// Device of its file system, 12 bits of major and 20 of minor number.
    pub device: u32,
    /// Zero.
    pub pad: u32,
}

/// Who crossed the border over which socket: told once for each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Inode number of the socket's file; 0 where it has none.
    pub file: u64,
    /// Inode number of the sender's own end, where it was connected before; 0 else.
    pub own: u64,
    /// Thread group of the sender.
    pub tgid: u32,
    /// 1 where somebody outside sends to a socket of the session, 0 where the session sends out.
    pub incoming: u32,
    /// Bytes of the name.
    pub length: u32,
    /// The device of the socket's file, 12 bits of major and 20 of minor number; 0 where it has none.
    pub device: u32,
    /// As it was bound; an abstract one begins with NUL.
    pub name: [u8; UNIX_NAME],
}

/// A record of kind UNIX.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixEvent {
    /// The sender.
    pub header: Header,
    /// What it sent to.
    pub peer: UnixPeer,
}

const _: () = {
    assert!(size_of::<UnixOffsets>() == 88 && offset_of!(UnixOffsets, depth) == 84);
    assert!(size_of::<UnixDoor>() == 16);
    assert!(size_of::<UnixPeer>() == 160 && offset_of!(UnixPeer, name) == 32 && offset_of!(UnixPeer, device) == 28);
    assert!(size_of::<UnixEvent>() == 192 && offset_of!(UnixEvent, peer) == 32);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), fixed-width integers without padding (asserted above): every bit pattern is a value.
    unsafe impl aya::Pod for super::UnixOffsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::UnixDoor {}
}
