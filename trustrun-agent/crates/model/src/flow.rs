//! What identifies a connection, and how its name is known.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::UnknownWord;

/// The protocol of a connection, by its IANA protocol number. MPTCP counts as TCP, since that is what is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// Any other protocol of the IP header (ICMP is 1, SCTP 132, UDP-Lite 136).
    Other(u8),
}

impl Protocol {
    /// From the number in the IP header.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            other => Self::Other(other),
        }
    }

    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Other(n) => n,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.pad("tcp"),
            Self::Udp => f.pad("udp"),
            Self::Other(1) => f.pad("icmp"),
            Self::Other(58) => f.pad("ipv6-icmp"),
            Self::Other(132) => f.pad("sctp"),
            Self::Other(136) => f.pad("udplite"),
            Self::Other(n) => f.pad(&format!("ip-{n}")),
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownWord;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "icmp" => Self::Other(1),
            "ipv6-icmp" => Self::Other(58),
            "sctp" => Self::Other(132),
            "udplite" => Self::Other(136),
            _ => s.strip_prefix("ip-").and_then(|n| n.parse().ok()).map(Self::from_number).ok_or_else(|| {
                UnknownWord { found: s.into(), wanted: "tcp, udp, icmp, ipv6-icmp, sctp, udplite, ip-N" }
            })?,
        })
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The target did.
    Out,
    /// It was accepted by the target.
    In,
}

/// How a name is bound to a connection, strongest first. Only a believed DNS answer or an address rule grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// This target's believed DNS answer, and the ClientHello agrees.
    #[serde(rename = "dns+sni")]
    DnsSni,
    /// This target's believed DNS answer.
    #[serde(rename = "dns")]
    Dns,
    /// The client's own SNI, Host or proxy request alone.
    #[serde(rename = "claim")]
    Claim,
    /// No name is known.
    #[serde(rename = "none")]
    None,
}

/// What makes a connection this one and no other, on one boot: the kernel's socket cookie, and which of the
/// cookie's connections it is (one UDP socket has many peers, and a TCP socket may connect again).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowId {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// From 1, in the order in which the cookie's connections began.
    pub sequence: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_round_trip_as_words_and_numbers() {
        for n in 0..=255 {
            let p = Protocol::from_number(n);
            assert_eq!(p.number(), n);
            assert_eq!(p.to_string().parse(), Ok(p));
        }
    }
}
