//! Hosts as clients write them: names, addresses, and authorities of both with a port.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Most octets of a host name in text, without a trailing dot (RFC 1035 2.3.4: 255 on the wire).
pub const NAME_MAX: usize = 253;

/// A host that a client names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name: lower case, without a trailing dot.
    Name(String),
    /// A literal address.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as URIs and Host fields write it: a name, an IPv4 address, or an IPv6 address in brackets
    /// (RFC 3986 3.2.2). `None` if it is none of these.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(inside) = text.strip_prefix(b"[") {
            let address: Ipv6Addr = str::from_utf8(inside.strip_suffix(b"]")?).ok()?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        match str::from_utf8(text).ok()?.parse::<IpAddr>() {
            Ok(address @ IpAddr::V4(_)) => Some(Self::Address(address)),
            Ok(IpAddr::V6(_)) => None,
            Err(_) => host_name(text).map(Self::Name),
        }
    }

    /// Reads a host that stands alone, so that an IPv6 address needs no brackets (SOCKS).
    #[must_use]
    pub fn parse_bare(text: &[u8]) -> Option<Self> {
        match str::from_utf8(text).ok()?.parse::<IpAddr>() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => Self::parse(text),
        }
    }
}

impl fmt::Display for Host {
    /// Without brackets: a name, or an address that parses as [`IpAddr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.pad(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// A host and perhaps a port (RFC 3986 3.2, without user information).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, where one was written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:` or `host:port`. User information (`user@`) is refused, as it serves to make one host
    /// look like another (RFC 9110 4.2.4).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let after_address = text.iter().rposition(|b| *b == b']').map_or(0, |at| at + 1);
        let colon = text.get(after_address..)?.iter().position(|b| *b == b':').map(|at| after_address + at);
        let (host, port) = match colon {
            None => (text, None),
            Some(at) => (text.get(..at)?, port(text.get(at + 1..)?)?),
        };
        Some(Self { host: Host::parse(host)?, port })
    }
}

/// `""` is no port; otherwise decimal digits from 1 to 65535. The outer `None` is an error.
#[allow(clippy::option_option)]
fn port(digits: &[u8]) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port: u16 = str::from_utf8(digits).ok()?.parse().ok()?;
    (port != 0).then_some(Some(port))
}

/// A DNS host name from a client: ASCII letters, digits, hyphen and underscore in labels of 1 to 63, together at most
/// [`NAME_MAX`]; given in lower case, without its trailing dot.
///
/// `None` for anything else, above all for a last label that is a number: `127.1`, `0x7f000001` and `2130706433` are
/// addresses to some programs and names to others (WHATWG URL, "ends in a number").
#[must_use]
pub fn host_name(text: &[u8]) -> Option<String> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    if text.is_empty() || text.len() > NAME_MAX {
        return None;
    }
    let mut last: &[u8] = &[];
    for label in text.split(|b| *b == b'.') {
        let plain = label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !plain || label.is_empty() || label.len() > 63 {
            return None;
        }
        last = label;
    }
    let hex = last.strip_prefix(b"0x").or_else(|| last.strip_prefix(b"0X"));
    let number = last.iter().all(u8::is_ascii_digit) || hex.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
    if number {
        return None;
    }
    str::from_utf8(text).ok().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_host_names() {
        assert_eq!(host_name(b"API.Example.COM.").as_deref(), Some("api.example.com"));
        assert_eq!(host_name(b"_sip.x-1.example").as_deref(), Some("_sip.x-1.example"));
        assert_eq!(host_name(b"localhost").as_deref(), Some("localhost"));
        assert_eq!(host_name(b"1.2.3.4a").as_deref(), Some("1.2.3.4a"));
        assert!(host_name(&[b'a'; 63]).is_some());
    }

    #[test]
    fn refuses_what_is_no_host_name() {
        let long = [b"a.".repeat(126), b"ab".to_vec()].concat();
        let cases: [&[u8]; 14] = [
            b"",
            b".",
            b"a..b",
            b".a",
            b"a..",
            b"a b",
            b"a\0.b",
            b"1.2.3.4",
            b"127.1",
            b"0x7f000001",
            b"a.0X7F",
            b"\xc3\xa4.de",
            &[b'a'; 64],
            &long,
        ];
        for case in cases {
            assert_eq!(host_name(case), None, "{}", case.escape_ascii());
        }
    }

    #[test]
    fn reads_authorities() {
        let name = |text: &str, port| Some(Authority { host: Host::Name(text.into()), port });
        assert_eq!(Authority::parse(b"Example.com"), name("example.com", None));
        assert_eq!(Authority::parse(b"example.com:"), name("example.com", None));
        assert_eq!(Authority::parse(b"example.com:8443"), name("example.com", Some(8443)));
        let local = Host::Address(Ipv6Addr::LOCALHOST.into());
        assert_eq!(Authority::parse(b"[::1]:80"), Some(Authority { host: local.clone(), port: Some(80) }));
        assert_eq!(Authority::parse(b"[::1]"), Some(Authority { host: local.clone(), port: None }));
        assert_eq!(Host::parse_bare(b"::1"), Some(local));
        let cases: [&[u8]; 12] = [
            b"",
            b":80",
            b"a:0",
            b"a:65536",
            b"a:+1",
            b"a:1:2",
            b"::1",
            b"[::1",
            b"[::1]x",
            b"u@a",
            b"[1.2.3.4]",
            b"[::1%eth0]:1",
        ];
        for text in cases {
            assert_eq!(Authority::parse(text), None, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Authority::parse(&text);
            let _ = Host::parse_bare(&text);
        }

        #[test]
        fn gives_a_name_that_reads_as_itself(text in "[a-zA-Z0-9._:-]{1,40}") {
            if let Some(name) = host_name(text.as_bytes()) {
                prop_assert_eq!(host_name(name.as_bytes()), Some(name.clone()));
                prop_assert!(name.parse::<IpAddr>().is_err());
            }
        }
    }
}
