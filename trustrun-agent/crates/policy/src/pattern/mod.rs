//! One destination as it is written in a rule: `[proto/]target[:port[-port]]`.
//!
//! Parsing touches nothing and refuses whatever could be read in two ways; what it refuses, it answers with what was
//! probably meant. Names are in `name`, the errors in `error`.

mod error;
mod name;
mod net;

use std::{fmt, str::FromStr};

pub use error::PatternError;
pub(crate) use error::{did_you_mean, shown};
pub(crate) use name::{is_host_name, normal, unicode};
pub(crate) use net::{Net, V4, mapped, prefix};
use trustrun_model::Protocol;

use crate::suggest::nearest;

/// What a pattern is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Every host and every address.
    Any,
    /// This host name: lower case, no trailing dot.
    Name(Box<str>),
    /// Every name below this one, at any depth, itself not.
    Below(Box<str>),
    /// The addresses of a network.
    Net(Net),
}

/// A destination pattern: a target, a protocol (or all), and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    pub(crate) target: Target,
    /// None is every protocol, and then every port.
    pub(crate) protocol: Option<Protocol>,
    /// First and last port; all of them for a protocol that has none.
    pub(crate) ports: (u16, u16),
}

const ALL_PORTS: (u16, u16) = (0, u16::MAX);
const PROTOCOLS: [&str; 7] = ["tcp", "udp", "any", "icmp", "ipv6-icmp", "sctp", "udplite"];

/// Whether ports of a protocol can be told apart, in a rule and by the kernel programs.
pub(crate) fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Other(132 | 136))
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(PatternError::Space { found: shown(text) });
        }
        let (protocol, rest) = split_protocol(text)?;
        let (target, ports) = split_port(rest)?;
        let target = match target {
            Some(target) => parse_target(target)?,
            None => Target::Any,
        };
        let pattern = Self { target, protocol, ports: ports.map_or(Ok(ALL_PORTS), parse_ports)? };
        pattern.check(ports.is_some(), text.starts_with("ip-"))
    }
}

impl Pattern {
    /// The pattern as people read it, where its name is looked up in another form: `münchen.example` for
    /// `xn--mnchen-3ya.example`. Not escaped.
    #[must_use]
    pub fn unicode(&self) -> Option<String> {
        let (Target::Name(name) | Target::Below(name)) = &self.target else { return None };
        Some(self.to_string().replacen(&**name, &unicode(name)?, 1))
    }

    /// Refuses combinations that no table can hold, or that were hardly meant.
    fn check(self, has_port: bool, by_number: bool) -> Result<Self, PatternError> {
        if has_port && !self.protocol.is_some_and(has_ports) {
            let protocol = self.protocol.map_or("any".into(), |p| p.to_string());
            return Err(PatternError::NoPorts { protocol });
        }
        match self.strange_icmp() {
            Some(Protocol::Other(58)) if !by_number => {
                Err(PatternError::Family { protocol: "ipv6-icmp", family: "IPv4", meant: "icmp" })
            }
            Some(_) if !by_number => Err(PatternError::Family { protocol: "icmp", family: "IPv6", meant: "ipv6-icmp" }),
            _ => Ok(self),
        }
    }

    /// ICMP of one family in the other. Only a raw socket sends it, so it has to be written by number.
    fn strange_icmp(&self) -> Option<Protocol> {
        let Target::Net(net) = self.target else { return None };
        self.protocol.filter(|p| *p == Protocol::Other(if net.is_v4() { 58 } else { 1 }))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(Protocol::Tcp) => {}
            Some(protocol) if self.strange_icmp().is_some() => write!(f, "ip-{}/", protocol.number())?,
            Some(protocol) => write!(f, "{protocol}/")?,
            None => f.write_str("any/")?,
        }
        let ports = self.ports != ALL_PORTS;
        match &self.target {
            Target::Any if ports => {}
            Target::Any => f.write_str("*")?,
            Target::Name(name) => f.write_str(name)?,
            Target::Below(name) => write!(f, "*.{name}")?,
            Target::Net(net) if net.is_v4() => write!(f, "{net}")?,
            // Always in brackets: without them `2001:db8::1:443` could be read in two ways.
            Target::Net(net) => write!(f, "[{net}]")?,
        }
        match self.ports {
            ALL_PORTS => Ok(()),
            // Alone it is hardly meant, and refused.
            (0, 0) => f.write_str(":0-0"),
            (lo, hi) if lo == hi => write!(f, ":{lo}"),
            (lo, hi) => write!(f, ":{lo}-{hi}"),
        }
    }
}

/// The protocol (none is every one) and what follows it. A slash also begins a prefix length, so the text before it
/// decides which it is.
fn split_protocol(text: &str) -> Result<(Option<Protocol>, &str), PatternError> {
    const TCP: Option<Protocol> = Some(Protocol::Tcp);
    let Some((head, rest)) = text.split_once('/') else { return Ok((TCP, text)) };
    if head == "any" {
        return Ok((None, rest));
    }
    if let Ok(protocol) = head.parse() {
        return Ok((Some(protocol), rest));
    }
    if let Some(authority) = rest.strip_prefix('/') {
        return Err(PatternError::url(text, head, authority));
    }
    if head.starts_with('[') || head.contains(':') || head.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok((TCP, text));
    }
    if head.contains(['.', '*']) {
        return Err(PatternError::Path { found: shown(text), target: shown(head) });
    }
    Err(PatternError::Protocol { found: shown(head), meant: nearest(head, &PROTOCOLS) })
}

/// The target (none where only a port is written) and the text of the ports.
fn split_port(rest: &str) -> Result<(Option<&str>, Option<&str>), PatternError> {
    if rest.is_empty() {
        return Err(PatternError::NoTarget);
    }
    if let Some(inner) = rest.strip_prefix('[') {
        return split_brackets(rest, inner);
    }
    match rest.matches(':').count() {
        0 => Ok((Some(rest), None)),
        1 => {
            let (target, ports) = rest.split_once(':').unwrap_or((rest, ""));
            Ok(((!target.is_empty()).then_some(target), Some(ports)))
        }
        _ => {
            // An IPv6 address: without brackets its last colon cannot also begin a port.
            let tail = rest.split_once('/').map_or("", |(_, tail)| tail);
            match tail.rsplit_once(':') {
                Some((bits, port)) => {
                    let net = &rest[..rest.len() - tail.len() + bits.len()];
                    Err(PatternError::Brackets { found: shown(rest), meant: shown(&format!("[{net}]:{port}")) })
                }
                None => net::check_ambiguous(rest).map(|()| (Some(rest), None)),
            }
        }
    }
}

fn split_brackets<'a>(rest: &str, inner: &'a str) -> Result<(Option<&'a str>, Option<&'a str>), PatternError> {
    let brackets = |meant: String| PatternError::Brackets { found: shown(rest), meant: shown(&meant) };
    let Some((target, after)) = inner.split_once(']') else {
        return Err(brackets(format!("[{inner}]")));
    };
    if !target.contains(':') {
        return Err(brackets(format!("{target}{after}")));
    }
    match after.strip_prefix(':') {
        Some(ports) => Ok((Some(target), Some(ports))),
        None if after.is_empty() => Ok((Some(target), None)),
        None => Err(brackets(format!("[{target}{after}]"))),
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), PatternError> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.ok_or_else(|| PatternError::Port { found: shown(text), help: port_help(text, digits) })
    };
    let Some((lo, hi)) = text.split_once('-') else {
        return match port(text)? {
            0 => Err(PatternError::Port { found: shown(text), help: ZERO }),
            port => Ok((port, port)),
        };
    };
    let (lo, hi) = (port(lo)?, port(hi)?);
    if lo > hi { Err(PatternError::PortRange { lo, hi }) } else { Ok((lo, hi)) }
}

const ZERO: &str = "leave the port out for all ports, or write `0-0` where you mean it";

fn port_help(text: &str, digits: bool) -> &'static str {
    match text {
        "" => "write one after the colon, or leave the colon out for all ports",
        "*" => "leave the port out for all ports",
        "http" => "did you mean `80`?",
        "https" => "did you mean `443`?",
        "domain" | "dns" => "did you mean `53`?",
        _ if digits => "ports end at 65535",
        _ => "names of services are not looked up",
    }
}

fn parse_target(text: &str) -> Result<Target, PatternError> {
    if text == "*" {
        return Ok(Target::Any);
    }
    if text.contains(['/', ':', '%']) || (text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text != ".") {
        return net::parse(text).map(Target::Net);
    }
    name::parse(text)
}
