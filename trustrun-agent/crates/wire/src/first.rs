//! What a client speaks, and whom it claims to speak to, by its first bytes.

use trustrun_model::ClaimSource;

use crate::{
    Outcome, http,
    http::{Head, Target},
    socks,
    tls::{self, ClientHello},
};

/// What the first bytes of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// More bytes could still change the answer.
    Incomplete,
    /// TLS, with its whole ClientHello.
    Tls(ClientHello),
    /// HTTP, with the whole head of its first request.
    Http(Head),
    /// A SOCKS request.
    Socks(socks::Request),
    /// SSH (RFC 4253 4.2), which names no host.
    Ssh,
    /// None of these.
    Unknown,
    /// One of these, but broken or built to be read in two ways.
    Malformed(Error),
}

/// What is wrong with the first bytes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// As TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// As HTTP.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// As SOCKS.
    #[error(transparent)]
    Socks(#[from] socks::Error),
}

/// Whom a client says it wants to speak to. It can refute a destination, never grant one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Where it says so.
    pub source: ClaimSource,
    /// A host name in lower case without trailing dot, or an address that parses as [`std::net::IpAddr`] (these two
    /// cannot be taken for each other). `None` where the client could have named a host and did not; of a proxy this
    /// means that the destinations come later, and hidden from here (SOCKS5 UDP ASSOCIATE and BIND).
    pub host: Option<String>,
    /// The port, where the client names one.
    pub port: Option<u16>,
}

/// Tells what the first bytes of a client are, given all that it sent since the connection began, or the beginning
/// of that.
#[must_use]
pub fn classify(stream: &[u8]) -> First {
    match stream.first() {
        None => First::Incomplete,
        Some(0x16) => from(ClientHello::from_stream(stream), First::Tls),
        Some(4 | 5) => from(socks::Request::from_stream(stream), First::Socks),
        Some(_) => match from(Head::from_stream(stream), First::Http) {
            // HTTP comes first, since `SSH-2.0-x / HTTP/1.1` is a request with a strange method.
            First::Unknown if stream.starts_with(b"SSH-") => First::Ssh,
            first => first,
        },
    }
}

fn from<T, E: Into<Error>>(outcome: Outcome<T, E>, complete: impl FnOnce(T) -> First) -> First {
    match outcome {
        Outcome::Complete(message) => complete(message),
        Outcome::Incomplete => First::Incomplete,
        Outcome::Foreign => First::Unknown,
        Outcome::Malformed(error) => First::Malformed(error.into()),
    }
}

impl First {
    /// The claim in it; `None` where the protocol makes none, or makes it later (HTTP/2), or it is not known yet.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        let proxy = |host: &crate::Host, port| Claim { source: ClaimSource::Proxy, host: Some(host.to_string()), port };
        match self {
            Self::Tls(hello) => Some(Claim { source: ClaimSource::Sni, host: hello.sni.clone(), port: None }),
            Self::Http(Head::Request(request)) => Some(match &request.target {
                Target::Connect { host, port } => proxy(host, Some(*port)),
                Target::Absolute { host, port, .. } => proxy(host, *port),
                Target::Origin { host } => Claim {
                    source: ClaimSource::Host,
                    host: host.as_ref().map(|authority| authority.host.to_string()),
                    port: host.as_ref().and_then(|authority| authority.port),
                },
            }),
            Self::Socks(request) if request.command == socks::Command::Connect => {
                Some(proxy(&request.host, Some(request.port)))
            }
            // The address in these is not where anything is sent to.
            Self::Socks(_) => Some(Claim { source: ClaimSource::Proxy, host: None, port: None }),
            Self::Http(Head::Http2) | Self::Ssh | Self::Incomplete | Self::Unknown | Self::Malformed(_) => None,
        }
    }

    /// How many bytes of the stream are for a proxy. What follows is what goes through it, and can be classified in
    /// turn: a TLS hello in there may name another host than the proxy was asked for.
    #[must_use]
    pub fn tunnel_at(&self) -> Option<usize> {
        match self {
            Self::Http(Head::Request(http::Request { target: Target::Connect { .. }, length, .. })) => Some(*length),
            Self::Socks(socks::Request { command: socks::Command::Connect, length, .. }) => Some(*length),
            _ => None,
        }
    }

    /// The protocol in a word, for reports. `None` while it is not known.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Tls(_) | Self::Malformed(Error::Tls(_)) => Some("tls"),
            Self::Http(Head::Http2) => Some("http/2"),
            Self::Http(Head::Request(_)) | Self::Malformed(Error::Http(_)) => Some("http"),
            Self::Socks(_) | Self::Malformed(Error::Socks(_)) => Some("socks"),
            Self::Ssh => Some("ssh"),
            Self::Incomplete | Self::Unknown => None,
        }
    }
}
