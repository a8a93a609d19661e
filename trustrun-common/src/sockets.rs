//! Values of the maps that hold what was decided: `SOCKETS`, and `DATAGRAMS` with its key.

use core::mem::{offset_of, size_of};

use crate::Address;

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
    /// The class of who connected or sent last; 0 where processes are not classified.
    pub class: u8,
    /// Zero.
    pub pad: u8,
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
    /// Zero.
    pub pad: u8,
    /// Owner.
    pub tgid: u32,
    /// Owner's thread.
    pub tid: u32,
    /// Owner's user.
    pub uid: u32,
}

const _: () = {
    assert!(size_of::<SocketState>() == 96 && offset_of!(SocketState, port) == 68);
    assert!(offset_of!(SocketState, local_port) == 76 && offset_of!(SocketState, sent) == 80);
    assert!(size_of::<DatagramKey>() == 32 && offset_of!(DatagramKey, port) == 24);
    assert!(size_of::<DatagramState>() == 40 && offset_of!(DatagramState, tgid) == 28);
};
