//! The head of an HTTP/1 request (RFC 9112), and the preface of HTTP/2 (RFC 9113 3.4).
//!
//! Servers and proxies differ in what they forgive. Whatever one of them could read as another host than this does is
//! [`Error`], not a best effort.

use crate::{Authority, Host, Outcome};

/// Most octets of a request's head. Node allows 16 KiB in all, nginx and Apache 8 KiB a line.
pub const HEAD_MAX: usize = 16 * 1024;

/// Most octets of a method; the longest one registered has 17.
const METHOD_MAX: usize = 32;

/// Most empty lines that are skipped before a request (RFC 9112 2.2).
const EMPTY_LINES_MAX: usize = 4;

/// What an HTTP/2 client says first (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// An HTTP/1 request.
    Request(Request),
    /// HTTP/2; the hosts follow, compressed, in each of its requests.
    Http2,
}

/// A request, as far as it names a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, as written.
    pub method: String,
    /// Whom it is for.
    pub target: Target,
    /// Octets of the head, its empty line included. What follows a CONNECT goes through the proxy.
    pub length: usize,
}

/// The forms of a request's target (RFC 9112 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, or `*`, on the server that is connected to.
    Origin {
        /// From the Host field; `None` if it is not there or empty.
        host: Option<Authority>,
    },
    /// A tunnel, from a proxy. The Host field says nothing here.
    Connect {
        /// Where to.
        host: Host,
        /// Where to.
        port: u16,
    },
    /// A whole URI, as proxies get it. The Host field, where there is one, says the same.
    Absolute {
        /// In lower case.
        scheme: String,
        /// Where to.
        host: Host,
        /// As written, or the scheme's own.
        port: Option<u16>,
    },
}

/// Why a request cannot be read in only one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No end within [`HEAD_MAX`].
    #[error("the HTTP request's head does not end within {HEAD_MAX} octets")]
    TooLarge,
    /// Not `method target HTTP/1.x` with single spaces.
    #[error("the HTTP request line is malformed")]
    RequestLine,
    /// The target is none of RFC 9112 3.2, or has user information.
    #[error("the HTTP request's target is malformed")]
    Target,
    /// A field line without colon, with a bad name, folded, or with a bare CR or NUL.
    #[error("line {line} of the HTTP request's head is malformed")]
    Field {
        /// Counted from 1, which is the request line.
        line: usize,
    },
    /// Several Host fields (RFC 9112 3.2).
    #[error("the HTTP request has several Host fields")]
    SeveralHosts,
    /// The Host field is no host (RFC 9110 7.2).
    #[error("the HTTP request's Host field does not name a host")]
    NotHost,
    /// The Host field differs from the target (RFC 9112 3.2.2).
    #[error("the HTTP request's Host field differs from its target")]
    HostDiffers,
}

impl Head {
    /// Reads the head of the request at the start of a stream.
    #[must_use]
    pub fn from_stream(stream: &[u8]) -> Outcome<Self, Error> {
        if stream.starts_with(PREFACE) {
            return Outcome::Complete(Self::Http2);
        }
        if PREFACE.starts_with(stream) {
            return Outcome::Incomplete;
        }
        let within = stream.get(..HEAD_MAX).unwrap_or(stream);
        match read(within) {
            Outcome::Complete(request) => Outcome::Complete(Self::Request(request)),
            Outcome::Incomplete if stream.len() >= HEAD_MAX => Outcome::Malformed(Error::TooLarge),
            Outcome::Incomplete => Outcome::Incomplete,
            Outcome::Foreign => Outcome::Foreign,
            Outcome::Malformed(error) => Outcome::Malformed(error),
        }
    }
}

fn read(bytes: &[u8]) -> Outcome<Request, Error> {
    let mut rest = bytes;
    for _ in 0..EMPTY_LINES_MAX {
        rest = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest);
    }
    if matches!(rest, b"" | b"\r") {
        return Outcome::Incomplete;
    }
    if !is_plausible(rest) {
        return Outcome::Foreign;
    }
    let Some((line, fields)) = split_line(rest) else { return Outcome::Incomplete };
    if !claims_http(line) {
        return Outcome::Foreign;
    }
    let (method, target) = match request_line(line) {
        Ok(parts) => parts,
        Err(error) => return Outcome::Malformed(error),
    };
    match host_field(fields) {
        Err(error) => Outcome::Malformed(error),
        Ok(None) => Outcome::Incomplete,
        Ok(Some((host, after))) => match resolve(method, target, host) {
            Ok(target) => {
                let method = String::from_utf8_lossy(method).into_owned();
                Outcome::Complete(Request { method, target, length: bytes.len() - after.len() })
            }
            Err(error) => Outcome::Malformed(error),
        },
    }
}

/// Whether a request line can still come of this: a method, then white space, then no control characters but those
/// that somebody takes for white space (RFC 9112 3).
fn is_plausible(rest: &[u8]) -> bool {
    let method = rest.iter().take_while(|b| is_token(**b)).count();
    let after = rest.get(method..).unwrap_or_default();
    let line = after.split(|b| *b == b'\n').next().unwrap_or_default();
    let separated = after.first().is_none_or(|b| is_space(*b));
    (1..=METHOD_MAX).contains(&method) && separated && line.iter().all(|b| *b >= b' ' || is_space(*b))
}

fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// `tchar` (RFC 9110 5.6.2).
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// The line without its LF or CRLF, and what follows. A lone LF ends a line as well (RFC 9112 2.2).
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let line = bytes.get(..end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), bytes.get(end + 1..)?))
}

/// Whether the line ends with a version, however sloppily: then it is HTTP, well-formed or not.
fn claims_http(line: &[u8]) -> bool {
    let blanks = line.iter().rev().take_while(|b| is_space(**b)).count();
    let line = line.get(..line.len() - blanks).unwrap_or_default();
    let word = line.iter().rposition(|b| is_space(*b)).and_then(|at| line.get(at + 1..)).unwrap_or_default();
    word.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
}

/// Method and target (RFC 9112 3).
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::RequestLine);
    };
    let minor = version.strip_prefix(b"HTTP/1.").unwrap_or_default();
    let target_is_plain = !target.is_empty() && !target.iter().any(|b| b.is_ascii_control());
    if method.is_empty() || !target_is_plain || minor.len() != 1 || !minor.iter().all(u8::is_ascii_digit) {
        return Err(Error::RequestLine);
    }
    Ok((method, target))
}

/// The Host field, and what follows the head.
type HostField<'a> = (Option<Authority>, &'a [u8]);

/// Reads the fields (RFC 9112 5). `None` if they do not end yet.
fn host_field(mut rest: &[u8]) -> Result<Option<HostField<'_>>, Error> {
    let mut found: Option<&[u8]> = None;
    let mut number = 1;
    while let Some((line, after)) = split_line(rest) {
        number += 1;
        rest = after;
        if line.is_empty() {
            return match found.filter(|value| !value.is_empty()) {
                None => Ok(Some((None, rest))),
                Some(value) => Ok(Some((Some(Authority::parse(value).ok_or(Error::NotHost)?), rest))),
            };
        }
        let malformed = Error::Field { line: number };
        let colon = line.iter().position(|b| *b == b':').ok_or(malformed)?;
        let (name, value) = line.split_at(colon);
        let plain = !value.iter().any(|b| matches!(b, b'\r' | b'\0'));
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) || !plain {
            return Err(malformed);
        }
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") && found.replace(value).is_some() {
            return Err(Error::SeveralHosts);
        }
    }
    Ok(None)
}

/// Tells the forms of the target apart (RFC 9112 3.2).
fn resolve(method: &[u8], target: &[u8], host: Option<Authority>) -> Result<Target, Error> {
    if method.eq_ignore_ascii_case(b"CONNECT") {
        let authority = Authority::parse(target).ok_or(Error::Target)?;
        let port = authority.port.ok_or(Error::Target)?;
        return Ok(Target::Connect { host: authority.host, port });
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(Target::Origin { host });
    }
    let colon = target.iter().position(|b| *b == b':').ok_or(Error::Target)?;
    let (scheme, rest) = target.split_at(colon);
    let rest = rest.strip_prefix(b"://").ok_or(Error::Target)?;
    let plain = scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if scheme.is_empty() || scheme.len() > METHOD_MAX || !plain {
        return Err(Error::Target);
    }
    let scheme = String::from_utf8_lossy(scheme).to_ascii_lowercase();
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = rest.get(..end).and_then(Authority::parse).ok_or(Error::Target)?;
    let own = default_port(&scheme);
    let port = authority.port.or(own);
    if host.is_some_and(|host| host.host != authority.host || host.port.or(own) != port) {
        return Err(Error::HostDiffers);
    }
    Ok(Target::Absolute { scheme, host: authority.host, port })
}

/// The port of a scheme without one (IANA, "Service Name and Transport Protocol Port Number Registry").
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stream: &str) -> Request {
        match Head::from_stream(stream.as_bytes()) {
            Outcome::Complete(Head::Request(request)) => request,
            other => panic!("{stream:?}: {other:?}"),
        }
    }

    fn origin(host: &str, port: Option<u16>) -> Target {
        Target::Origin { host: Some(Authority { host: Host::Name(host.into()), port }) }
    }

    #[test]
    fn reads_each_form_of_target() {
        let head = "GET /a?b HTTP/1.1\r\nUser-Agent: curl\r\nhOsT:\t Example.com:8080 \r\n\r\n";
        assert_eq!(request(&format!("{head}body")).length, head.len());
        assert_eq!(request(head).target, origin("example.com", Some(8080)));
        assert_eq!(request("\r\nPOST / HTTP/1.0\nHost: a.\n\n").target, origin("a", None));
        assert_eq!(request("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").target, Target::Origin { host: None });
        assert_eq!(
            request("CONNECT Example.com:443 HTTP/1.1\r\nHost: proxy.example\r\n\r\n").target,
            Target::Connect { host: Host::Name("example.com".into()), port: 443 }
        );
        assert_eq!(
            request("CONNECT [2001:db8::1]:22 HTTP/1.1\r\n\r\n").target,
            Target::Connect { host: Host::Address("2001:db8::1".parse().unwrap()), port: 22 }
        );
        assert_eq!(
            request("GET HTTP://Example.com?x=/ HTTP/1.1\r\nHost: example.com:80\r\n\r\n").target,
            Target::Absolute { scheme: "http".into(), host: Host::Name("example.com".into()), port: Some(80) }
        );
        assert_eq!(Head::from_stream(PREFACE), Outcome::Complete(Head::Http2));
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for (stream, error) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Error::SeveralHosts),
            ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Error::NotHost),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Error::NotHost),
            ("GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", Error::NotHost),
            ("GET / HTTP/1.1\r\nX: y\r\n Host: a\r\n\r\n", Error::Field { line: 3 }),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Error::Field { line: 2 }),
            ("GET / HTTP/1.1\r\nHost: a\rHost: b\r\n\r\n", Error::Field { line: 2 }),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Error::Field { line: 2 }),
            ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", Error::HostDiffers),
            ("GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n", Error::HostDiffers),
            ("GET http://allowed@evil/ HTTP/1.1\r\n\r\n", Error::Target),
            ("GET a HTTP/1.1\r\n\r\n", Error::Target),
            ("GET http:a HTTP/1.1\r\n\r\n", Error::Target),
            ("CONNECT a HTTP/1.1\r\n\r\n", Error::Target),
            ("CONNECT /a:1 HTTP/1.1\r\n\r\n", Error::Target),
            ("GET  / HTTP/1.1\r\n\r\n", Error::RequestLine),
            ("GET / HTTP/1.1 \r\n\r\n", Error::RequestLine),
            ("GET\t/\tHTTP/1.1\r\n\r\n", Error::RequestLine),
            ("GET /\rx HTTP/1.1\r\n\r\n", Error::RequestLine),
            ("GET / http/1.1\r\n\r\n", Error::RequestLine),
            ("GET / HTTP/2.0\r\n\r\n", Error::RequestLine),
            ("PRI * HTTP/2.0\r\n\r\nXX", Error::RequestLine),
        ] {
            assert_eq!(Head::from_stream(stream.as_bytes()), Outcome::Malformed(error), "{stream:?}");
        }
    }

    #[test]
    fn leaves_other_protocols_alone() {
        for stream in
            ["SSH-2.0-OpenSSH_9.2\r\n", "EHLO me\r\n", "PING\r\n", "AMQP\0\0\t\u{1}", "get x\r\n", "{\"a\":1}"]
        {
            assert_eq!(Head::from_stream(stream.as_bytes()), Outcome::Foreign, "{stream:?}");
        }
        assert_eq!(Head::from_stream(b" / HTTP/1.1\r\n\r\n"), Outcome::Foreign);
        assert_eq!(Head::from_stream(&[b'A'; METHOD_MAX]), Outcome::Incomplete);
        assert_eq!(Head::from_stream(&[b'A'; METHOD_MAX + 1]), Outcome::Foreign);
    }

    #[test]
    fn waits_only_so_long() {
        let long = format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(HEAD_MAX));
        assert_eq!(Head::from_stream(long.as_bytes()), Outcome::Malformed(Error::TooLarge));
        assert_eq!(Head::from_stream(&long.as_bytes()[..HEAD_MAX - 1]), Outcome::Incomplete);
    }
}
