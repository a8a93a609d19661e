//! One fact from a sensor.

use std::net::{IpAddr, SocketAddr};

use crate::{Action, Direction, FlowId, Instants, Protocol};

/// Which sensor made an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SensorKind {
    /// The kernel programs.
    Ebpf,
    /// Packets plus the socket table.
    Pcap,
    /// The socket table alone, polled.
    Sockets,
}

impl SensorKind {
    /// The word of the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
            Self::Sockets => "sockets",
        }
    }
}

/// One fact from a sensor, and when it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When.
    pub at: Instants,
    /// By whom it was seen.
    pub sensor: SensorKind,
    /// Who did it; zeroes where the sensor cannot know (packets).
    pub process: ProcessId,
    /// What.
    pub fact: Fact,
}

/// A thread and its owner at the time of an observation, in the sensor's pid namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Thread group id: what user space calls the process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Its class by the conditions of the policy's rules; 0 where it has none.
    pub class: u8,
}

/// A connection's identity and both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its identity on this boot.
    pub id: FlowId,
    /// The protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub direction: Direction,
    /// The local end; unspecified until it is known.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// What the kernel decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The action; when only observing, what would have been done.
    pub action: Action,
    /// What it rests on.
    pub reason: Reason,
    /// Whether the kernel carried a refusal out (an observing session never does).
    pub enforced: bool,
}

/// What a kernel decision rests on. The discriminants are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule matched: the default.
    Default,
    /// A rule on the name, the address or both.
    Rule,
    /// Loopback to a listener of the session.
    Internal,
    /// DNS to a resolver of the target.
    Resolver,
    /// A reply on a connection that was accepted.
    Accepted,
    /// A ClientHello, Host or proxy request that names somebody else than DNS did.
    Mismatch,
    /// A ClientHello, Host or proxy request whose own name the policy refuses.
    Claim,
    /// A first payload that could not be read where a name was needed.
    Unreadable,
    /// UDP to port 443 without a rule that says so.
    Quic,
    /// A packet or socket of a kind that carries no decision (raw, packet, SCTP).
    Kind,
    /// The kernel's tables were full.
    Full,
    /// UDP from source port 53: nobody inside plays the resolver.
    FakeResolver,
    /// DNS over TLS or QUIC (port 853) without a rule that says so.
    EncryptedDns,
}

/// Why a lookup was refused or not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupRefusal {
    /// The policy refuses the name.
    Policy,
    /// The message could not be read.
    Malformed,
}

/// TCP or UDP payload, or a DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// Part of a stream.
    Tcp,
}

/// Where a client's claim was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimSource {
    /// TLS server_name.
    Sni,
    /// HTTP Host.
    Host,
    /// The authority of a CONNECT, absolute-form or SOCKS request.
    Proxy,
}

/// What a sensor saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A process began as a copy of another.
    Fork {
        /// The new thread group.
        child: u32,
    },
    /// A process became another program.
    Exec {
        /// The executable as the kernel ran it (an interpreter for a script).
        exe: String,
        /// The arguments, redacted.
        argv: Vec<String>,
        /// Whether arguments were cut off for length.
        truncated: bool,
    },
    /// A process was moved to another cgroup.
    Moved {
        /// Its path below the root of the hierarchy.
        cgroup: String,
        /// Whether the kernel ended it for that.
        killed: bool,
    },
    /// Bytes, or a connect that was taken, crossed the session's border over a unix socket; told once for each socket
    /// and process.
    Unix {
        /// Whether somebody outside sent to the session; else the session sent out.
        incoming: bool,
        /// Whether it was refused, before any byte.
        refused: bool,
        /// The receiver's name as it was bound: a path, `@` and an abstract name, or empty.
        name: String,
        /// Device (12 bits of major and 20 of minor number) and inode number of the receiver's file; zeroes where there is
        /// none.
        file: (u32, u64),
        /// Inode number of the sender's own socket, where it was connected before; 0 else.
        own: u64,
    },
    /// A process ended.
    Exit {
        /// Wait status, as `wait(2)` encodes it.
        status: i32,
    },
    /// A connection was attempted or, for UDP, its first datagram sent or received.
    Opened {
        /// Which.
        flow: Flow,
        /// What was decided.
        decided: Decided,
    },
    /// A TCP connection came to be; the local end is known now.
    Established {
        /// Which.
        flow: Flow,
    },
    /// A connection ended.
    Closed {
        /// Which.
        flow: Flow,
        /// Transport payload bytes.
        sent: u64,
        /// Transport payload bytes.
        received: u64,
    },
    /// The kernel judged a connection again, by what the client said on it.
    Judged {
        /// Which.
        flow: Flow,
        /// What was decided.
        decided: Decided,
    },
    /// Payload at the start of a connection, for names in it.
    Payload {
        /// Which.
        flow: Flow,
        /// `true` from the target, `false` to it.
        outgoing: bool,
        /// Offset in the stream; 0 for a datagram.
        offset: u32,
        /// The bytes, cut at the sensor's snapshot length.
        bytes: Vec<u8>,
        /// How many there were.
        length: u32,
    },
    /// A DNS query left the target, or was refused.
    Query {
        /// The socket.
        flow: Flow,
        /// Set if it was refused.
        refused: Option<LookupRefusal>,
        /// Whether it went to a resolver of the target.
        resolver: bool,
        /// The message.
        message: Vec<u8>,
    },
    /// A DNS answer reached the target.
    Answer {
        /// The socket.
        flow: Flow,
        /// Whether the sensor believed it (design 5).
        believed: bool,
        /// How many addresses the kernel bound; `None` where the sensor binds none.
        bound: Option<u32>,
        /// The message.
        message: Vec<u8>,
    },
    /// A packet without a stored decision was judged by its address (raw, ICMP, a socket from before).
    Packet {
        /// Protocol.
        protocol: Protocol,
        /// Destination.
        peer: SocketAddr,
        /// What was decided.
        decided: Decided,
    },
    /// A socket of a kind that connections do not use.
    Socket {
        /// `AF_*`.
        family: u16,
        /// `SOCK_*`.
        kind: u16,
        /// `IPPROTO_*`.
        protocol: u16,
        /// What was decided.
        decided: Decided,
    },
    /// A socket listens.
    Listening {
        /// The address and port.
        local: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// Something was lost before it could be seen.
    Lost {
        /// The stage: `ring`, `decode`, `channel`.
        stage: &'static str,
        /// How many.
        count: u64,
    },
    /// An address that the sensor could not make sense of.
    Unreadable {
        /// Why.
        why: &'static str,
        /// The peer, if there is one.
        peer: Option<IpAddr>,
    },
}
