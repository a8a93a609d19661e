use ring::aead::Aad;

use super::keys::{Keys, Octets, Version, client_secret, expand};
use super::*;

/// The connection id of RFC 9001 A.1 and RFC 9369 A.1.
const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// The CRYPTO frame of RFC 9001 A.2.
const CRYPTO: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302\
    010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d001700180010000700050461\
    6c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43\
    e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c00024001003900\
    320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e515708060480\
    00ffff";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Protects a packet as a client does; `header` ends with a packet number of four octets.
fn seal(version: Version, id: &[u8], header: &[u8], number: u32, payload: &[u8]) -> Vec<u8> {
    let keys = Keys::derive(version, id).unwrap();
    let mut sealed = payload.to_vec();
    keys.packet.seal_in_place_append_tag(keys.nonce(number), Aad::from(header), &mut sealed).unwrap();
    let mask = keys.header.new_mask(&sealed[..16]).unwrap();
    let mut header = header.to_vec();
    header[0] ^= mask[0] & 0x0f;
    let at = header.len() - 4;
    header[at..].iter_mut().zip(&mask[1..]).for_each(|(octet, mask)| *octet ^= mask);
    [header, sealed].concat()
}

/// An Initial of version 1 with this payload, padded like a client's.
fn initial(id: &[u8], number: u32, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(payload.len().max(1100), 0);
    let length = (payload.len() + 4 + 16) as u16 | 0x4000;
    let header = [&[0xc3, 0, 0, 0, 1, id.len() as u8], id, &[0, 0], &length.to_be_bytes(), &number.to_be_bytes()];
    seal(Version::One, id, &header.concat(), number, &payload)
}

/// A CRYPTO frame.
fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let varint = |value: usize| (value as u32 | 0x8000_0000).to_be_bytes();
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}

fn hello() -> Vec<u8> {
    hex(CRYPTO)[4..].to_vec()
}

fn sni(outcome: Outcome<ClientHello, Error>) -> String {
    match outcome {
        Outcome::Complete(hello) => hello.sni.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// RFC 9001 A.1 and RFC 9369 A.1.
#[test]
fn derives_the_keys_of_the_rfcs() {
    for (version, key, iv, hp) in [
        (
            Version::One,
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
        ),
        (
            Version::Two,
            "8b1a0bc121284290a29e0971b5cd045d",
            "91f73e2351d8fa91660e909f",
            "45b95e15235d6f45a6b19cbcb0294ba9",
        ),
    ] {
        let secret = client_secret(version, &ID).unwrap();
        for (label, wanted) in version.labels().into_iter().zip([key, iv, hp]) {
            let mut out = vec![0; wanted.len() / 2];
            expand(&secret, label, Octets(out.len()), |okm| okm.fill(&mut out).ok()).unwrap();
            assert_eq!(out, hex(wanted), "{version:?} {}", label.escape_ascii());
        }
    }
}

/// The packet of RFC 9001 A.2, made from what goes into it; its beginning and its tag are those that the RFC prints.
#[test]
fn reads_the_initial_of_rfc_9001() {
    let mut payload = hex(CRYPTO);
    payload.resize(1162, 0);
    let packet = seal(Version::One, &ID, &hex("c300000001088394c8f03e5157080000449e00000002"), 2, &payload);
    let start = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c";
    assert_eq!(packet.len(), 1200);
    assert!(packet.starts_with(&hex(start)));
    assert!(packet.ends_with(&hex("e221af44860018ab0856972e194cd934")));
    assert_eq!(sni(Initials::new().push(&packet)), "example.com");
}

#[test]
fn reads_version_2() {
    let mut payload = hex(CRYPTO);
    payload.resize(1162, 0);
    let packet = seal(Version::Two, &ID, &hex("d36b3343cf088394c8f03e5157080000449e00000002"), 2, &payload);
    assert_eq!(sni(Initials::new().push(&packet)), "example.com");
}

#[test]
fn puts_a_hello_together_in_any_order() {
    let hello = hello();
    let (first, second) = hello.split_at(100);
    let late = initial(&ID, 1, &crypto(100, second));
    let early = initial(&ID, 0, &[crypto(40, &first[40..]), vec![0, 1], crypto(0, &first[..50])].concat());
    let mut initials = Initials::new();
    assert_eq!(initials.push(&late), Outcome::Incomplete);
    assert_eq!(sni(initials.push(&early)), "example.com");
    assert_eq!(sni(initials.push(&late)), "example.com", "sent again");
}

#[test]
fn keeps_connections_on_one_socket_apart() {
    let hello = hello();
    let mut initials = Initials::new();
    let other = [9; 8];
    assert_eq!(initials.push(&initial(&ID, 0, &crypto(0, &hello[..99]))), Outcome::Incomplete);
    assert_eq!(initials.push(&initial(&other, 0, &crypto(99, &hello[99..]))), Outcome::Incomplete);
    assert_eq!(sni(initials.push(&initial(&ID, 1, &crypto(99, &hello[99..])))), "example.com");
    assert_eq!(sni(initials.push(&initial(&other, 1, &crypto(0, &hello[..99])))), "example.com");
    for id in 0..100 {
        initials.push(&initial(&[id; 8], 0, &crypto(0, &hello[..9])));
    }
    assert_eq!(initials.connections.len(), CONNECTIONS_MAX);
}

/// After the server's answer the client addresses the id that the server chose, under the same keys (RFC 9000 7.2).
#[test]
fn follows_the_connection_id_that_the_server_chose() {
    let hello = hello();
    let mut initials = Initials::new();
    assert_eq!(initials.push(&initial(&ID, 0, &crypto(0, &hello[..99]))), Outcome::Incomplete);
    let mut payload = crypto(99, &hello[99..]);
    payload.resize(1100, 0);
    let header = [&[0xc3, 0, 0, 0, 1, 4][..], b"serv", &[0, 0], &(1120_u16 | 0x4000).to_be_bytes(), &[0, 0, 0, 1]];
    let packet = seal(Version::One, &ID, &header.concat(), 1, &payload);
    assert_eq!(sni(initials.push(&packet)), "example.com");
    assert_eq!(Initials::new().push(&packet), Outcome::Malformed(Error::Sealed));
}

#[test]
fn reads_on_through_coalesced_packets() {
    let hello = hello();
    // A 0-RTT packet (type 1) of five octets between two Initials, then a short header.
    let early = [&[0xd3, 0, 0, 0, 1, 8][..], &ID, &[0, 5], b"early"].concat();
    let (first, second) = (initial(&ID, 0, &crypto(0, &hello[..9])), initial(&ID, 1, &crypto(9, &hello[9..])));
    let datagram = [&first[..], &early, &second, b"\x40short"].concat();
    assert_eq!(sni(Initials::new().push(&datagram)), "example.com");
    assert_eq!(Initials::new().push(&early), Outcome::Incomplete);
    assert_eq!(Initials::new().push(&early.repeat(PACKETS_MAX + 1)), Outcome::Malformed(Error::Packets));
}

#[test]
fn refuses_what_no_client_sends() {
    let hello = hello();
    let push = |payload: &[u8]| Initials::new().push(&initial(&ID, 0, payload));
    let contradiction = [crypto(0, &hello[..50]), crypto(10, b"x")].concat();
    assert_eq!(push(&contradiction), Outcome::Malformed(Error::Conflicting));
    assert_eq!(push(&crypto(16_384, b"x")), Outcome::Malformed(Error::TooLarge));
    assert_eq!(push(&[0x08, 0, 0]), Outcome::Malformed(Error::Frame { kind: 8 }));
    assert_eq!(push(&[0x02, 1, 1, 0xff, 0xff]), Outcome::Malformed(Error::Frame { kind: 2 }));
    assert_eq!(push(&crypto(0, &[2, 0, 0, 0])), Outcome::Malformed(Error::Hello(tls::Error::NotHello { found: 2 })));
    // ACK with ECN counts and CONNECTION_CLOSE are allowed.
    assert_eq!(push(&[0x03, 1, 1, 1, 0, 0, 0, 1, 2, 3, 0x1c, 1, 6, 2, b'a', b'b']), Outcome::Incomplete);
}

#[test]
fn leaves_other_datagrams_alone() {
    let dns = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
    for datagram in [&b""[..], dns, b"\x40short", b"\xc0\xff\x00\x00\x1d\x08", b"\xc0\0\0\0\0\x08"] {
        assert_eq!(Initials::new().push(datagram), Outcome::Foreign);
    }
}

#[test]
fn a_cut_or_changed_packet_gives_nothing() {
    let packet = initial(&ID, 0, &crypto(0, &hello()));
    for end in 0..packet.len() {
        assert!(Initials::new().push(&packet[..end]).complete().is_none(), "{end}");
    }
    for at in (0..packet.len()).step_by(7) {
        let mut changed = packet.clone();
        changed[at] ^= 0x10;
        assert!(Initials::new().push(&changed).complete().is_none(), "{at}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics_whatever_is_sealed(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Initials::new().push(&initial(&ID, 0, &payload));
    }
}
