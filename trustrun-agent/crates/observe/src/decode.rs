//! From the bytes of one ring-buffer record to an observation.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use trustrun_common::{
    Address, ExecEvent, FLAG_CLASS_SHIFT, FLAG_CUT, FLAG_ENFORCED, FLAG_OUTGOING, FLAG_RESOLVER, FlowEvent, Header,
    PATH_MAX, PayloadEvent, TaskEvent, Tuple, UNIX_NAME, kind, reason,
};
use trustrun_model::{
    Action, Decided, Direction, Fact, Flow, FlowId, LookupRefusal, Observation, ProcessId, Protocol, Reason, SensorKind,
};

use crate::Clock;

/// A record that is none of ours. It is counted (`dropped.decode`) and becomes a gap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its kind, or than what it says of itself.
    #[error("a record of kind {kind} has {found} bytes, wanted at least {wanted}")]
    Short {
        /// Its kind.
        kind: u16,
        /// Its length.
        found: usize,
        /// The least it must have.
        wanted: usize,
    },
    /// A kind or value that the ABI does not have.
    #[error("a record has {what} {found}, which ABI {} does not have", trustrun_common::ABI_VERSION)]
    Unknown {
        /// What is unknown.
        what: &'static str,
        /// Its value.
        found: u64,
    },
}

/// Reads fixed-width fields in native byte order, each checked against the record's length.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    kind: u16,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(n);
        let found = self.bytes.len();
        let part = self.bytes.get(self.at..end).ok_or(DecodeError::Short { kind: self.kind, found, wanted: end })?;
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut a = [0; N];
        a.copy_from_slice(self.take(N)?);
        Ok(a)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_ne_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_ne_bytes(self.array()?))
    }

    fn header(&mut self) -> Result<Header, DecodeError> {
        Ok(Header {
            kind: self.u16()?,
            flags: self.u16()?,
            tgid: self.u32()?,
            tid: self.u32()?,
            uid: self.u32()?,
            at: self.u64()?,
            cookie: self.u64()?,
        })
    }

    fn tuple(&mut self) -> Result<Tuple, DecodeError> {
        Ok(Tuple {
            local: self.array()?,
            peer: self.array()?,
            sequence: self.u32()?,
            rule: self.u32()?,
            local_port: self.u16()?,
            peer_port: self.u16()?,
            protocol: self.u8()?,
            direction: self.u8()?,
            action: self.u8()?,
            reason: self.u8()?,
        })
    }

    fn flow_event(&mut self, header: Header) -> Result<FlowEvent, DecodeError> {
        Ok(FlowEvent { header, tuple: self.tuple()?, sent: self.u64()?, received: self.u64()? })
    }

    fn payload_event(&mut self, header: Header) -> Result<PayloadEvent, DecodeError> {
        Ok(PayloadEvent {
            header,
            tuple: self.tuple()?,
            offset: self.u32()?,
            length: self.u32()?,
            captured: self.u32()?,
            bound: self.u32()?,
        })
    }
}

/// Turns one record into an observation.
///
/// # Errors
/// If the record is shorter than it should be or holds a value that the ABI does not have.
pub fn decode(bytes: &[u8], clock: &Clock) -> Result<Observation, DecodeError> {
    let mut r = Reader { bytes, at: 0, kind: 0 };
    let header = r.header()?;
    r.kind = header.kind;
    let fact = match header.kind {
        kind::EXEC => exec(&mut r, header)?,
        kind::MOVED => moved(&mut r, header)?,
        kind::UNIX => unix(&mut r, header)?,
        kind::FORK => Fact::Fork { child: TaskEvent { header, value: r.u64()? }.value as u32 },
        kind::EXIT => Fact::Exit { status: r.u64()? as i32 },
        kind::OPENED
        | kind::ESTABLISHED
        | kind::CLOSED
        | kind::JUDGED
        | kind::PACKET
        | kind::SOCKET
        | kind::LISTENING => {
            let e = r.flow_event(header)?;
            flow_fact(&e)?
        }
        kind::PAYLOAD | kind::QUERY | kind::ANSWER => {
            let e = r.payload_event(header)?;
            let message = r.take(e.captured as usize)?.to_vec();
            payload_fact(&e, message)?
        }
        other => return Err(DecodeError::Unknown { what: "kind", found: u64::from(other) }),
    };
    let process = ProcessId {
        tgid: header.tgid,
        tid: header.tid,
        uid: header.uid,
        class: (header.flags >> FLAG_CLASS_SHIFT) as u8,
    };
    Ok(Observation { at: clock.at(header.at), sensor: SensorKind::Ebpf, process, fact })
}

fn exec(r: &mut Reader<'_>, header: Header) -> Result<Fact, DecodeError> {
    let e = ExecEvent { header, exe: r.u32()?, argv: r.u32()? };
    let area = r.take(PATH_MAX)?;
    let exe =
        area.get(..e.exe as usize).ok_or(DecodeError::Unknown { what: "path length", found: u64::from(e.exe) })?;
    let arguments = r.take(e.argv as usize)?;
    let arguments = arguments.strip_suffix(&[0]).unwrap_or(arguments);
    let argv = if arguments.is_empty() {
        Vec::new()
    } else {
        arguments.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    };
    Ok(Fact::Exec { exe: String::from_utf8_lossy(exe).into_owned(), argv, truncated: header.flags & FLAG_CUT != 0 })
}

fn moved(r: &mut Reader<'_>, header: Header) -> Result<Fact, DecodeError> {
    let Fact::Exec { exe: cgroup, .. } = exec(r, header)? else {
        return Err(DecodeError::Unknown { what: "kind", found: u64::from(header.kind) });
    };
    Ok(Fact::Moved { cgroup, killed: header.flags & FLAG_ENFORCED != 0 })
}

fn unix(r: &mut Reader<'_>, header: Header) -> Result<Fact, DecodeError> {
    let (file, own) = (r.u64()?, r.u64()?);
    let (_tgid, incoming, length, device) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let area = r.take(UNIX_NAME)?;
    let name =
        area.get(..length as usize).ok_or(DecodeError::Unknown { what: "name length", found: u64::from(length) })?;
    // A path ends at its first NUL; an abstract name begins with one, and shows as `@` (unix(7)).
    let name = match name.split_first() {
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        _ => String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default()).into_owned(),
    };
    let refused = header.flags & FLAG_ENFORCED != 0;
    Ok(Fact::Unix { incoming: incoming != 0, refused, name, file: (device, file), own })
}

fn flow_fact(e: &FlowEvent) -> Result<Fact, DecodeError> {
    let flow = flow(&e.header, &e.tuple)?;
    Ok(match e.header.kind {
        kind::OPENED => Fact::Opened { flow, decided: decided(&e.header, &e.tuple)? },
        kind::ESTABLISHED => Fact::Established { flow },
        kind::CLOSED => Fact::Closed { flow, sent: e.sent, received: e.received },
        kind::JUDGED => Fact::Judged { flow, decided: decided(&e.header, &e.tuple)? },
        kind::PACKET => {
            Fact::Packet { protocol: flow.protocol, peer: flow.peer, decided: decided(&e.header, &e.tuple)? }
        }
        kind::SOCKET => Fact::Socket {
            family: e.sent as u16,
            kind: e.received as u16,
            protocol: u16::from(e.tuple.protocol),
            decided: decided(&e.header, &e.tuple)?,
        },
        _ => Fact::Listening { local: flow.local, protocol: flow.protocol },
    })
}

fn payload_fact(e: &PayloadEvent, message: Vec<u8>) -> Result<Fact, DecodeError> {
    let flow = flow(&e.header, &e.tuple)?;
    let flags = e.header.flags;
    Ok(match e.header.kind {
        kind::PAYLOAD => Fact::Payload {
            flow,
            outgoing: flags & FLAG_OUTGOING != 0,
            offset: e.offset,
            bytes: message,
            length: e.length,
        },
        kind::QUERY => {
            let why =
                if e.tuple.reason == reason::MALFORMED { LookupRefusal::Malformed } else { LookupRefusal::Policy };
            Fact::Query {
                flow,
                refused: (flags & FLAG_ENFORCED != 0).then_some(why),
                resolver: flags & FLAG_RESOLVER != 0,
                message,
            }
        }
        _ => Fact::Answer { flow, believed: flags & FLAG_RESOLVER != 0, bound: Some(e.bound), message },
    })
}

fn flow(header: &Header, t: &Tuple) -> Result<Flow, DecodeError> {
    let direction = match t.direction {
        trustrun_common::DIRECTION_OUT => Direction::Out,
        trustrun_common::DIRECTION_IN => Direction::In,
        other => return Err(DecodeError::Unknown { what: "direction", found: u64::from(other) }),
    };
    Ok(Flow {
        id: FlowId { cookie: header.cookie, sequence: t.sequence },
        protocol: Protocol::from_number(t.protocol),
        direction,
        local: SocketAddr::new(ip(t.local), t.local_port),
        peer: SocketAddr::new(ip(t.peer), t.peer_port),
    })
}

/// The address, v4-mapped as the IPv4 that it is on the wire.
fn ip(a: Address) -> IpAddr {
    let v6 = Ipv6Addr::from(a);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

fn decided(header: &Header, t: &Tuple) -> Result<Decided, DecodeError> {
    let action = match t.action {
        trustrun_common::ACTION_ALLOW => Action::Allow,
        trustrun_common::ACTION_ALERT => Action::Alert,
        trustrun_common::ACTION_BLOCK => Action::Block,
        trustrun_common::ACTION_KILL => Action::Kill,
        other => return Err(DecodeError::Unknown { what: "action", found: u64::from(other) }),
    };
    let reason = match t.reason {
        reason::DEFAULT => Reason::Default,
        reason::RULE => Reason::Rule,
        reason::INTERNAL => Reason::Internal,
        reason::RESOLVER => Reason::Resolver,
        reason::ACCEPTED => Reason::Accepted,
        reason::MISMATCH => Reason::Mismatch,
        reason::CLAIM => Reason::Claim,
        reason::UNREADABLE | reason::MALFORMED => Reason::Unreadable,
        reason::QUIC => Reason::Quic,
        reason::KIND => Reason::Kind,
        reason::FULL => Reason::Full,
        reason::FAKE_RESOLVER => Reason::FakeResolver,
        reason::ENCRYPTED_DNS => Reason::EncryptedDns,
        other => return Err(DecodeError::Unknown { what: "reason", found: u64::from(other) }),
    };
    Ok(Decided { action, reason, enforced: header.flags & FLAG_ENFORCED != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u16, flags: u16) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(kind.to_ne_bytes());
        b.extend(flags.to_ne_bytes());
        for v in [7u32, 8, 1000] {
            b.extend(v.to_ne_bytes());
        }
        b.extend(5u64.to_ne_bytes());
        b.extend(42u64.to_ne_bytes());
        b
    }

    #[test]
    fn an_exec_keeps_its_arguments_apart() {
        let mut b = header(kind::EXEC, 0);
        b.extend(9u32.to_ne_bytes());
        b.extend(9u32.to_ne_bytes());
        let mut area = [0u8; PATH_MAX];
        area[..9].copy_from_slice(b"/bin/true");
        b.extend(area);
        b.extend(b"true\0a b\0");
        let o = decode(&b, &Clock::new()).unwrap();
        assert_eq!(o.process, ProcessId { tgid: 7, tid: 8, uid: 1000, class: 0 });
        let wanted = Fact::Exec { exe: "/bin/true".into(), argv: vec!["true".into(), "a b".into()], truncated: false };
        assert_eq!(o.fact, wanted);
    }

    #[test]
    fn a_flow_is_read_whole_or_not_at_all() {
        let mut b = header(kind::OPENED, FLAG_ENFORCED);
        b.extend([0; 16]);
        b.extend(trustrun_common::v4_mapped([203, 0, 113, 5]));
        b.extend(1u32.to_ne_bytes());
        b.extend(u32::MAX.to_ne_bytes());
        b.extend(0u16.to_ne_bytes());
        b.extend(443u16.to_ne_bytes());
        b.extend([6, 0, 3, 1]);
        b.extend([0; 16]);
        let Fact::Opened { flow, decided } = decode(&b, &Clock::new()).unwrap().fact else { panic!("not opened") };
        assert_eq!(flow.peer, "203.0.113.5:443".parse().unwrap());
        assert_eq!(decided, Decided { action: Action::Block, reason: Reason::Rule, enforced: true });
        for n in 0..b.len() {
            assert!(matches!(decode(&b[..n], &Clock::new()), Err(DecodeError::Short { .. })), "{n} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_observation_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..700), kind in 0u16..20) {
            let mut record = header(kind, 0);
            record.extend(&bytes);
            let _ = decode(&record, &Clock::new());
            let _ = decode(&bytes, &Clock::new());
        }
    }
}
