//! Which addresses are nobody's on the Internet, and which names are: a name that anybody may register and that
//! answers with an address inside the house is how a rebinding attack looks.

use std::net::IpAddr;

use crate::pattern::{Net, mapped, normal};

/// What a rule says about names that answer with a private address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Private {
    /// A public name is not granted a private address.
    #[default]
    Refuse,
    /// `private: allow`
    Allow,
    /// `require_private_ip: true`: a name is granted nothing else.
    Require,
}

/// A v4-mapped network.
const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Net {
    let address = u32::from_be_bytes([a, b, c, d]);
    Net { address: 0xffff_0000_0000 | address as u128, bits: 96 + bits }
}

/// An IPv6 network, by its first 64 bits.
const fn v6(high: u64, bits: u8) -> Net {
    Net { address: (high as u128) << 64, bits }
}

/// The well-known prefix of translation to IPv4 (RFC 6052), with an IPv4 network behind it.
const fn nat64(net: Net) -> Net {
    Net { address: 0x64_ff9b_u128 << 96 | (net.address & 0xffff_ffff), bits: net.bits }
}

/// IPv4 networks that are not globally reachable (IANA's special-purpose registry), without those for documentation.
/// `169.254.0.0/16` and `100.64.0.0/10` hold the metadata services of the clouds.
const V4: [Net; 9] = [
    v4(0, 0, 0, 0, 8),          // this host, RFC 1122
    v4(10, 0, 0, 0, 8),         // RFC 1918
    v4(100, 64, 0, 0, 10),      // shared, RFC 6598
    v4(127, 0, 0, 0, 8),        // loopback, RFC 1122
    v4(169, 254, 0, 0, 16),     // link local, RFC 3927
    v4(172, 16, 0, 0, 12),      // RFC 1918
    v4(192, 168, 0, 0, 16),     // RFC 1918
    v4(198, 18, 0, 0, 15),      // benchmarks, RFC 2544
    v4(255, 255, 255, 255, 32), // broadcast
];

/// The same of IPv6, with the ways of writing IPv4 in it.
const V6: [Net; 5] = [
    v6(0, 96),                     // unspecified, loopback, and IPv4-compatible (RFC 4291)
    v6(0x0064_ff9b_0001_0000, 48), // translation of one's own, RFC 8215
    v6(0xfc00_0000_0000_0000, 7),  // unique local, RFC 4193
    v6(0xfe80_0000_0000_0000, 10), // link local, RFC 4291
    v6(0xfec0_0000_0000_0000, 10), // site local, RFC 3879
];

/// Private networks: address bits, length of the prefix in 128.
pub(crate) fn networks() -> impl Iterator<Item = Net> {
    V4.into_iter().chain(V6).chain(V4.map(nat64))
}

/// Whether the address (as 128 bits) is private, link local, loopback, or such an IPv4 address translated (NAT64).
pub(crate) fn is_private(address: u128) -> bool {
    networks().any(|net| net.contains(address))
}

/// Whether an address is private, link local, loopback, or such an IPv4 address translated (NAT64): what a public name
/// should not answer with.
#[must_use]
pub fn is_private_address(address: IpAddr) -> bool {
    is_private(mapped(address))
}

/// Top-level names that nobody can register: RFC 6761 (`test`, `localhost`), RFC 6762 with its appendix G, `internal`
/// (ICANN 2024). `home.arpa` (RFC 8375) is beside them.
const NOT_PUBLIC: [&str; 9] = ["corp", "home", "internal", "intranet", "lan", "local", "localhost", "private", "test"];

/// Whether anybody may register this name, or a name above it, in the public DNS.
#[must_use]
pub fn is_public_name(name: &str) -> bool {
    let name = normal(name);
    match name.rsplit_once('.') {
        None => false,
        Some((_, top)) => !NOT_PUBLIC.contains(&top) && name != "home.arpa" && !name.ends_with(".home.arpa"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_private_addresses_however_they_are_written() {
        for private in [
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "fe80::1",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
        ] {
            assert!(is_private_address(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "203.0.113.1", "2606:4700::1", "64:ff9b::808:808", "2001:db8::1"] {
            assert!(!is_private_address(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn knows_names_that_nobody_can_register() {
        for own in ["fhir", "fhir.internal", "db.corp.", "x.HOME.ARPA", "printer.local", "localhost", "a.b.test"] {
            assert!(!is_public_name(own), "{own}");
        }
        for public in ["example.com", "internal.example.com", "test.org", "x.arpa"] {
            assert!(is_public_name(public), "{public}");
        }
    }
}
