//! What clients really say first, and what the session engine makes of it.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, prelude::*};
use trustrun_model::ClaimSource::{self, Host, Proxy, Sni};
use trustrun_wire::{
    First, classify,
    http::{self, Head},
    quic::Initials,
    socks,
};

const CURL: &[u8] = include_bytes!("data/curl.http");
const CURL_CONNECT: &[u8] = include_bytes!("data/curl-connect.http");
const CURL_ABSOLUTE: &[u8] = include_bytes!("data/curl-absolute.http");
const CURL_H2C: &[u8] = include_bytes!("data/curl-h2c.http");
const CURL_TLS: &[u8] = include_bytes!("data/curl.hello");
const NODE_TLS: &[u8] = include_bytes!("data/node.hello");
const SOCKS5: &[u8] = b"\x05\x02\x00\x02\x01\x01u\x01p\x05\x01\x00\x03\x0bexample.com\x01\xbb";
const SOCKS4: &[u8] = b"\x04\x01\x00\x16\xc0\x00\x02\x01me\0";
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n";

/// Streams, the word for them, and the claim that is in them.
type Case = (&'static [u8], &'static str, Option<(ClaimSource, &'static str, Option<u16>)>);
const CASES: [Case; 8] = [
    (CURL_TLS, "tls", Some((Sni, "example.com", None))),
    (NODE_TLS, "tls", Some((Sni, "api.example.net", None))),
    (CURL, "http", Some((Host, "example.com", Some(36367)))),
    (CURL_CONNECT, "http", Some((Proxy, "example.com", Some(443)))),
    (CURL_ABSOLUTE, "http", Some((Proxy, "example.com", Some(80)))),
    (SOCKS5, "socks", Some((Proxy, "example.com", Some(443)))),
    (SOCKS4, "socks", Some((Proxy, "192.0.2.1", Some(22)))),
    (SSH, "ssh", None),
];

#[test]
fn classifies_real_clients_and_only_when_they_are_whole() {
    for (stream, word, claim) in CASES {
        let first = classify(stream);
        assert_eq!(first.word(), Some(word));
        let found = first.claim();
        let found = found.as_ref().map(|claim| (claim.source, claim.host.as_deref().unwrap_or_default(), claim.port));
        assert_eq!(found, claim, "{}", stream.escape_ascii());
        for end in 0..stream.len() {
            assert_eq!(classify(&stream[..end]), First::Incomplete, "{end} of {}", stream.escape_ascii());
        }
        assert_eq!(classify(&[stream, b"\0\xffmore\r\n"].concat()), first);
    }
    assert_eq!(classify(CURL_H2C).word(), Some("http/2"));
}

#[test]
fn finds_where_a_tunnel_begins() {
    for proxy in [CURL_CONNECT, SOCKS5, SOCKS4] {
        let stream = [proxy, CURL_TLS].concat();
        let at = classify(&stream).tunnel_at().unwrap();
        assert_eq!(classify(&stream[at..]).claim().unwrap().host.as_deref(), Some("example.com"));
    }
    assert_eq!(classify(CURL_ABSOLUTE).tunnel_at(), None);
}

#[test]
fn a_udp_association_names_no_destination() {
    let claim = classify(b"\x05\x01\x00\x05\x03\x00\x01\x7f\0\0\x01\x10\x00").claim().unwrap();
    assert_eq!((claim.source, claim.host, claim.port), (Proxy, None, None));
}

#[test]
fn an_ssh_like_method_does_not_hide_a_request() {
    let claim = classify(b"SSH-2.0-x / HTTP/1.1\r\nHost: evil.example\r\n\r\n").claim().unwrap();
    assert_eq!((claim.source, claim.host.as_deref()), (Host, Some("evil.example")));
}

#[test]
fn leaves_the_rest_unknown() {
    for stream in [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], b"EHLO me\r\n", b"\x13BitTorrent protocol", b"\xff\xfe"] {
        assert_eq!(classify(stream), First::Unknown);
    }
    assert_eq!(classify(b""), First::Incomplete);
}

/// Bytes that get further into the decoders than chance would.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(vec![]),
        Just(vec![22, 3, 1, 0, 40, 1, 0, 0, 36, 3, 3]),
        Just(vec![5, 1, 0, 5, 1, 0]),
        Just(vec![4, 1, 0, 80, 0, 0, 0, 1]),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"CONNECT ".to_vec()),
        (0..CASES.len(), 0_usize..600).prop_map(|(case, at)| CASES[case].0[..at % CASES[case].0.len()].to_vec()),
    ];
    let words: &[&[u8]] =
        &[b"Host", b": ", b"\r\n", b"\n", b" ", b"\r", b"a.b", b"HTTP/1.1", b"http://", b":1", b"\t", b"/", b"@"];
    let text = proptest::sample::select(words);
    let rest = prop_oneof![vec(any::<u8>(), 0..100), vec(text, 0..20).prop_map(|words| words.concat())];
    (start, rest).prop_map(|(start, rest)| [start, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes in, and however it is split: the answer comes once, and stays.
    #[test]
    fn the_answer_comes_once(stream in stream()) {
        let whole = classify(&stream);
        for end in 0..stream.len() {
            let part = classify(&stream[..end]);
            prop_assert!(part == First::Incomplete || part == whole, "{} {:?} {:?}", end, part, whole);
        }
    }

    #[test]
    fn a_claim_is_a_host_name_or_an_address(stream in stream()) {
        if let Some(host) = classify(&stream).claim().and_then(|claim| claim.host) {
            let is_address = host.parse::<std::net::IpAddr>().is_ok();
            let is_name = trustrun_wire::host::host_name(host.as_bytes()).as_deref() == Some(&host[..]);
            prop_assert!(is_address != is_name, "{}", host);
        }
    }

    #[test]
    fn no_decoder_panics(bytes in vec(any::<u8>(), 0..400)) {
        let _ = classify(&bytes);
        let _ = Head::from_stream(&bytes);
        let _ = socks::Request::from_stream(&bytes);
        let mut initials = Initials::new();
        let _ = initials.push(&bytes);
        let _ = initials.push(&[&[0xc0, 0, 0, 0, 1, 2, 1, 2, 0, 0, 0x40, 100][..], &bytes].concat());
    }

    /// A request that is written by the book is read as it was meant.
    #[test]
    fn reads_requests_by_the_book(method in "[A-Z]{1,9}", path in "/[!-~]{0,20}", host in "[a-z]{1,9}(\\.[a-z]{2,5}){1,3}", port in proptest::option::of(1_u16..)) {
        prop_assume!(method != "CONNECT");
        let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
        let stream = format!("{method} {path} HTTP/1.1\r\nAccept: */*\r\nHost: {authority}\r\n\r\n");
        let First::Http(Head::Request(request)) = classify(stream.as_bytes()) else { panic!("{stream}") };
        prop_assert_eq!(request.method, method);
        let http::Target::Origin { host: Some(found) } = request.target else { panic!("{stream}") };
        prop_assert_eq!((found.host.to_string(), found.port), (host, port));
    }
}
