//! DNS messages: as resolvers write them, as hickory encodes them, and as nobody should.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message as Theirs, MessageType, OpCode, Query},
    rr::{
        Name, RData, Record as TheirRecord, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, MX, SVCB, TXT,
            svcb::{Alpn, EchConfigList, IpHint, SvcParamKey, SvcParamValue},
        },
    },
};
use proptest::{collection::vec, prelude::*};
use trustrun_wire::dns::{
    CLASS_IN, Data, Error, Message, NXDOMAIN, RECORDS_MAX, TcpFrames, matches, name_to_wire, negative_answer, query,
    rtype, type_word,
};

/// The header of an answer: one question, so many records.
fn answer(records: u16, rest: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34, 0x81, 0x80, 0, 1][..], &records.to_be_bytes(), &[0, 0, 0, 0], rest].concat()
}

/// A question for `example.com`, type A, whose name is at byte 12.
const QUESTION: &[u8] = b"\x07example\x03com\x00\x00\x01\x00\x01";

/// A record whose owner is the question's name.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data]
        .concat()
}

#[test]
fn a_query_of_ours_reads_back() {
    let bytes = query(7, "Api.Example.COM.", rtype::AAAA).unwrap();
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.id, message.flags.answer, message.flags.recursion_desired), (7, false, true));
    assert_eq!(message.question.name, "api.example.com");
    assert_eq!((message.question.qtype, message.question.qclass), (rtype::AAAA, CLASS_IN));
    assert_eq!(Theirs::from_vec(&bytes).unwrap().queries[0].name().to_ascii(), "Api.Example.COM.");
    assert!(query(7, "a..b", rtype::A).is_err());
}

#[test]
fn follows_aliases_to_addresses() {
    let cdn = b"\x03cdn\xc0\x14";
    let records = [
        // An address of a name that nobody asked for, before the alias.
        [&b"\x04evil\xc0\x14\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04"[..], &[192, 0, 2, 66]].concat(),
        [&cdn[..], b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04", &[192, 0, 2, 1]].concat(),
        record(rtype::CNAME, 300, cdn),
        record(rtype::A, 0x8000_0000, &[192, 0, 2, 2]),
    ];
    let message = Message::decode(&answer(4, &[QUESTION, &records.concat()].concat())).unwrap();
    assert_eq!(message.answers[2].data, Data::Cname("cdn.com".into()));
    assert_eq!(message.aliases(), ["cdn.com"]);
    let address = |last| IpAddr::from([192, 0, 2, last]);
    assert_eq!(message.addresses(), [(address(1), 60), (address(2), 0)]);
}

#[test]
fn an_alias_loop_ends() {
    let records = [record(rtype::CNAME, 1, &[0xc0, 12]), record(rtype::CNAME, 1, &[0xc0, 12])].concat();
    let message = Message::decode(&answer(2, &[QUESTION, &records].concat())).unwrap();
    assert_eq!((message.aliases(), message.addresses()), (vec![], vec![]));
}

#[test]
fn refuses_malformed_messages() {
    let with = |records: u16, record: Vec<u8>| Message::decode(&answer(records, &[QUESTION, &record].concat()));
    let two_questions = [&[0; 5][..], &[2, 0, 0, 0, 0, 0, 0], QUESTION, QUESTION].concat();
    for (found, wanted) in [
        (with(1, record(rtype::A, 1, &[1, 2, 3])), Error::Data { rtype: 1 }),
        (with(1, record(rtype::AAAA, 1, &[1; 4])), Error::Data { rtype: 28 }),
        (with(1, record(rtype::CNAME, 1, b"\x01a\x00x")), Error::Data { rtype: 5 }),
        (with(1, record(rtype::CNAME, 1, b"\x05a")), Error::Data { rtype: 5 }),
        (with(1, record(rtype::HTTPS, 1, b"\x00\x01\x00\x00\x04\x00\x03abc")), Error::Data { rtype: 65 }),
        (with(1, record(rtype::HTTPS, 1, b"\x00\x01\x00\x00\x05\x00\x00\x00\x05\x00\x00")), Error::Data { rtype: 65 }),
        (with(2, record(rtype::A, 1, &[1, 2, 3, 4])), Error::Truncated { part: "name" }),
        (with(RECORDS_MAX + 1, vec![]), Error::Records { count: RECORDS_MAX + 1 }),
        (Message::decode(&two_questions), Error::Questions { count: 2 }),
        (Message::decode(b"\0\0"), Error::Truncated { part: "header" }),
        (Message::decode(&answer(0, b"\x01a\x00\x00")), Error::Truncated { part: "question" }),
    ] {
        match (found, wanted) {
            (Err(Error::Truncated { .. }), Error::Truncated { .. }) => {}
            (found, wanted) => assert_eq!(found, Err(wanted)),
        }
    }
}

#[test]
fn a_cut_capture_gives_the_whole_records() {
    let records = [record(rtype::A, 1, &[192, 0, 2, 1]), record(rtype::A, 1, &[192, 0, 2, 2])].concat();
    let bytes = answer(2, &[QUESTION, &records].concat());
    let part = Message::decode_start(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!((part.cut, part.answers.len()), (true, 1));
    assert!(!Message::decode_start(&bytes).unwrap().cut);
}

#[test]
fn a_negative_answer_is_what_the_client_waits_for() {
    let mut asked = query(0xbeef, "ExAmPlE.com", rtype::A).unwrap();
    // An EDNS record behind the question, as glibc and c-ares send it, does not come back.
    asked[11] = 1;
    asked.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
    let answer = negative_answer(&asked, NXDOMAIN).unwrap();
    let message = Message::decode(&answer).unwrap();
    assert!(matches(&Message::decode(&asked).unwrap(), &message));
    assert_eq!((message.flags.rcode, message.flags.recursion_desired, message.answers.len()), (NXDOMAIN, true, 0));
    assert_eq!(answer[3] & 0x80, 0x80, "RA");
    assert_eq!(answer[12..], asked[12..asked.len() - 11], "the case as it was asked");
    assert_eq!(Theirs::from_vec(&answer).unwrap().metadata.message_type, MessageType::Response);
    assert_eq!(negative_answer(&answer, NXDOMAIN), None, "an answer is not answered");
    assert_eq!(negative_answer(&asked[..14], NXDOMAIN), None);
}

#[test]
fn an_answer_matches_only_its_query() {
    let read = |id, name, kind| Message::decode(&query(id, name, kind).unwrap()).unwrap();
    let asked = read(1, "example.com", rtype::A);
    let answered = |id, name, kind| {
        let bytes = negative_answer(&query(id, name, kind).unwrap(), NXDOMAIN).unwrap();
        Message::decode(&bytes).unwrap()
    };
    assert!(matches(&asked, &answered(1, "EXAMPLE.com", rtype::A)));
    assert!(!matches(&asked, &answered(2, "example.com", rtype::A)));
    assert!(!matches(&asked, &answered(1, "example.org", rtype::A)));
    assert!(!matches(&asked, &answered(1, "example.com", rtype::AAAA)));
    assert!(!matches(&asked, &asked));
    let mut chaos = answered(1, "example.com", rtype::A);
    chaos.question.qclass = 3;
    assert!(!matches(&asked, &chaos));
}

#[test]
fn types_have_words() {
    let words: Vec<_> = [1, 28, 65, 64, 65_280].into_iter().map(type_word).collect();
    assert_eq!(words, ["A", "AAAA", "HTTPS", "SVCB", "TYPE65280"]);
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(b'a'..=b'z', 1..12), vec(any::<u8>(), 1..20)]
}

fn name() -> impl Strategy<Value = Name> {
    vec(label(), 1..5).prop_map(|labels| Name::from_labels(labels.iter().map(|label| &label[..])).unwrap())
}

fn rdata() -> impl Strategy<Value = RData> {
    let hints = (name(), vec(any::<Ipv4Addr>(), 1..4), vec(any::<Ipv6Addr>(), 1..4), any::<[bool; 4]>(), 0..9_u16);
    let svcb = hints.prop_map(|(target, four, six, with, priority)| {
        let params = [
            (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".into()]))),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(four.into_iter().map(A).collect()))),
            (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1, 2, 3]))),
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(six.into_iter().map(AAAA).collect()))),
        ];
        let params = params.into_iter().zip(with).filter_map(|(param, with)| with.then_some(param)).collect();
        SVCB::new(priority, target, params)
    });
    let svcb = svcb.boxed();
    prop_oneof![
        any::<Ipv4Addr>().prop_map(|address| RData::A(A(address))),
        any::<Ipv6Addr>().prop_map(|address| RData::AAAA(AAAA(address))),
        name().prop_map(|target| RData::CNAME(CNAME(target))),
        name().prop_map(|host| RData::MX(MX::new(1, host))),
        Just(RData::TXT(TXT::new(vec!["text".into()]))),
        svcb.clone().prop_map(|svcb| RData::HTTPS(HTTPS(svcb))),
        svcb.prop_map(RData::SVCB),
    ]
}

/// The wire form of a name in lower case, which is what two decoders must agree about.
fn wire(name: &Name) -> Vec<u8> {
    let labels = name.iter().flat_map(|label| [vec![label.len() as u8], label.to_ascii_lowercase()].concat());
    labels.chain([0]).collect()
}

fn same_name(ours: &str, theirs: &Name) -> bool {
    name_to_wire(ours) == Ok(wire(theirs))
}

fn same_data(ours: &Data, theirs: &RData) -> bool {
    match (ours, theirs) {
        (Data::A(ours), RData::A(A(theirs))) => ours == theirs,
        (Data::Aaaa(ours), RData::AAAA(AAAA(theirs))) => ours == theirs,
        (Data::Cname(ours), RData::CNAME(CNAME(theirs))) => same_name(ours, theirs),
        (Data::Svcb(ours), RData::HTTPS(HTTPS(theirs)) | RData::SVCB(theirs)) => {
            let param = |key| theirs.svc_params.iter().find(|(k, _)| *k == key).map(|(_, value)| value.clone());
            let four = match param(SvcParamKey::Ipv4Hint) {
                Some(SvcParamValue::Ipv4Hint(IpHint(hints))) => hints.into_iter().map(|a| a.0).collect(),
                _ => vec![],
            };
            let six = match param(SvcParamKey::Ipv6Hint) {
                Some(SvcParamValue::Ipv6Hint(IpHint(hints))) => hints.into_iter().map(|a| a.0).collect(),
                _ => vec![],
            };
            ours.priority == theirs.svc_priority
                && same_name(&ours.target, &theirs.target_name)
                && (&ours.ipv4hint, &ours.ipv6hint) == (&four, &six)
                && ours.ech == param(SvcParamKey::EchConfigList).is_some()
        }
        (Data::Other, RData::MX(_) | RData::TXT(_)) => true,
        _ => false,
    }
}

proptest! {
    #[test]
    fn reads_what_hickory_encodes(
        id: u16, asked in name(), records in vec((name(), any::<bool>(), 0..=i32::MAX as u32, rdata()), 0..12), is_answer: bool,
    ) {
        let kind = if is_answer { MessageType::Response } else { MessageType::Query };
        let mut theirs = Theirs::new(id, kind, OpCode::Query);
        theirs.metadata.recursion_desired = true;
        theirs.add_query(Query::query(asked.clone(), RecordType::AAAA));
        for (owner, of_asked, ttl, data) in records {
            theirs.add_answer(TheirRecord::from_rdata(if of_asked { asked.clone() } else { owner }, ttl, data));
        }
        let bytes = theirs.to_vec().unwrap();
        let ours = Message::decode(&bytes).unwrap();
        prop_assert_eq!((ours.id, ours.flags.answer, ours.flags.opcode), (id, is_answer, 0));
        prop_assert!(same_name(&ours.question.name, &asked));
        prop_assert_eq!(ours.answers.len(), theirs.answers.len());
        for (ours, theirs) in ours.answers.iter().zip(&theirs.answers) {
            prop_assert!(same_name(&ours.owner, &theirs.name));
            prop_assert_eq!(ours.ttl, theirs.ttl);
            prop_assert!(same_data(&ours.data, &theirs.data), "{:?} {:?}", ours, theirs);
        }
        for end in 0..bytes.len() {
            prop_assert!(Message::decode(&bytes[..end]).is_err() , "{}", end);
        }
    }

    /// Where both read a hostile message, they read the same question and addresses.
    #[test]
    fn agrees_with_hickory_on_changed_messages(changes in vec((12_usize..80, any::<u8>()), 0..4)) {
        let cname = record(rtype::CNAME, 9, b"\x03cdn\xc0\x0c");
        let address = [&[0xc0, 41][..], &record(rtype::A, 9, &[192, 0, 2, 1])[2..]].concat();
        let mut bytes = answer(2, &[QUESTION, &cname, &address].concat());
        for (at, octet) in changes {
            if let Some(byte) = bytes.get_mut(at) { *byte = octet; }
        }
        let (Ok(ours), Ok(theirs)) = (Message::decode(&bytes), Theirs::from_vec(&bytes)) else { return Ok(()) };
        prop_assert!(same_name(&ours.question.name, theirs.queries[0].name()));
        prop_assert_eq!(ours.answers.len(), theirs.answers.len());
        for (ours, theirs) in ours.answers.iter().zip(&theirs.answers) {
            prop_assert!(same_name(&ours.owner, &theirs.name));
            if let (CLASS_IN, Data::A(_) | Data::Cname(_)) = (ours.class, &ours.data) {
                prop_assert!(same_data(&ours.data, &theirs.data), "{:?} {:?}", ours, theirs);
            }
        }
    }

    #[test]
    fn never_panics(bytes in vec(any::<u8>(), 0..300), records: u16) {
        let _ = Message::decode(&bytes);
        let _ = Message::decode_start(&answer(records % 9, &[QUESTION, &bytes].concat()));
        let _ = negative_answer(&bytes, NXDOMAIN);
        if let Ok(message) = Message::decode_start(&answer(1, &bytes)) {
            let _ = message.addresses();
        }
    }

    #[test]
    fn frames_come_out_however_the_stream_is_split(messages in vec(vec(any::<u8>(), 0..50), 0..8), size in 1_usize..40) {
        let framed = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
        let stream: Vec<u8> = messages.iter().flat_map(framed).collect();
        let mut frames = TcpFrames::new();
        let mut found = Vec::new();
        for mut part in stream.chunks(size) {
            while let Some(message) = frames.next(&mut part) {
                found.push(message);
            }
            prop_assert!(part.is_empty());
        }
        prop_assert_eq!(found, messages);
        prop_assert!(!frames.is_mid_message());
    }
}
