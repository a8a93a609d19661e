//! The guard's own messages: fixed size, checked by length and kind.
//!
//! The engine is unprivileged and parses hostile bytes, so what it may ask of the guard is a short closed list of
//! plain numbers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use trustrun_common::{Address, NAME_MAX, counter};
use trustrun_model::{FlowId, Protocol};

use crate::places::Changed;

const WORDS: usize = counter::COUNT as usize + 1;
/// Bytes of every message.
pub(crate) const SIZE: usize = WORDS * 8;
/// In the place of a hook: somebody removed the session's cgroup, and every hook went with it.
pub const CGROUP_GONE: u32 = u32::MAX;
/// Where [`Order::Bind`] holds its name.
const NAME_AT: usize = 6 * 8;

/// A host name in a message: fixed room, lower case, no trailing dot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; NAME_MAX],
}

impl Name {
    /// From text; `None` if it is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; NAME_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.to_ascii_lowercase().as_bytes());
        Some(Self { length: u8::try_from(text.len()).ok().filter(|n| *n > 0)?, bytes })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

/// What the guard is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Engine: it is ready to read events.
    Ready,
    /// Engine: end the target.
    Kill,
    /// Engine: read the counters again. Answered with [`Note::Counters`].
    Count,
    /// Engine: end one process, which left the session's cgroup.
    End {
        /// Its thread group.
        tgid: u32,
    },
    /// Engine: destroy this TCP connection, whose bytes are refused from now on.
    Destroy {
        /// Its cookie.
        flow: FlowId,
        /// Its own end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
    },
    /// Engine: bind an address to a name, which the agent's own resolver was told. Answered with [`Note::Go`].
    Bind {
        /// The address.
        address: IpAddr,
        /// The name.
        name: Name,
        /// Seconds.
        ttl: u32,
    },
    /// Foreground: the child took these locks upon itself.
    Locked {
        /// Bits of `locks::Held`.
        held: u64,
    },
    /// Foreground: the child ended with this wait status.
    Ended {
        /// As wait(2) encodes it.
        status: i32,
    },
}

/// The last byte counts of a connection that was open when the session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalFlow {
    /// Which.
    pub flow: FlowId,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The peer.
    pub peer: SocketAddr,
    /// Transport payload bytes.
    pub sent: u64,
    /// Transport payload bytes.
    pub received: u64,
}

/// What the guard tells.
#[allow(clippy::large_enum_variant)] // every message has the same size on the wire; few exist at once
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// To the foreground process: start the child. To the engine: go on.
    Go,
    /// To the engine: a connection that is still open.
    Final(FinalFlow),
    /// To the engine: the kernel's counters.
    Counters([u64; counter::COUNT as usize]),
    /// To the engine: a process that outlived the first child.
    Leftover {
        /// Its thread group.
        tgid: u32,
    },
    /// To the engine: a hook was taken off, or its program replaced, by somebody else.
    HookLost {
        /// Its place in [`trustrun_common::HOOK_NAMES`], or [`CGROUP_GONE`].
        hook: u32,
    },
    /// To the engine: a file by which others are made to act was changed while the target ran.
    Changed(Changed),
    /// To the engine: the locks that the child holds.
    Locked {
        /// Bits of `locks::Held`.
        held: u64,
    },
    /// To the engine: make the report.
    Finish {
        /// The child's wait status; `None` if the foreground process was lost.
        status: Option<i32>,
    },
    /// To the foreground process: the session is over; whether the engine made its report.
    Done {
        /// It did.
        reported: bool,
    },
}

fn words(kind: u64, values: &[u64]) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    out[..8].copy_from_slice(&kind.to_ne_bytes());
    for (chunk, v) in out[8..].chunks_exact_mut(8).zip(values) {
        chunk.copy_from_slice(&v.to_ne_bytes());
    }
    out
}

fn read(bytes: &[u8]) -> Option<[u64; WORDS]> {
    let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
    let mut out = [0; WORDS];
    for (v, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        *v = u64::from_ne_bytes(chunk.try_into().ok()?);
    }
    Some(out)
}

fn split(a: SocketAddr) -> [u64; 3] {
    let v6 = match a.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = v6.to_bits();
    [(bits >> 64) as u64, bits as u64, u64::from(a.port())]
}

fn join(w: &[u64]) -> Option<SocketAddr> {
    let v6 = Ipv6Addr::from_bits((u128::from(*w.first()?) << 64) | u128::from(*w.get(1)?));
    let ip = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
    Some(SocketAddr::new(ip, u16::try_from(*w.get(2)?).ok()?))
}

/// An address as the kernel maps hold it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Order {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; SIZE] {
        match self {
            Self::Ready => words(1, &[]),
            Self::Kill => words(2, &[]),
            Self::Destroy { flow, local, peer } => {
                let (l, p) = (split(local), split(peer));
                words(3, &[flow.cookie, flow.sequence.into(), l[0], l[1], l[2], p[0], p[1], p[2]])
            }
            Self::Bind { address, name, ttl } => {
                let a = split(SocketAddr::new(address, 0));
                let mut m = words(4, &[a[0], a[1], a[2], ttl.into(), name.length.into()]);
                m[NAME_AT..NAME_AT + NAME_MAX].copy_from_slice(&name.bytes);
                m
            }
            Self::Count => words(8, &[]),
            Self::End { tgid } => words(6, &[tgid.into()]),
            Self::Locked { held } => words(7, &[held]),
            Self::Ended { status } => words(5, &[u64::from(status.cast_unsigned())]),
        }
    }

    /// From what came; `None` for whatever is no message.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let w = read(bytes)?;
        Some(match w[0] {
            1 => Self::Ready,
            2 => Self::Kill,
            8 => Self::Count,
            3 => Self::Destroy {
                flow: FlowId { cookie: w[1], sequence: u32::try_from(w[2]).ok()? },
                local: join(&w[3..6])?,
                peer: join(&w[6..9])?,
            },
            4 => Self::Bind {
                address: join(&w[1..4])?.ip(),
                ttl: u32::try_from(w[4]).ok()?,
                name: Name {
                    length: u8::try_from(w[5]).ok().filter(|n| (1..=NAME_MAX).contains(&usize::from(*n)))?,
                    bytes: bytes.get(NAME_AT..NAME_AT + NAME_MAX)?.try_into().ok()?,
                },
            },
            5 => Self::Ended { status: u32::try_from(w[1]).ok()?.cast_signed() },
            6 => Self::End { tgid: u32::try_from(w[1]).ok().filter(|t| *t > 1)? },
            7 => Self::Locked { held: w[1] },
            _ => return None,
        })
    }
}

impl Note {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; SIZE] {
        match self {
            Self::Go => words(1, &[]),
            Self::Final(f) => {
                let p = split(f.peer);
                let protocol = u64::from(f.protocol.number());
                words(2, &[f.flow.cookie, f.flow.sequence.into(), protocol, p[0], p[1], p[2], f.sent, f.received])
            }
            Self::Counters(c) => words(3, &c),
            Self::Leftover { tgid } => words(4, &[tgid.into()]),
            Self::Finish { status } => {
                words(5, &[u64::from(status.is_some()), u64::from(status.unwrap_or(0).cast_unsigned())])
            }
            Self::Done { reported } => words(6, &[u64::from(reported)]),
            Self::HookLost { hook } => words(7, &[hook.into()]),
            Self::Locked { held } => words(8, &[held]),
            Self::Changed(c) => words(9, &[c.place.into(), c.unknown.into()]),
        }
    }

    /// From what came; `None` for whatever is no message.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let w = read(bytes)?;
        Some(match w[0] {
            1 => Self::Go,
            2 => Self::Final(FinalFlow {
                flow: FlowId { cookie: w[1], sequence: u32::try_from(w[2]).ok()? },
                protocol: Protocol::from_number(u8::try_from(w[3]).ok()?),
                peer: join(&w[4..7])?,
                sent: w[7],
                received: w[8],
            }),
            3 => Self::Counters(w[1..].try_into().ok()?),
            4 => Self::Leftover { tgid: u32::try_from(w[1]).ok()? },
            5 => Self::Finish { status: (w[1] == 1).then(|| (w[2] as u32).cast_signed()) },
            6 => Self::Done { reported: w[1] == 1 },
            7 => Self::HookLost { hook: u32::try_from(w[1]).ok()? },
            8 => Self::Locked { held: w[1] },
            9 => Self::Changed(Changed { place: u32::try_from(w[1]).ok()?, unknown: w[2] != 0 }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_nothing_else_is_read() {
        let flow = FlowId { cookie: 9, sequence: 2 };
        let (a, b) = ("10.0.0.1:5".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
        for o in [
            Order::Ready,
            Order::Kill,
            Order::Count,
            Order::End { tgid: 77 },
            Order::Destroy { flow, local: a, peer: b },
            Order::Bind { address: "1.2.3.4".parse().unwrap(), name: Name::new("Api.test").unwrap(), ttl: 60 },
            Order::Ended { status: -1 },
            Order::Locked { held: 5 },
        ] {
            assert_eq!(Order::from_bytes(&o.to_bytes()), Some(o));
        }
        let counters = std::array::from_fn(|i| i as u64);
        let f = FinalFlow { flow, protocol: Protocol::Udp, peer: b, sent: 1, received: u64::MAX };
        for n in [
            Note::Go,
            Note::Final(f),
            Note::Counters(counters),
            Note::Leftover { tgid: 4 },
            Note::HookLost { hook: 3 },
            Note::Changed(Changed { place: 7, unknown: true }),
            Note::Finish { status: None },
            Note::Finish { status: Some(9) },
            Note::Done { reported: true },
            Note::Locked { held: 1 << 40 },
        ] {
            assert_eq!(Note::from_bytes(&n.to_bytes()), Some(n));
        }
        assert_eq!(Order::from_bytes(&[0; SIZE]), None);
        assert_eq!(Order::from_bytes(&[1; 8]), None);
        assert_eq!(Note::from_bytes(&[0xff; SIZE]), None);
    }
}
