//! The addresses, ports and names of the standard lab, which tests and demo share.
//!
//! All addresses are from ranges that are never routed: documentation (RFC 5737, RFC 3849) and shared space (RFC 6598).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::dns::{Behaviour, Entry, Forgery, Record, Zone};

/// The source address of every IPv4 client in the lab.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// `api.allowed.test`, `two.allowed.test`, `three.allowed.test`, `shared.other.test`: several names, one address.
pub const ALLOWED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// `api.allowed.test` over IPv6.
pub const ALLOWED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// `only6.allowed.test`, which has no IPv4 address.
pub const ONLY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
/// `fhir.hospital.test`.
pub const HOSPITAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// `edge.cdn.test`, of which `cname.allowed.test` is an alias.
pub const CDN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 30);
/// The honest address of every name under `hostile.test`.
pub const HONEST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 40);
/// `evil.test`, and what forged answers claim.
pub const EVIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// `evil.test` over IPv6.
pub const EVIL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66);
/// `tracker.test`.
pub const TRACKER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 67);
/// An address that has servers and no name.
pub const NAMELESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
/// `proxy.allowed.test`: HTTP proxy on 3128, SOCKS4a and SOCKS5 on 1080. What it fetches comes from this address.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// `big.allowed.test` has thirty addresses, from this one on.
pub const BIG: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
/// No address of the lab: connecting gives ENETUNREACH at once.
pub const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The first resolver.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// The second resolver.
pub const RESOLVER_TWO: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
/// The resolver over IPv6.
pub const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
/// All of this range is local; names under `fresh.test` live there.
pub const FRESH_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 10);
/// The group that the UDP sinks are in.
pub const MULTICAST_V4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// The group that the IPv6 UDP sinks are in (site-local scope).
pub const MULTICAST_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234);

/// Ports with HTTP in the clear, on every address.
pub const HTTP_PORTS: [u16; 2] = [80, 8080];
/// Ports with HTTPS, on every address.
pub const HTTPS_PORTS: [u16; 2] = [443, 8443];
/// Name servers.
pub(crate) const DNS_PORT: u16 = 53;
/// TCP and UDP echo (RFC 862), on every address.
pub const ECHO_PORT: u16 = 7;
/// TCP sinks: discard (RFC 863) and where DNS over TLS would be.
pub const TCP_SINK_PORTS: [u16; 2] = [9, 853];
/// UDP sinks: discard, where QUIC would be, and where multicast is sent to.
pub const UDP_SINK_PORTS: [u16; 3] = [9, 443, 9999];
/// The HTTP forward proxy.
pub const HTTP_PROXY_PORT: u16 = 3128;
/// The SOCKS proxy.
pub const SOCKS_PROXY_PORT: u16 = 1080;

/// Thirty addresses, the most that one name of the lab has.
const BIG_COUNT: u8 = 30;

/// IPv4 addresses of the standard lab.
pub(crate) fn addresses_v4() -> Vec<Ipv4Addr> {
    let mut list = vec![ALLOWED, HOSPITAL, CDN, HONEST, EVIL, TRACKER, NAMELESS, PROXY, RESOLVER, RESOLVER_TWO];
    list.extend(big());
    list
}

/// IPv6 addresses of the standard lab.
pub(crate) fn addresses_v6() -> Vec<Ipv6Addr> {
    vec![ALLOWED_V6, ONLY_V6, EVIL_V6, RESOLVER_V6]
}

/// The resolvers of the standard lab.
pub(crate) fn resolvers() -> Vec<IpAddr> {
    vec![RESOLVER.into(), RESOLVER_TWO.into(), RESOLVER_V6.into()]
}

fn big() -> impl Iterator<Item = Ipv4Addr> {
    (0..u32::from(BIG_COUNT)).map(|n| Ipv4Addr::from(u32::from(BIG) + n))
}

impl Zone {
    /// The names of the standard lab.
    #[must_use]
    pub fn standard() -> Self {
        let mut zone = Self::empty();
        zone.set("api.allowed.test", Entry::new().a(ALLOWED).aaaa(ALLOWED_V6))
            .set("two.allowed.test", Entry::new().a(ALLOWED))
            .set("three.allowed.test", Entry::new().a(ALLOWED))
            .set("shared.other.test", Entry::new().a(ALLOWED))
            .set("only6.allowed.test", Entry::new().aaaa(ONLY_V6))
            .set("short.allowed.test", Entry::new().a(ALLOWED).ttl(1))
            .set("*.wild.allowed.test", Entry::new().a(ALLOWED))
            .set("text.allowed.test", Entry::new().record(Record::Txt("hello from the lab".into())))
            .set("cname.allowed.test", Entry::new().cname("edge.cdn.test"))
            .set("dangling.allowed.test", Entry::new().cname("nowhere.test"))
            .set("edge.cdn.test", Entry::new().a(CDN))
            .set("proxy.allowed.test", Entry::new().a(PROXY))
            .set("fhir.hospital.test", Entry::new().a(HOSPITAL))
            .set("evil.test", Entry::new().a(EVIL).aaaa(EVIL_V6))
            .set("*.evil.test", Entry::new().a(EVIL))
            .set("tracker.test", Entry::new().a(TRACKER))
            .set("unreachable.test", Entry::new().a(UNREACHABLE))
            .set("*.fresh.test", Entry::new().record(Record::Fresh));
        let many = |entry: Entry| big().fold(entry, Entry::a);
        zone.set("big.allowed.test", many(Entry::new()).behaviour(Behaviour::Oversized))
            // The same, as an honest server sends it: without EDNS it fits into no datagram.
            .set("tcp.allowed.test", many(Entry::new()))
            .set("truncated.allowed.test", Entry::new().a(ALLOWED).behaviour(Behaviour::Truncated))
            .set("late.allowed.test", Entry::new().a(ALLOWED).behaviour(Behaviour::Late(Duration::from_millis(700))))
            .set("silent.test", Entry::new().behaviour(Behaviour::Silent))
            .set("refused.test", Entry::new().behaviour(Behaviour::Refused))
            .set("servfail.test", Entry::new().behaviour(Behaviour::ServFail));
        for forgery in Forgery::ALL {
            let entry = Entry::new().a(HONEST).behaviour(Behaviour::Forged(forgery));
            zone.set(&format!("{}.hostile.test", forgery.label()), entry);
        }
        zone
    }
}
