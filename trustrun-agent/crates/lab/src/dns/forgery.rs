//! Answers that no honest server sends, byte by byte. Each claims that something is at [`EVIL`]; none may be believed.

use std::fmt;
use std::sync::Arc;

use crate::defaults::EVIL;

/// Length of a DNS header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// A compression pointer to the question's name, right after the header (section 4.1.4).
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const CLASS_CHAOS: u16 = 3;

/// What is wrong with a forged answer. Unless it says otherwise, everything else about it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forgery {
    /// The transaction id is another.
    WrongId,
    /// Question and record are about `api.allowed.test`, which was not asked.
    OtherQuestion,
    /// The question is right, the record's owner is `api.allowed.test`.
    OtherOwner,
    /// The honest answer, and one record more: `api.allowed.test`.
    ForgedExtra,
    /// The honest answer, and in its additional section the name that was asked, elsewhere.
    ForgedAdditional,
    /// Sent from another port of the resolver.
    OtherPort,
    /// Sent from port 53 of [`EVIL`].
    OtherAddress,
    /// The owner is a compression pointer to itself.
    PointerLoop,
    /// The owner is a pointer past the end.
    PointerPastEnd,
    /// An A record that says it has 65535 octets.
    OversizedRdlength,
    /// An A record of 16 octets.
    LongRdlength,
    /// An A record of three octets.
    ShortRdlength,
    /// The record's class is CHAOS.
    WrongClass,
    /// The question's class is CHAOS.
    QuestionClass,
    /// NXDOMAIN, with a record.
    NxWithRecord,
    /// The message says that it is a query.
    NotAnAnswer,
    /// The question is one label that contains the dots: `api.allowed.test` as a single label.
    DotInLabel,
    /// 65535 records announced, one given.
    TooFewRecords,
    /// Two questions, the first of them right.
    TwoQuestions,
    /// Cut in the middle of the record.
    Cut,
}

impl Forgery {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::WrongId,
        Self::OtherQuestion,
        Self::OtherOwner,
        Self::ForgedExtra,
        Self::ForgedAdditional,
        Self::OtherPort,
        Self::OtherAddress,
        Self::PointerLoop,
        Self::PointerPastEnd,
        Self::OversizedRdlength,
        Self::LongRdlength,
        Self::ShortRdlength,
        Self::WrongClass,
        Self::QuestionClass,
        Self::NxWithRecord,
        Self::NotAnAnswer,
        Self::DotInLabel,
        Self::TooFewRecords,
        Self::TwoQuestions,
        Self::Cut,
    ];

    /// A label for it: `WrongId` is asked for as `wrongid.hostile.test`.
    #[must_use]
    pub fn label(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

/// A maker of packets of a test's own: it is given the query and returns what the resolver sends before the honest
/// answer.
#[derive(Clone)]
pub struct Forger(Arc<Make>);

type Make = dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync;

impl Forger {
    /// Wraps a function.
    pub fn new(make: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn run(&self, query: &[u8]) -> Vec<Vec<u8>> {
        (self.0)(query)
    }
}

impl fmt::Debug for Forger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forger")
    }
}

/// Where a packet is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The socket that was asked.
    Resolver,
    /// The same address, another port.
    OtherPort,
    /// [`EVIL`], port 53.
    OtherAddress,
}

/// The parts of an answer, as a forger wants them.
struct Draft {
    id: [u8; 2],
    flags: [u8; 2],
    counts: [u16; 4],
    question: Vec<u8>,
    records: Vec<u8>,
}

impl Draft {
    fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.len() + self.records.len());
        out.extend(self.id);
        out.extend(self.flags);
        for count in self.counts {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.question);
        out.extend(self.records);
        out
    }
}

pub(super) fn forge(kind: Forgery, query: &[u8], honest: Option<&[u8]>) -> Vec<(Via, Vec<u8>)> {
    let Some(question) = question(query) else { return Vec::new() };
    let good = || record(&TO_QUESTION, CLASS_IN, 4, &EVIL.octets());
    let mut draft = Draft {
        id: [query[0], query[1]],
        flags: [0x81, 0x80], // an answer; recursion desired and available; no error
        counts: [1, 1, 0, 0],
        question: question.to_vec(),
        records: good(),
    };
    let mut via = Via::Resolver;
    match kind {
        Forgery::WrongId => draft.id[1] ^= 0x55,
        Forgery::OtherQuestion => draft.question = question_for(&api(), CLASS_IN),
        Forgery::OtherOwner => draft.records = record(&api(), CLASS_IN, 4, &EVIL.octets()),
        Forgery::ForgedExtra => return amended(honest, 6, &record(&api(), CLASS_IN, 4, &EVIL.octets())),
        Forgery::ForgedAdditional => return amended(honest, 10, &good()),
        Forgery::OtherPort => via = Via::OtherPort,
        Forgery::OtherAddress => via = Via::OtherAddress,
        Forgery::PointerLoop => {
            let here = (HEADER + draft.question.len()) as u16 | 0xc000;
            draft.records = record(&here.to_be_bytes(), CLASS_IN, 4, &EVIL.octets());
        }
        Forgery::PointerPastEnd => draft.records = record(&[0xff, 0xff], CLASS_IN, 4, &EVIL.octets()),
        Forgery::OversizedRdlength => draft.records = record(&TO_QUESTION, CLASS_IN, u16::MAX, &EVIL.octets()),
        Forgery::LongRdlength => draft.records = record(&TO_QUESTION, CLASS_IN, 16, &[EVIL.octets(); 4].concat()),
        Forgery::ShortRdlength => draft.records = record(&TO_QUESTION, CLASS_IN, 3, &EVIL.octets()[..3]),
        Forgery::WrongClass => draft.records = record(&TO_QUESTION, CLASS_CHAOS, 4, &EVIL.octets()),
        Forgery::QuestionClass => {
            let class = draft.question.len() - 1;
            draft.question[class] = CLASS_CHAOS as u8;
        }
        Forgery::NxWithRecord => draft.flags[1] |= 3,
        Forgery::NotAnAnswer => draft.flags[0] &= 0x7f,
        Forgery::DotInLabel => {
            let label = b"api.allowed.test";
            let name = [&[label.len() as u8], label.as_slice(), &[0]].concat();
            draft.question = question_for(&name, CLASS_IN);
        }
        Forgery::TooFewRecords => draft.counts[1] = u16::MAX,
        Forgery::TwoQuestions => {
            draft.counts[0] = 2;
            draft.question.extend(question_for(&api(), CLASS_IN));
        }
        Forgery::Cut => draft.records.truncate(13),
    }
    vec![(via, draft.bytes())]
}

/// The honest answer with one record more, counted in the 16 bits at `counter`.
fn amended(honest: Option<&[u8]>, counter: usize, extra: &[u8]) -> Vec<(Via, Vec<u8>)> {
    let Some(mut packet) = honest.map(<[u8]>::to_vec) else { return Vec::new() };
    // An extra answer goes before the other sections; those of an EDNS client are sent without their OPT record.
    let (authorities, additionals) = (counter_at(&packet, 8), counter_at(&packet, 10));
    if authorities != 0 || additionals > 1 {
        return Vec::new();
    }
    if additionals == 1 {
        // OPT without options: a root owner, type, class, TTL, and an empty rdata.
        packet.truncate(packet.len().saturating_sub(11));
        packet[10..12].copy_from_slice(&[0, 0]);
    }
    let count = counter_at(&packet, counter) + 1;
    packet[counter..counter + 2].copy_from_slice(&count.to_be_bytes());
    packet.extend(extra);
    vec![(Via::Resolver, packet)]
}

fn counter_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// The question section of a query: name, type and class.
fn question(query: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1 + length;
        if length == 0 {
            return query.get(HEADER..at + 4);
        }
    }
}

fn question_for(name: &[u8], class: u16) -> Vec<u8> {
    [name, &TYPE_A.to_be_bytes(), &class.to_be_bytes()].concat()
}

fn api() -> Vec<u8> {
    b"\x03api\x07allowed\x04test\x00".to_vec()
}

fn record(owner: &[u8], class: u16, length: u16, data: &[u8]) -> Vec<u8> {
    let ttl = 3600u32;
    [owner, &TYPE_A.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}
