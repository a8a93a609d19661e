//! The TLS ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2), from a TCP stream or from QUIC.

use crate::{Outcome, host::host_name, read::Reader};

/// Most octets of a ClientHello, its four octets of handshake header included. Real ones stay under 4 KiB even with
/// post-quantum key shares.
pub const HELLO_MAX: usize = 64 * 1024;

/// Most protocols that a client may offer by ALPN.
pub const ALPN_MAX: usize = 64;

/// Most octets of a record's fragment (RFC 8446 5.1).
const FRAGMENT_MAX: usize = 1 << 14;

/// Content type `handshake` (RFC 8446 5.1) and handshake type `client_hello` (RFC 8446 4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Extensions that are read (IANA, "TLS ExtensionType Values").
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The draft before Encrypted ClientHello (draft-ietf-tls-esni-06), which hides the name as well.
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;

/// What a client says first in TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that the client wants: lower case, without trailing dot. With [`ClientHello::ech`] it may be the name
    /// of a front and not of the host.
    pub sni: Option<String>,
    /// The protocols offered; octets that are not printable ASCII are escaped. GREASE values (RFC 8701) are included.
    pub alpn: Vec<String>,
    /// Whether the true hello is or may be encrypted.
    pub ech: Option<Ech>,
    /// `supported_versions`, or the version of the hello itself where there is no such extension. 0x0304 is TLS 1.3.
    /// GREASE values are included.
    pub versions: Vec<u16>,
}

/// Encrypted ClientHello (RFC 9849).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ech {
    /// An encrypted hello is inside, and the name seen is that of a front; or this is GREASE, made so that nobody can
    /// tell the difference (RFC 9849 6.2).
    Outer,
    /// A decrypted hello, which nobody sends in clear.
    Inner,
    /// Encrypted server name, the draft that came before.
    Esni,
}

/// Why a ClientHello cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A record whose fragment is empty or over 2^14 octets.
    #[error("a TLS record of {length} octets (RFC 8446 allows 1 to 16384 in a handshake)")]
    RecordLength {
        /// What it says.
        length: u16,
    },
    /// Another record in the midst of the hello (RFC 8446 5.1 forbids it).
    #[error("a TLS record of type {found} interrupts the ClientHello")]
    Interrupted {
        /// Its content type.
        found: u8,
    },
    /// The handshake begins with something else.
    #[error("the TLS handshake begins with message type {found}, not with a ClientHello")]
    NotHello {
        /// Its handshake type.
        found: u8,
    },
    /// Longer than [`HELLO_MAX`].
    #[error("a ClientHello of {length} octets, more than {HELLO_MAX}")]
    TooLarge {
        /// What it says.
        length: usize,
    },
    /// A field is cut off, has a length that its definition does not allow, or something follows the last one.
    #[error("the ClientHello's {field} is malformed")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// An extension is there twice (RFC 8446 4.2 forbids it).
    #[error("the ClientHello has extension {extension} twice")]
    Twice {
        /// Its type.
        extension: u16,
    },
    /// Not exactly one name of type host_name (RFC 6066 3).
    #[error("the ClientHello's server_name does not hold exactly one host name")]
    Names,
    /// The name is no DNS host name.
    #[error("the name in the ClientHello's server_name is no host name")]
    NotHostName,
}

impl ClientHello {
    /// Reads the ClientHello at the start of a TCP stream, however many records it is split into. What follows it is
    /// not looked at.
    #[must_use]
    pub fn from_stream(stream: &[u8]) -> Outcome<Self, Error> {
        match handshake(stream) {
            Outcome::Complete(message) => match Self::from_handshake(&message) {
                Outcome::Incomplete => Outcome::Malformed(Error::Field { field: "length" }),
                other => other,
            },
            Outcome::Incomplete => Outcome::Incomplete,
            Outcome::Foreign => Outcome::Foreign,
            Outcome::Malformed(error) => Outcome::Malformed(error),
        }
    }

    /// Reads a ClientHello that is not in records: the beginning of QUIC's CRYPTO stream (RFC 9001 4.1.3).
    #[must_use]
    pub fn from_handshake(bytes: &[u8]) -> Outcome<Self, Error> {
        match message_length(bytes) {
            Outcome::Complete(length) => match bytes.get(4..length) {
                Some(body) => Self::from_body(body).map_or_else(Outcome::Malformed, Outcome::Complete),
                None => Outcome::Incomplete,
            },
            Outcome::Incomplete => Outcome::Incomplete,
            Outcome::Foreign => Outcome::Foreign,
            Outcome::Malformed(error) => Outcome::Malformed(error),
        }
    }

    fn from_body(body: &[u8]) -> Result<Self, Error> {
        let field = |field| Error::Field { field };
        let mut reader = Reader::new(body);
        let version = reader.u16().ok_or(field("version"))?;
        reader.take(32).ok_or(field("random"))?;
        reader.vec8().filter(|id| id.len() <= 32).ok_or(field("session id"))?;
        let suites = reader.vec16().ok_or(field("cipher suites"))?;
        if suites.is_empty() || suites.len() % 2 != 0 {
            return Err(field("cipher suites"));
        }
        reader.vec8().filter(|methods| !methods.is_empty()).ok_or(field("compression methods"))?;
        let mut hello = Self::default();
        // TLS 1.2 and before may have none, not even the length (RFC 5246 7.4.1.2).
        if !reader.is_empty() {
            let extensions = reader.vec16().ok_or(field("extensions"))?;
            hello.read_extensions(extensions)?;
        }
        if !reader.is_empty() {
            return Err(field("end"));
        }
        if hello.versions.is_empty() {
            hello.versions.push(version);
        }
        Ok(hello)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Result<(), Error> {
        const READ: [u16; 5] = [SERVER_NAME, ALPN, SUPPORTED_VERSIONS, ENCRYPTED_CLIENT_HELLO, ENCRYPTED_SERVER_NAME];
        let cut = Error::Field { field: "extensions" };
        let mut seen = [false; READ.len()];
        let mut reader = Reader::new(extensions);
        while !reader.is_empty() {
            let extension = reader.u16().ok_or(cut)?;
            let value = reader.vec16().ok_or(cut)?;
            for (known, seen) in READ.iter().zip(&mut seen).filter(|(known, _)| **known == extension) {
                if std::mem::replace(seen, true) {
                    return Err(Error::Twice { extension: *known });
                }
            }
            match extension {
                SERVER_NAME => self.sni = Some(server_name(value)?),
                ALPN => self.alpn = alpn(value).ok_or(Error::Field { field: "ALPN" })?,
                SUPPORTED_VERSIONS => {
                    self.versions = versions(value).ok_or(Error::Field { field: "supported versions" })?;
                }
                ENCRYPTED_CLIENT_HELLO => {
                    self.ech = Some(ech(value).ok_or(Error::Field { field: "encrypted client hello" })?);
                }
                ENCRYPTED_SERVER_NAME => self.ech = self.ech.or(Some(Ech::Esni)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Takes the first handshake message out of the records at the start of a stream.
fn handshake(stream: &[u8]) -> Outcome<Vec<u8>, Error> {
    let mut message = Vec::new();
    let mut reader = Reader::new(stream);
    loop {
        let Some(content) = reader.u8() else { return Outcome::Incomplete };
        let first = message.is_empty();
        if content != HANDSHAKE {
            return if first { Outcome::Foreign } else { Outcome::Malformed(Error::Interrupted { found: content }) };
        }
        let Some(major) = reader.u8() else { return Outcome::Incomplete };
        if major != 3 {
            return if first { Outcome::Foreign } else { Outcome::Malformed(Error::Interrupted { found: content }) };
        }
        if reader.u8().is_none() {
            return Outcome::Incomplete;
        }
        let Some(length) = reader.u16() else { return Outcome::Incomplete };
        if length == 0 || usize::from(length) > FRAGMENT_MAX {
            return Outcome::Malformed(Error::RecordLength { length });
        }
        let here = stream.len().saturating_sub(reader.position()).min(length.into());
        message.extend_from_slice(reader.take(here).unwrap_or_default());
        match message_length(&message) {
            Outcome::Complete(whole) if message.len() >= whole => {
                message.truncate(whole);
                return Outcome::Complete(message);
            }
            Outcome::Malformed(error) => return Outcome::Malformed(error),
            Outcome::Complete(_) | Outcome::Incomplete | Outcome::Foreign => {}
        }
        if here < usize::from(length) {
            return Outcome::Incomplete;
        }
    }
}

/// The length of the handshake message that begins here, with its header (RFC 8446 4).
fn message_length(bytes: &[u8]) -> Outcome<usize, Error> {
    let mut reader = Reader::new(bytes);
    match reader.u8() {
        None => return Outcome::Incomplete,
        Some(CLIENT_HELLO) => {}
        Some(found) => return Outcome::Malformed(Error::NotHello { found }),
    }
    match reader.u24().map(|length| 4 + length as usize) {
        None => Outcome::Incomplete,
        Some(length) if length > HELLO_MAX => Outcome::Malformed(Error::TooLarge { length }),
        Some(length) => Outcome::Complete(length),
    }
}

/// The one host name in `server_name` (RFC 6066 3). More than one entry, or one of another type, is read differently by
/// different servers.
fn server_name(value: &[u8]) -> Result<String, Error> {
    let mut outer = Reader::new(value);
    let list = outer.vec16().filter(|_| outer.is_empty()).ok_or(Error::Names)?;
    let mut reader = Reader::new(list);
    let kind = reader.u8().ok_or(Error::Names)?;
    let name = reader.vec16().ok_or(Error::Names)?;
    if kind != 0 || !reader.is_empty() {
        return Err(Error::Names);
    }
    host_name(name).ok_or(Error::NotHostName)
}

/// The protocols of RFC 7301 3.1.
fn alpn(value: &[u8]) -> Option<Vec<String>> {
    let mut outer = Reader::new(value);
    let list = outer.vec16().filter(|_| outer.is_empty())?;
    let mut reader = Reader::new(list);
    let mut protocols = Vec::new();
    while !reader.is_empty() {
        let protocol = reader.vec8().filter(|p| !p.is_empty() && protocols.len() < ALPN_MAX)?;
        protocols.push(protocol.escape_ascii().to_string());
    }
    (!protocols.is_empty()).then_some(protocols)
}

/// The versions of RFC 8446 4.2.1.
fn versions(value: &[u8]) -> Option<Vec<u16>> {
    let mut outer = Reader::new(value);
    let list = outer.vec8().filter(|_| outer.is_empty())?;
    let (pairs, rest) = list.as_chunks::<2>();
    (rest.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// The kind of Encrypted ClientHello (RFC 9849 5).
fn ech(value: &[u8]) -> Option<Ech> {
    match value {
        [0, _, ..] => Some(Ech::Outer),
        [1] => Some(Ech::Inner),
        _ => None,
    }
}
