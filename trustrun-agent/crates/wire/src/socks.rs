//! SOCKS requests, read from what the client sends alone: SOCKS4 and 4a, SOCKS5 (RFC 1928, RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Host, Outcome, read::Reader};

/// Most octets of the user and of the host in SOCKS4, which end with NUL and have no bound of their own.
pub const TEXT_MAX: usize = 255;

/// What a client asks the proxy for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// 4 or 5.
    pub version: u8,
    /// What to do.
    pub command: Command,
    /// Where. For [`Command::UdpAssociate`] where the client will send from, often unspecified.
    pub host: Host,
    /// Where.
    pub port: u16,
    /// Octets of all that the client said until here, greeting and authentication included. What follows goes through
    /// the proxy.
    pub length: usize,
}

/// What a proxy is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Connect to the host.
    Connect,
    /// Accept a connection from the host.
    Bind,
    /// Relay datagrams, whose destinations are in each of them.
    UdpAssociate,
}

/// Why a SOCKS request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// GSSAPI (RFC 1961) may encrypt the request, or cannot be told from a password exchange.
    #[error("the SOCKS5 client uses GSSAPI, which can hide its request")]
    Gssapi,
    /// After the greeting comes neither an authentication that was offered nor a request.
    #[error("octet {found:#04x} follows the SOCKS5 greeting instead of a request")]
    AfterGreeting {
        /// The octet.
        found: u8,
    },
    /// The command is none of RFC 1928 4.
    #[error("unknown SOCKS command {found}")]
    Command {
        /// Its number.
        found: u8,
    },
    /// The reserved octet is not zero.
    #[error("the reserved octet of the SOCKS5 request is {found:#04x} instead of 0")]
    Reserved {
        /// What it is.
        found: u8,
    },
    /// The address type is none of RFC 1928 5.
    #[error("unknown SOCKS5 address type {found}")]
    AddressType {
        /// Its number.
        found: u8,
    },
    /// The domain is neither a host name nor an address.
    #[error("the SOCKS request does not name a host")]
    NotHost,
    /// A user or host of SOCKS4 that does not end.
    #[error("a SOCKS4 field is longer than {TEXT_MAX} octets")]
    TextLength,
}

/// Why reading stopped.
enum Stop {
    Incomplete,
    Foreign,
    Malformed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

/// What `?` on the cursor means in a stream: more bytes are needed.
fn more<T>(read: Option<T>) -> Result<T, Stop> {
    read.ok_or(Stop::Incomplete)
}

impl Request {
    /// Reads a request from the bytes that a client sent since the connection began.
    #[must_use]
    pub fn from_stream(stream: &[u8]) -> Outcome<Self, Error> {
        let mut reader = Reader::new(stream);
        let request = match reader.u8() {
            None => Err(Stop::Incomplete),
            Some(4) => version4(&mut reader),
            Some(5) => version5(&mut reader),
            Some(_) => Err(Stop::Foreign),
        };
        match request {
            Ok(request) => Outcome::Complete(request),
            Err(Stop::Incomplete) => Outcome::Incomplete,
            Err(Stop::Foreign) => Outcome::Foreign,
            Err(Stop::Malformed(error)) => Outcome::Malformed(error),
        }
    }
}

/// SOCKS4 (ftp.openssh.com: SOCKS.4) and its extension for names (SOCKS.4a).
fn version4(reader: &mut Reader<'_>) -> Result<Request, Stop> {
    let command = match more(reader.u8())? {
        1 => Command::Connect,
        2 => Command::Bind,
        _ => return Err(Stop::Foreign),
    };
    let port = more(reader.u16())?;
    let address = Ipv4Addr::from(more(reader.u32())?);
    until_nul(reader)?;
    let host = match address.octets() {
        // "An inadmissible destination address": the name follows.
        [0, 0, 0, last] if last != 0 => Host::parse_bare(until_nul(reader)?).ok_or(Error::NotHost)?,
        _ => Host::Address(address.into()),
    };
    Ok(Request { version: 4, command, host, port, length: reader.position() })
}

fn until_nul<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    let mut ahead = reader.clone();
    for length in 0..=TEXT_MAX {
        if more(ahead.u8())? == 0 {
            let text = more(reader.take(length))?;
            *reader = ahead;
            return Ok(text);
        }
    }
    Err(Error::TextLength.into())
}

/// Greeting (RFC 1928 3), what authentication there is (RFC 1929), request (RFC 1928 4).
fn version5(reader: &mut Reader<'_>) -> Result<Request, Stop> {
    const GSSAPI: u8 = 1;
    const PASSWORD: u8 = 2;
    let count = more(reader.u8())?;
    if count == 0 {
        return Err(Stop::Foreign);
    }
    let methods = more(reader.take(count.into()))?;
    match more(reader.u8())? {
        5 => {}
        1 if methods.contains(&PASSWORD) => {
            let user = more(reader.u8())?;
            // GSSAPI begins with the octets 1, 1 (RFC 1961 3.3), which is also a user of one octet.
            if user == 1 && methods.contains(&GSSAPI) {
                return Err(Error::Gssapi.into());
            }
            more(reader.take(user.into()))?;
            more(reader.vec8())?;
            match more(reader.u8())? {
                5 => {}
                found => return Err(Error::AfterGreeting { found }.into()),
            }
        }
        1 if methods.contains(&GSSAPI) => return Err(Error::Gssapi.into()),
        found => return Err(Error::AfterGreeting { found }.into()),
    }
    let command = match more(reader.u8())? {
        1 => Command::Connect,
        2 => Command::Bind,
        3 => Command::UdpAssociate,
        found => return Err(Error::Command { found }.into()),
    };
    match more(reader.u8())? {
        0 => {}
        found => return Err(Error::Reserved { found }.into()),
    }
    let host = host5(reader)?;
    let port = more(reader.u16())?;
    Ok(Request { version: 5, command, host, port, length: reader.position() })
}

/// Addresses of RFC 1928 5.
fn host5(reader: &mut Reader<'_>) -> Result<Host, Stop> {
    match more(reader.u8())? {
        1 => Ok(Host::Address(IpAddr::V4(Ipv4Addr::from(more(reader.u32())?)))),
        3 => Ok(Host::parse_bare(more(reader.vec8())?).ok_or(Error::NotHost)?),
        4 => {
            let octets: [u8; 16] = more(more(reader.take(16))?.try_into().ok())?;
            Ok(Host::Address(IpAddr::V6(Ipv6Addr::from(octets))))
        }
        found => Err(Error::AddressType { found }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &[u8]) -> Option<(Command, String, u16)> {
        let request = Request::from_stream(stream).complete()?;
        assert_eq!(request.length, stream.len());
        Some((request.command, request.host.to_string(), request.port))
    }

    /// Every prefix is incomplete, and what follows does not matter.
    fn whole_only(stream: &[u8]) {
        for end in 0..stream.len() {
            assert_eq!(Request::from_stream(&stream[..end]), Outcome::Incomplete, "{end}");
        }
        let longer = [stream, b"\x16\x03\x01"].concat();
        assert_eq!(Request::from_stream(&longer), Request::from_stream(stream));
    }

    #[test]
    fn reads_each_kind_of_request() {
        let connect = |host: &str, port| Some((Command::Connect, host.to_string(), port));
        let cases: [(&[u8], _); 7] = [
            (b"\x05\x01\x00\x05\x01\x00\x03\x0bExample.com\x01\xbb", connect("example.com", 443)),
            // What curl offers when it is built with GSSAPI.
            (b"\x05\x02\x00\x01\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50", connect("192.0.2.1", 80)),
            (b"\x05\x02\x00\x02\x01\x04user\x04pass\x05\x01\x00\x03\x01a\x00\x01", connect("a", 1)),
            (b"\x05\x01\x00\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", connect("::1", 80)),
            (b"\x04\x01\x00\x50\xc0\x00\x02\x01me\0", connect("192.0.2.1", 80)),
            (b"\x04\x01\x01\xbb\x00\x00\x00\x01\0example.com\0", connect("example.com", 443)),
            (b"\x05\x01\x00\x05\x01\x00\x03\x097.8.9.255\x00\x50", connect("7.8.9.255", 80)),
        ];
        for (stream, wanted) in cases {
            assert_eq!(read(stream), wanted, "{}", stream.escape_ascii());
            whole_only(stream);
        }
        assert_eq!(read(b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0").map(|r| r.0), Some(Command::UdpAssociate));
        assert_eq!(read(b"\x04\x02\x00\x01\x01\x02\x03\x04\0").map(|r| r.0), Some(Command::Bind));
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        let long = [b"\x04\x01\0\x50\x01\x01\x01\x01".to_vec(), vec![b'a'; 300]].concat();
        let cases: [(&[u8], Error); 9] = [
            (b"\x05\x01\x01\x01\x01\x00\x05", Error::Gssapi),
            (b"\x05\x02\x01\x02\x01\x01", Error::Gssapi),
            (b"\x05\x01\x00\x01\x04user", Error::AfterGreeting { found: 1 }),
            (b"\x05\x01\x00\x47", Error::AfterGreeting { found: 0x47 }),
            (b"\x05\x01\x00\x05\x09", Error::Command { found: 9 }),
            (b"\x05\x01\x00\x05\x01\x01", Error::Reserved { found: 1 }),
            (b"\x05\x01\x00\x05\x01\x00\x02", Error::AddressType { found: 2 }),
            (b"\x05\x01\x00\x05\x01\x00\x03\x05a b.c", Error::NotHost),
            (&long, Error::TextLength),
        ];
        for (stream, error) in cases {
            assert_eq!(Request::from_stream(stream), Outcome::Malformed(error), "{}", stream.escape_ascii());
        }
        for other in [&b"\x05\x00"[..], b"\x04\x09", b"GET /"] {
            assert_eq!(Request::from_stream(other), Outcome::Foreign);
        }
    }
}
