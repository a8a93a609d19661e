//! Addresses and networks. IPv4 is kept v4-mapped, as in the kernel's maps, so that there is one kind of prefix.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{PatternError, shown};

/// A network: address bits (IPv4 as v4-mapped) and prefix length in those 128 bits. No bit is set beyond the prefix.
///
/// A network of fewer than 96 bits is IPv6 only, even where it covers `::ffff:0:0/96` arithmetically: IPv4
/// destinations are matched by IPv4 rules alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Net {
    pub(crate) address: u128,
    pub(crate) bits: u8,
}

/// `::ffff:0:0/96`, where IPv4 lives.
pub(crate) const V4: Net = Net { address: 0xffff_0000_0000, bits: 96 };

impl Net {
    pub(crate) fn is_v4(self) -> bool {
        V4.contains(self.address) && self.bits >= V4.bits
    }

    /// Whether the address has this prefix, arithmetically.
    pub(crate) fn contains(self, address: u128) -> bool {
        prefix(address, self.bits) == self.address
    }
}

/// The address with all bits beyond the prefix cleared.
pub(crate) fn prefix(address: u128, bits: u8) -> u128 {
    // A shift by all 128 bits would overflow; that is the prefix that keeps nothing.
    address & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// An address as 128 bits, IPv4 as v4-mapped.
pub(crate) fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = Ipv6Addr::from_bits(self.address);
        match (self.is_v4(), v6.to_ipv4_mapped()) {
            (true, Some(v4)) if self.bits == 128 => write!(f, "{v4}"),
            (true, Some(v4)) => write!(f, "{v4}/{}", self.bits - 96),
            _ if self.bits == 128 => write!(f, "{v6}"),
            _ => write!(f, "{v6}/{}", self.bits),
        }
    }
}

/// Refuses an IPv6 address without brackets whose end may have been meant as a port: both readings are addresses.
pub(crate) fn check_ambiguous(text: &str) -> Result<(), PatternError> {
    let Some((address, port)) = text.rsplit_once(':') else { return Ok(()) };
    let both = text.parse::<Ipv6Addr>().is_ok() && address.parse::<Ipv6Addr>().is_ok();
    if both && port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PatternError::Ambiguous { address: shown(address), port: shown(port) });
    }
    Ok(())
}

/// An address, or an address and a prefix length.
pub(crate) fn parse(text: &str) -> Result<Net, PatternError> {
    if text.contains('%') {
        return Err(PatternError::Zone { found: shown(text) });
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| PatternError::address(address))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => parse_length(length, most).ok_or_else(|| PatternError::PrefixLength {
            found: shown(length),
            address,
            most,
        })?,
    };
    // Cannot fail: the length was checked against the family just now.
    let net = IpNet::new(address, length).map_err(|_| PatternError::PrefixLength {
        found: length.to_string(),
        address,
        most,
    })?;
    if net.trunc() != net {
        return Err(PatternError::HostBits { found: shown(text), net: net.trunc() });
    }
    let bits = if address.is_ipv4() { length + V4.bits } else { length };
    Ok(Net { address: mapped(address), bits })
}

fn parse_length(text: &str, most: u8) -> Option<u8> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|length| digits && *length <= most)
}
