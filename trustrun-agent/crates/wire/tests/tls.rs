//! ClientHellos of real clients, and of clients that lie.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use trustrun_wire::{
    Gather, Outcome,
    tls::{ClientHello, Ech, Error, HELLO_MAX},
};

/// A client, its stream, and the name, protocols and version that are in it.
type Captured = (&'static str, &'static [u8], Option<&'static str>, &'static [&'static str], u16);
/// Captured on loopback from Debian 12's curl 7.88.1, openssl 3.0.19, node 20.20.2 and CPython 3.11.7.
const CAPTURED: [Captured; 6] = [
    ("curl", include_bytes!("data/curl.hello"), Some("example.com"), &["h2", "http/1.1"], 0x0304),
    ("openssl", include_bytes!("data/openssl.hello"), Some("www.example.org"), &["h2", "http/1.1"], 0x0304),
    ("openssl without", include_bytes!("data/openssl-no-sni.hello"), None, &[], 0x0304),
    ("openssl 1.2", include_bytes!("data/openssl-tls12.hello"), Some("www.example.org"), &[], 0x0303),
    ("node", include_bytes!("data/node.hello"), Some("api.example.net"), &["h2", "http/1.1"], 0x0304),
    ("python", include_bytes!("data/python.hello"), Some("pypi.example.org"), &[], 0x0304),
];

/// What rustls sends to `host`.
fn rustls_hello(host: &str, alpn: Vec<Vec<u8>>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    let name = host.to_string().try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = Vec::new();
    connection.write_tls(&mut stream).unwrap();
    stream
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), vec16(value)].concat()
}

/// A server_name extension with these entries of type host_name.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = names.iter().flat_map(|name| [vec![0], vec16(name)].concat()).collect();
    extension(0, &vec16(&entries))
}

/// The handshake message with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &vec16(extensions)].concat();
    [&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// The message in records with fragments of that many octets.
fn records(message: &[u8], fragment: usize) -> Vec<u8> {
    message.chunks(fragment).flat_map(|chunk| [vec![22, 3, 1], vec16(chunk)].concat()).collect()
}

fn parse(extensions: &[u8]) -> Outcome<ClientHello, Error> {
    ClientHello::from_stream(&records(&message(extensions), 16_384))
}

/// Every prefix is incomplete; what follows changes nothing; segments in any order are gathered to the same.
fn whole_only(stream: &[u8]) {
    let whole = ClientHello::from_stream(stream);
    for end in 0..stream.len() {
        assert_eq!(ClientHello::from_stream(&stream[..end]), Outcome::Incomplete, "{end}");
        let mut gather = Gather::new();
        gather.insert(end as u64, &stream[end..]);
        gather.insert(0, &stream[..end]);
        assert_eq!(gather.prefix(), stream);
    }
    assert_eq!(ClientHello::from_stream(&[stream, b"GET / HTTP/1.1"].concat()), whole);
}

#[test]
fn reads_real_clients() {
    for (client, stream, sni, alpn, version) in CAPTURED {
        let hello = ClientHello::from_stream(stream).complete().expect(client);
        assert_eq!(hello.sni.as_deref(), sni, "{client}");
        assert_eq!(hello.alpn, alpn, "{client}");
        assert!(hello.versions.contains(&version), "{client}: {:x?}", hello.versions);
        assert_eq!(hello.ech, None, "{client}");
        whole_only(stream);
    }
    let stream = rustls_hello("Sub.Example.COM", vec![b"h2".to_vec()]);
    let hello = ClientHello::from_stream(&stream).complete().unwrap();
    assert_eq!((hello.sni.as_deref(), &hello.alpn[..]), (Some("sub.example.com"), &["h2".to_string()][..]));
    whole_only(&stream);
}

#[test]
fn reads_a_hello_in_many_records() {
    let message = message(&names(&[b"example.com"]));
    let whole = ClientHello::from_stream(&records(&message, 16_384));
    for fragment in 1..message.len() {
        let stream = records(&message, fragment);
        assert_eq!(ClientHello::from_stream(&stream), whole, "{fragment}");
    }
    whole_only(&records(&message, 3));
}

#[test]
fn reads_a_large_hello_and_no_larger() {
    let large = |padding: usize| [extension(21, &vec![0; padding]), names(&[b"example.com"])].concat();
    let hello = parse(&large(65_000)).complete().unwrap();
    assert_eq!(hello.sni.as_deref(), Some("example.com"));
    let mut message = message(&[]);
    message[1..4].copy_from_slice(&(HELLO_MAX as u32).to_be_bytes()[1..]);
    let error = Error::TooLarge { length: HELLO_MAX + 4 };
    assert_eq!(ClientHello::from_stream(&records(&message[..4], 4)), Outcome::Malformed(error));
}

#[test]
fn tells_encrypted_hellos() {
    let ech = |kind, value: &[u8]| parse(&[names(&[b"front.example"]), extension(kind, value)].concat());
    assert_eq!(ech(0xfe0d, &[0, 0, 1, 0, 1, 9]).complete().unwrap().ech, Some(Ech::Outer));
    assert_eq!(ech(0xfe0d, &[1]).complete().unwrap().ech, Some(Ech::Inner));
    assert_eq!(ech(0xffce, b"draft").complete().unwrap().ech, Some(Ech::Esni));
    assert_eq!(ech(0xfe0d, &[2]), Outcome::Malformed(Error::Field { field: "encrypted client hello" }));
}

#[test]
fn refuses_what_can_be_read_in_two_ways() {
    let cases: [(Vec<u8>, Error); 11] = [
        (names(&[b"allowed.example", b"evil.example"]), Error::Names),
        (names(&[]), Error::Names),
        (extension(0, &[]), Error::Names),
        (extension(0, &vec16(&[&[1][..], &vec16(b"a")].concat())), Error::Names),
        (extension(0, &[vec16(&[&[0][..], &vec16(b"a")].concat()), vec![0]].concat()), Error::Names),
        ([names(&[b"a"]), names(&[b"b"])].concat(), Error::Twice { extension: 0 }),
        (names(&[b"192.0.2.1"]), Error::NotHostName),
        (names(&[b"allowed.example\0.evil.example"]), Error::NotHostName),
        (names(&[b""]), Error::NotHostName),
        (extension(16, &vec16(&[0])), Error::Field { field: "ALPN" }),
        (extension(43, &[3, 3, 4, 3]), Error::Field { field: "supported versions" }),
    ];
    for (extensions, error) in cases {
        assert_eq!(parse(&extensions), Outcome::Malformed(error), "{}", extensions.escape_ascii());
    }
    let good = message(&names(&[b"a.example"]));
    let stream = |bytes: &[&[u8]]| ClientHello::from_stream(&bytes.concat());
    let interrupted = stream(&[&records(&good[..9], 9), &[21, 3, 1, 0, 2, 1, 0], &records(&good[9..], 99)]);
    assert_eq!(interrupted, Outcome::Malformed(Error::Interrupted { found: 21 }));
    assert_eq!(stream(&[&[22, 3, 1, 0, 0]]), Outcome::Malformed(Error::RecordLength { length: 0 }));
    assert_eq!(stream(&[&[22, 3, 1, 0x40, 1]]), Outcome::Malformed(Error::RecordLength { length: 0x4001 }));
    assert_eq!(stream(&[&records(&[2, 0, 0, 0], 4)]), Outcome::Malformed(Error::NotHello { found: 2 }));
    let trailing = [&[1, 0, 0, good[3] + 1], &good[4..], &[0]].concat();
    assert_eq!(stream(&[&records(&trailing, 999)]), Outcome::Malformed(Error::Field { field: "end" }));
    for other in [&b"GET / HTTP/1.1"[..], &[22, 2], &[0x80, 0x2e, 1, 3, 1]] {
        assert_eq!(ClientHello::from_stream(other), Outcome::Foreign);
    }
}

#[test]
fn a_hello_may_have_no_extensions() {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 47], &[1, 0]].concat();
    let stream = records(&[&[1, 0, 0, body.len() as u8], &body[..]].concat(), 99);
    assert_eq!(
        ClientHello::from_stream(&stream),
        Outcome::Complete(ClientHello { versions: vec![0x0301], ..ClientHello::default() })
    );
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ClientHello::from_stream(&bytes);
        let _ = ClientHello::from_handshake(&bytes);
        let _ = ClientHello::from_handshake(&message(&bytes));
    }

    /// A change of one octet is never a panic, and a name that comes of it is a host name.
    #[test]
    fn a_changed_octet_gives_a_host_name_or_none(which in 0..CAPTURED.len(), at in 0_usize..600, octet: u8) {
        let mut stream = CAPTURED[which].1.to_vec();
        let at = at % stream.len();
        stream[at] = octet;
        if let Some(ClientHello { sni: Some(name), .. }) = ClientHello::from_stream(&stream).complete() {
            prop_assert_eq!(trustrun_wire::host::host_name(name.as_bytes()), Some(name));
        }
    }

    /// The outcome never changes again once it is there.
    #[test]
    fn more_bytes_never_change_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..120), head in any::<bool>()) {
        let stream = if head { records(&[&[1, 0, 0, 60], &bytes[..]].concat(), 40) } else { bytes };
        let whole = ClientHello::from_stream(&stream);
        for end in 0..stream.len() {
            let part = ClientHello::from_stream(&stream[..end]);
            prop_assert!(part.is_incomplete() || part == whole);
        }
    }
}
