//! What the kernel programs put on the ring buffer. Every record begins with a [`Header`].

use core::mem::{offset_of, size_of};

use crate::Address;

/// Kinds of records.
pub mod kind {
    /// [`super::ExecEvent`]
    pub const EXEC: u16 = 1;
    /// [`super::TaskEvent`]: value is the child's tgid.
    pub const FORK: u16 = 2;
    /// [`super::TaskEvent`]: value is the wait status.
    pub const EXIT: u16 = 3;
    /// [`super::FlowEvent`]: a connection was attempted, or a UDP peer's first datagram seen.
    pub const OPENED: u16 = 4;
    /// [`super::FlowEvent`]: TCP connected.
    pub const ESTABLISHED: u16 = 5;
    /// [`super::FlowEvent`]: ended, with its bytes.
    pub const CLOSED: u16 = 6;
    /// [`super::FlowEvent`]: judged again by what the client said.
    pub const JUDGED: u16 = 7;
    /// [`super::FlowEvent`]: a packet without a stored decision.
    pub const PACKET: u16 = 8;
    /// [`super::FlowEvent`]: a socket of an unusual kind; `sent` is the family, `received` the type.
    pub const SOCKET: u16 = 9;
    /// [`super::FlowEvent`]: a socket listens at `local`.
    pub const LISTENING: u16 = 10;
    /// [`super::PayloadEvent`]: bytes of a connection's start.
    pub const PAYLOAD: u16 = 11;
    /// [`super::PayloadEvent`]: a DNS query; action block or kill if it was refused.
    pub const QUERY: u16 = 12;
    /// [`super::PayloadEvent`]: a DNS answer; `bound` tells what was bound.
    pub const ANSWER: u16 = 13;
    /// [`super::ExecEvent`] of the process that was moved to another cgroup, whose path is in the path area.
    pub const MOVED: u16 = 14;
    /// [`crate::UnixEvent`]: bytes crossed the session's border over a unix socket.
    pub const UNIX: u16 = 15;
}

/// What a decision rests on.
pub mod reason {
    /// No rule matched.
    pub const DEFAULT: u8 = 0;
    /// A rule matched.
    pub const RULE: u8 = 1;
    /// Loopback to a listener of the session.
    pub const INTERNAL: u8 = 2;
    /// DNS to a resolver of the target.
    pub const RESOLVER: u8 = 3;
    /// A reply on something accepted.
    pub const ACCEPTED: u8 = 4;
    /// The client named somebody else than DNS did.
    pub const MISMATCH: u8 = 5;
    /// The policy refuses the name that the client gave.
    pub const CLAIM: u8 = 6;
    /// A name was needed and could not be read.
    pub const UNREADABLE: u8 = 7;
    /// UDP/443 without a rule that says so.
    pub const QUIC: u8 = 8;
    /// A socket or packet of a kind that carries no decision.
    pub const KIND: u8 = 9;
    /// A table was full.
    pub const FULL: u8 = 10;
    /// Source port 53.
    pub const FAKE_RESOLVER: u8 = 11;
    /// The DNS message could not be read.
    pub const MALFORMED: u8 = 12;
    /// Port 853 without a rule that says so.
    pub const ENCRYPTED_DNS: u8 = 13;
}

/// In [`Header::flags`]: the kernel carried a refusal out.
pub const FLAG_ENFORCED: u16 = 1;
/// In [`Header::flags`]: payload goes out from the target (else it comes in).
pub const FLAG_OUTGOING: u16 = 2;
/// In [`Header::flags`]: a query went to a resolver of the target; an answer was believed.
pub const FLAG_RESOLVER: u16 = 4;
/// In [`Header::flags`]: arguments or payload were cut.
pub const FLAG_CUT: u16 = 8;

/// In [`Header::flags`]: the class of who did it is in the bits from here on; 0 where it has none.
pub const FLAG_CLASS_SHIFT: u32 = 8;

/// Most bytes of payload that one record carries.
pub const PAYLOAD_MAX: usize = 8192;
/// Most bytes of arguments that one record carries.
pub const ARGV_MAX: usize = 4096;
/// Most bytes of a path that one record carries, NUL included.
pub const PATH_MAX: usize = 512;

/// The beginning of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`kind`]
    pub kind: u16,
    /// `FLAG_*`
    pub flags: u16,
    /// Thread group id of who did it; 0 where no process is known.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub at: u64,
    /// Socket cookie; 0 where there is none.
    pub cookie: u64,
}

/// Both ends of a connection and what was decided about it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// The target's end; zero where it is not known yet.
    pub local: Address,
    /// The other end.
    pub peer: Address,
    /// Which of the cookie's connections.
    pub sequence: u32,
    /// Rule index.
    pub rule: u32,
    /// Host order.
    pub local_port: u16,
    /// Host order.
    pub peer_port: u16,
    /// IPPROTO.
    pub protocol: u8,
    /// `DIRECTION_*`
    pub direction: u8,
    /// `ACTION_*`
    pub action: u8,
    /// [`reason`]
    pub reason: u8,
}

/// A connection's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEvent {
    /// Kind OPENED to LISTENING.
    pub header: Header,
    /// The connection.
    pub tuple: Tuple,
    /// Transport payload bytes.
    pub sent: u64,
    /// Transport payload bytes.
    pub received: u64,
}

/// Payload: this, then `captured` bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadEvent {
    /// Kind PAYLOAD, QUERY or ANSWER.
    pub header: Header,
    /// The connection.
    pub tuple: Tuple,
    /// Offset in the stream.
    pub offset: u32,
    /// Payload bytes of the packet.
    pub length: u32,
    /// How many of them follow.
    pub captured: u32,
    /// Addresses bound by an answer.
    pub bound: u32,
}

/// A program was started: this, then [`PATH_MAX`] bytes that begin with `exe` bytes of path, then `argv` bytes of
/// NUL-separated arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecEvent {
    /// Kind EXEC.
    pub header: Header,
    /// Bytes of path, without NUL.
    pub exe: u32,
    /// Bytes of arguments.
    pub argv: u32,
}

/// A process began or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskEvent {
    /// Kind FORK or EXIT.
    pub header: Header,
    /// See [`kind`].
    pub value: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 32 && offset_of!(Header, at) == 16 && offset_of!(Header, tgid) == 4);
    assert!(size_of::<Tuple>() == 48 && offset_of!(Tuple, sequence) == 32 && offset_of!(Tuple, reason) == 47);
    assert!(size_of::<FlowEvent>() == 96 && offset_of!(FlowEvent, sent) == 80);
    assert!(size_of::<PayloadEvent>() == 96 && offset_of!(PayloadEvent, bound) == 92);
    assert!(size_of::<ExecEvent>() == 40);
    assert!(size_of::<TaskEvent>() == 40);
};
