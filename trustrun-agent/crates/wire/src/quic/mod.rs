//! The ClientHello in QUIC's Initial packets, versions 1 (RFC 9000, RFC 9001) and 2 (RFC 9369).
//!
//! Initial packets are encrypted with keys that anybody can derive from the connection id in them. What is found in
//! them is therefore the client's claim, as good as an SNI in clear.

mod keys;

use std::collections::VecDeque;

use crate::{Gather, Outcome, read::Reader, tls, tls::ClientHello};
use keys::{Keys, Version};

/// Most connections on one socket and peer that are followed at once; the oldest gives way.
pub const CONNECTIONS_MAX: usize = 4;

/// Most packets in one datagram. A client coalesces one for each level of encryption, so at most four.
pub const PACKETS_MAX: usize = 8;

/// Most octets of a connection id in these versions (RFC 9000 17.2).
const CONNECTION_ID_MAX: usize = 20;

/// Why an Initial packet gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The header's field is cut off or longer than allowed, or the packet says that it is longer than its datagram (a
    /// capture that was cut cannot be decrypted).
    #[error("the QUIC packet's {field} is malformed or cut off")]
    Header {
        /// Which.
        field: &'static str,
    },
    /// More than [`PACKETS_MAX`] packets.
    #[error("the datagram has more than {PACKETS_MAX} QUIC packets")]
    Packets,
    /// Neither its own connection id nor an earlier one gives the key.
    #[error("the QUIC Initial packet cannot be decrypted")]
    Sealed,
    /// A frame that may not be in an Initial packet (RFC 9000 17.2.2), or is cut off.
    #[error("the QUIC Initial packet has a malformed or forbidden frame of type {kind:#x}")]
    Frame {
        /// Its type.
        kind: u64,
    },
    /// CRYPTO data beyond [`crate::gather::LIMIT`], or in too many pieces.
    #[error("the QUIC ClientHello is too large or in too many pieces")]
    TooLarge,
    /// CRYPTO frames disagree about a byte.
    #[error("QUIC CRYPTO frames contradict each other")]
    Conflicting,
    /// The ClientHello is no good.
    #[error(transparent)]
    Hello(#[from] tls::Error),
}

/// The connections that a client begins on one UDP socket to one peer, until their ClientHello is whole.
#[derive(Debug, Default)]
pub struct Initials {
    connections: VecDeque<Connection>,
}

#[derive(Debug)]
struct Connection {
    version: Version,
    /// The destination connection id that the keys come from.
    id: Vec<u8>,
    keys: Keys,
    crypto: Gather,
}

impl Initials {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a datagram from the client, uncut. `Complete` is the hello of the connection that the datagram belongs to,
    /// given again should it be sent again; `Incomplete` that it may be in a later datagram; `Foreign` that this is no
    /// long-header packet of a version that is known here.
    pub fn push(&mut self, datagram: &[u8]) -> Outcome<ClientHello, Error> {
        let mut reader = Reader::new(datagram);
        let mut answer = Outcome::Foreign;
        for count in 0.. {
            let start = reader.position();
            let rest = datagram.get(start..).unwrap_or_default();
            let packet = match Packet::read(rest) {
                Ok(Some(packet)) if count < PACKETS_MAX => packet,
                Ok(Some(_)) => return Outcome::Malformed(Error::Packets),
                // A short header, or the zeroes that some clients pad with: nothing after it can be found.
                Ok(None) => break,
                Err(error) => return Outcome::Malformed(error),
            };
            let found = if packet.initial { self.packet(&packet) } else { Outcome::Incomplete };
            answer = match (answer, found) {
                (Outcome::Complete(hello), _) | (_, Outcome::Complete(hello)) => Outcome::Complete(hello),
                (Outcome::Malformed(error), _) | (_, Outcome::Malformed(error)) => Outcome::Malformed(error),
                (_, found) => found,
            };
            reader.take(packet.bytes.len());
        }
        answer
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Outcome<ClientHello, Error> {
        let Some((connection, payload)) = self.open(packet) else { return Outcome::Malformed(Error::Sealed) };
        if let Err(error) = frames(&payload, &mut connection.crypto) {
            return Outcome::Malformed(error);
        }
        if connection.crypto.conflicting() {
            return Outcome::Malformed(Error::Conflicting);
        }
        match ClientHello::from_handshake(connection.crypto.prefix()) {
            Outcome::Complete(hello) => Outcome::Complete(hello),
            Outcome::Malformed(error) => Outcome::Malformed(error.into()),
            Outcome::Incomplete | Outcome::Foreign if connection.crypto.overflowed() => {
                Outcome::Malformed(Error::TooLarge)
            }
            Outcome::Incomplete | Outcome::Foreign => Outcome::Incomplete,
        }
    }

    /// Decrypts a packet with the keys of its connection. A new destination connection id begins a connection, after a
    /// Retry as well (RFC 9001 5.2), or is the one that the server chose for a connection that has begun: then its own
    /// keys do not fit, and an earlier connection's do.
    fn open(&mut self, packet: &Packet<'_>) -> Option<(&mut Connection, Vec<u8>)> {
        let same = |c: &Connection| c.version == packet.version && c.id == packet.id;
        let (at, payload) = match self.connections.iter().position(same) {
            Some(at) => (at, self.connections.get(at)?.keys.open(packet.bytes, packet.number_at)?),
            None => {
                let keys = Keys::derive(packet.version, packet.id)?;
                match keys.open(packet.bytes, packet.number_at) {
                    Some(payload) => {
                        if self.connections.len() >= CONNECTIONS_MAX {
                            self.connections.pop_front();
                        }
                        let (version, id) = (packet.version, packet.id.to_vec());
                        self.connections.push_back(Connection { version, id, keys, crypto: Gather::new() });
                        (self.connections.len() - 1, payload)
                    }
                    None => self.connections.iter().enumerate().find_map(|(at, connection)| {
                        Some((at, connection.keys.open(packet.bytes, packet.number_at)?))
                    })?,
                }
            }
        };
        Some((self.connections.get_mut(at)?, payload))
    }
}

/// A long-header packet, still protected (RFC 9000 17.2).
struct Packet<'a> {
    version: Version,
    initial: bool,
    /// Destination connection id.
    id: &'a [u8],
    /// The whole packet, without what is coalesced behind it.
    bytes: &'a [u8],
    /// Where the packet number begins.
    number_at: usize,
}

impl<'a> Packet<'a> {
    /// `None` if this is no long-header packet of a known version.
    fn read(bytes: &'a [u8]) -> Result<Option<Self>, Error> {
        let field = |field| Error::Header { field };
        let mut reader = Reader::new(bytes);
        let Some(first) = reader.u8().filter(|first| first & 0x80 != 0) else { return Ok(None) };
        let Some(version) = reader.u32().and_then(Version::known) else { return Ok(None) };
        let id_of = |reader: &mut Reader<'a>| reader.vec8().filter(|id| id.len() <= CONNECTION_ID_MAX);
        let id = id_of(&mut reader).ok_or(field("destination connection id"))?;
        id_of(&mut reader).ok_or(field("source connection id"))?;
        let kind = version.kind(first);
        if kind == keys::RETRY {
            // Only servers send it, and it has no length: take all of it.
            return Ok(Some(Self { version, initial: false, id, bytes, number_at: bytes.len() }));
        }
        if kind == keys::INITIAL {
            let token = reader.varint().and_then(|length| usize::try_from(length).ok()).ok_or(field("token"))?;
            reader.take(token).ok_or(field("token"))?;
        }
        let length = reader.varint().and_then(|length| usize::try_from(length).ok()).ok_or(field("length"))?;
        let number_at = reader.position();
        reader.take(length).ok_or(field("length"))?;
        let bytes = bytes.get(..reader.position()).ok_or(field("length"))?;
        Ok(Some(Self { version, initial: kind == keys::INITIAL, id, bytes, number_at }))
    }
}

/// Reads the frames of an Initial packet (RFC 9000 17.2.2, 19) and gathers the CRYPTO ones.
fn frames(payload: &[u8], crypto: &mut Gather) -> Result<(), Error> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        let kind = reader.varint().ok_or(Error::Frame { kind: 0 })?;
        let read = match kind {
            // PADDING, PING
            0x00 | 0x01 => Some(()),
            0x02 | 0x03 => skip_ack(&mut reader, kind == 0x03),
            0x06 => crypto_frame(&mut reader, crypto),
            0x1c => skip_close(&mut reader),
            _ => None,
        };
        read.ok_or(Error::Frame { kind })?;
    }
    Ok(())
}

/// RFC 9000 19.3.
fn skip_ack(reader: &mut Reader<'_>, ecn: bool) -> Option<()> {
    let (_largest, _delay, ranges, _first) = (reader.varint()?, reader.varint()?, reader.varint()?, reader.varint()?);
    // Ends with the payload, whatever the count says.
    for _ in 0..ranges {
        let (_gap, _length) = (reader.varint()?, reader.varint()?);
    }
    for _ in 0..if ecn { 3 } else { 0 } {
        reader.varint()?;
    }
    Some(())
}

/// RFC 9000 19.6.
fn crypto_frame(reader: &mut Reader<'_>, crypto: &mut Gather) -> Option<()> {
    let offset = reader.varint()?;
    let length = usize::try_from(reader.varint()?).ok()?;
    crypto.insert(offset, reader.take(length)?);
    Some(())
}

/// RFC 9000 19.19.
fn skip_close(reader: &mut Reader<'_>) -> Option<()> {
    let (_error, _frame) = (reader.varint()?, reader.varint()?);
    let reason = usize::try_from(reader.varint()?).ok()?;
    reader.take(reason).map(|_| ())
}

#[cfg(test)]
mod tests;
