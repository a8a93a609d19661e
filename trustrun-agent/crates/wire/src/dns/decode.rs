//! From bytes to a [`Message`].

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CLASS_IN, Data, Error, Flags, Message, Question, Record, Svcb, name, rtype};
use crate::read::Reader;

/// Octets of the header (RFC 1035 4.1.1).
pub(super) const HEADER: usize = 12;

/// Most answer records that are read. 65,535 octets could hold six times as many, each naming 255 octets by a pointer;
/// no honest answer comes near.
pub const RECORDS_MAX: u16 = 1024;

/// Most address hints of each family in one SVCB or HTTPS record.
pub const HINTS_MAX: usize = 64;

/// Keys of service parameters (RFC 9460 14.3.2).
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;

impl Message {
    /// Decodes a whole message: the payload of a UDP datagram, or one message of a TCP stream
    /// ([`super::TcpFrames`]).
    ///
    /// # Errors
    ///
    /// Says what is wrong; nothing that came before it in the message is given out.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let message = Self::decode_start(bytes)?;
        if message.cut { Err(Error::Truncated { part: "answers" }) } else { Ok(message) }
    }

    /// Decodes the beginning of a message whose capture was cut: gives the answers that are whole, and sets
    /// [`Message::cut`] if there should be more.
    ///
    /// # Errors
    ///
    /// As [`Message::decode`], when the bytes end in the header or question, or a record is malformed.
    pub fn decode_start(bytes: &[u8]) -> Result<Self, Error> {
        let (id, flags, answers) = header(bytes)?;
        let (question, mut at) = question(bytes)?;
        let mut message = Self { id, flags, question, answers: Vec::new(), cut: false };
        for _ in 0..answers {
            match record(bytes, at) {
                Ok((record, end)) => {
                    message.answers.push(record);
                    at = end;
                }
                Err(Error::Truncated { .. }) => {
                    message.cut = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(message)
    }
}

/// Where the question of a message ends.
pub(super) fn question_end(bytes: &[u8]) -> Result<usize, Error> {
    question(bytes).map(|(_, end)| end)
}

/// The id, the flags, and how many answers there should be.
fn header(bytes: &[u8]) -> Result<(u16, Flags, u16), Error> {
    let cut = Error::Truncated { part: "header" };
    let mut reader = Reader::new(bytes.get(..HEADER).ok_or(cut)?);
    let mut next = || reader.u16().ok_or(cut);
    let (id, bits, questions, answers) = (next()?, next()?, next()?, next()?);
    if questions != 1 {
        return Err(Error::Questions { count: questions });
    }
    if answers > RECORDS_MAX {
        return Err(Error::Records { count: answers });
    }
    let flags = Flags {
        answer: bits & 0x8000 != 0,
        opcode: (bits >> 11 & 0xf) as u8,
        truncated: bits & 0x0200 != 0,
        recursion_desired: bits & 0x0100 != 0,
        rcode: (bits & 0xf) as u8,
    };
    Ok((id, flags, answers))
}

/// The question, and where it ends.
fn question(bytes: &[u8]) -> Result<(Question, usize), Error> {
    let (name, at) = name::read(bytes, HEADER)?;
    let cut = Error::Truncated { part: "question" };
    let mut reader = Reader::new(bytes.get(at..).ok_or(cut)?);
    let (qtype, qclass) = (reader.u16().ok_or(cut)?, reader.u16().ok_or(cut)?);
    Ok((Question { name, qtype, qclass }, at + 4))
}

/// The record at `at`, and where it ends.
fn record(bytes: &[u8], at: usize) -> Result<(Record, usize), Error> {
    let cut = Error::Truncated { part: "answers" };
    let (owner, at) = name::read(bytes, at)?;
    let mut reader = Reader::new(bytes.get(at..).ok_or(cut)?);
    let rtype = reader.u16().ok_or(cut)?;
    let class = reader.u16().ok_or(cut)?;
    let ttl = reader.u32().ok_or(cut)?;
    let rdata = reader.vec16().ok_or(cut)?;
    let end = at + reader.position();
    let data = if class == CLASS_IN { data(bytes, rtype, rdata, end)? } else { Data::Other };
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
    Ok((Record { owner, rtype, class, ttl, data }, end))
}

/// The data of a record of class IN. `rdata` ends at `end` of the message.
fn data(message: &[u8], rtype: u16, rdata: &[u8], end: usize) -> Result<Data, Error> {
    let malformed = Error::Data { rtype };
    // Within the record, "the bytes end" is no cut but a lie about the length.
    let name_within = |at: usize| {
        let within = message.get(..end).ok_or(malformed)?;
        name::read(within, at).map_err(|error| if let Error::Truncated { .. } = error { malformed } else { error })
    };
    let start = end.saturating_sub(rdata.len());
    match rtype {
        rtype::A => Ok(Data::A(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).map_err(|_| malformed)?))),
        rtype::AAAA => Ok(Data::Aaaa(Ipv6Addr::from(<[u8; 16]>::try_from(rdata).map_err(|_| malformed)?))),
        rtype::CNAME => match name_within(start)? {
            (name, after) if after == end => Ok(Data::Cname(name)),
            _ => Err(malformed),
        },
        rtype::SVCB | rtype::HTTPS => {
            let priority = Reader::new(rdata).u16().ok_or(malformed)?;
            let (target, after) = name_within(start + 2)?;
            let params = message.get(after..end).ok_or(malformed)?;
            let mut svcb = Svcb { priority, target, ipv4hint: Vec::new(), ipv6hint: Vec::new(), ech: false };
            parameters(&mut svcb, params).ok_or(malformed)?;
            Ok(Data::Svcb(svcb))
        }
        _ => Ok(Data::Other),
    }
}

/// Service parameters: keys strictly ascending, each with its value (RFC 9460 2.2).
fn parameters(svcb: &mut Svcb, params: &[u8]) -> Option<()> {
    let mut reader = Reader::new(params);
    let mut last = None;
    while !reader.is_empty() {
        let key = reader.u16()?;
        let value = reader.vec16()?;
        if last.is_some_and(|last| key <= last) {
            return None;
        }
        last = Some(key);
        match key {
            IPV4HINT => svcb.ipv4hint = hints::<4, _>(value)?,
            IPV6HINT => svcb.ipv6hint = hints::<16, _>(value)?,
            ECH => svcb.ech = true,
            _ => {}
        }
    }
    Some(())
}

/// One or more addresses of `N` octets (RFC 9460 7.3).
fn hints<const N: usize, A: From<[u8; N]>>(value: &[u8]) -> Option<Vec<A>> {
    let (chunks, rest) = value.as_chunks::<N>();
    let sensible = rest.is_empty() && (1..=HINTS_MAX).contains(&chunks.len());
    sensible.then(|| chunks.iter().map(|octets| A::from(*octets)).collect())
}
