//! DNS messages (RFC 1035), as far as the agent needs them: one question, and the answers to it.
//!
//! Decoding is [`Message::decode`], names are in `name`, what the agent itself says is in `build`, and `frames` cuts
//! the messages out of a TCP stream. Deciding whether an answer is believed is not done here; [`matches()`] only tells
//! whether it belongs to a query.

mod build;
mod decode;
mod frames;
mod name;

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use build::{FORMERR, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, negative_answer, query};
pub use decode::{HINTS_MAX, RECORDS_MAX};
pub use frames::TcpFrames;
pub use name::name_to_wire;

/// Class IN (RFC 1035 3.2.4).
pub const CLASS_IN: u16 = 1;

/// Types of records (IANA, "Resource Record (RR) TYPEs").
pub mod rtype {
    /// RFC 1035 3.4.1
    pub const A: u16 = 1;
    /// RFC 1035 3.3.1
    pub const CNAME: u16 = 5;
    /// RFC 3596
    pub const AAAA: u16 = 28;
    /// RFC 9460
    pub const SVCB: u16 = 64;
    /// RFC 9460
    pub const HTTPS: u16 = 65;
}

/// Why a DNS message could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end inside something.
    #[error("the DNS message ends inside its {part}")]
    Truncated {
        /// What was being read.
        part: &'static str,
    },
    /// Only messages with exactly one question mean something (RFC 9619).
    #[error("the DNS message has {count} questions instead of one")]
    Questions {
        /// How many.
        count: u16,
    },
    /// More answer records than [`RECORDS_MAX`].
    #[error("the DNS message has {count} answers, more than {RECORDS_MAX}")]
    Records {
        /// How many.
        count: u16,
    },
    /// A compression pointer that does not go back to an earlier name, or one of too many (RFC 1035 4.1.4).
    #[error("the DNS name at byte {at} has a compression pointer that does not lead back")]
    Pointer {
        /// Where the pointer is.
        at: usize,
    },
    /// A label type other than a plain label and a pointer (RFC 6891 5).
    #[error("the DNS name has an unknown label type at byte {at}")]
    Label {
        /// Where the label is.
        at: usize,
    },
    /// More than 255 octets (RFC 1035 2.3.4).
    #[error("the DNS name is longer than 255 octets")]
    NameLength,
    /// Text that is no name: an empty or overlong label, or a broken escape.
    #[error("not a DNS name: {why}")]
    NameText {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Data of a record that does not fit its type.
    #[error("the data of the {} record is malformed", type_word(*rtype))]
    Data {
        /// The record's type.
        rtype: u16,
    },
}

/// The header's flags (RFC 1035 4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// QR: an answer, not a query.
    pub answer: bool,
    /// 0 is a standard query.
    pub opcode: u8,
    /// TC: the answer did not fit; the client asks again over TCP.
    pub truncated: bool,
    /// RD.
    pub recursion_desired: bool,
    /// The four bits of the header; 0 is no error, 3 is NXDOMAIN.
    pub rcode: u8,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Lower case, without the trailing dot; `.` is the root. A dot or backslash within a label, and any octet that is
    /// not a printable ASCII character, is written `\DDD` (RFC 4343 2.1), so that one text is one name and is safe to
    /// show.
    pub name: String,
    /// The type.
    pub qtype: u16,
    /// The class.
    pub qclass: u16,
}

/// A query or a response: the header, the question and the answer section. Authority and additional records are not
/// read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The client's number for it.
    pub id: u16,
    /// The header's flags.
    pub flags: Flags,
    /// The one question.
    pub question: Question,
    /// The answer section, in order.
    pub answers: Vec<Record>,
    /// Whether answers are missing because the bytes were cut ([`Message::decode_start`]).
    pub cut: bool,
}

/// An answer record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whom it is about; written as [`Question::name`].
    pub owner: String,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// Seconds. Values with the top bit set are 0 (RFC 2181 8).
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The owner is an alias of this name.
    Cname(String),
    /// A SVCB or HTTPS record; the record's type tells which.
    Svcb(Svcb),
    /// A type or class that is not read.
    Other,
}

/// A SVCB or HTTPS record (RFC 9460 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svcb {
    /// 0 makes the owner an alias of `target`.
    pub priority: u16,
    /// `.` stands for the owner itself.
    pub target: String,
    /// Addresses that a client may use without asking for them.
    pub ipv4hint: Vec<Ipv4Addr>,
    /// Addresses that a client may use without asking for them.
    pub ipv6hint: Vec<Ipv6Addr>,
    /// Whether there are keys to encrypt the ClientHello with.
    pub ech: bool,
}

impl Message {
    /// The addresses that the answer gives for the name that was asked, with their TTL: records of that name and of
    /// what it is an alias of, in any order. Records about other names do not count, and neither do address hints.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpAddr, u32)> {
        let chain = self.aliases();
        let of_chain = |owner: &str| owner == self.question.name || chain.contains(&owner);
        let address = |record: &Record| match record.data {
            Data::A(address) => Some((address.into(), record.ttl)),
            Data::Aaaa(address) => Some((address.into(), record.ttl)),
            Data::Cname(_) | Data::Svcb(_) | Data::Other => None,
        };
        self.answers.iter().filter(|record| of_chain(&record.owner)).filter_map(address).collect()
    }

    /// The names that the asked name is an alias of, in order; at most [`CHAIN_MAX`].
    #[must_use]
    pub fn aliases(&self) -> Vec<&str> {
        let mut chain: Vec<&str> = Vec::new();
        let mut owner = self.question.name.as_str();
        while chain.len() < CHAIN_MAX {
            let next = self.answers.iter().find_map(|record| match &record.data {
                Data::Cname(target) if record.owner == owner => Some(target.as_str()),
                _ => None,
            });
            match next {
                Some(next) if next != self.question.name && !chain.contains(&next) => chain.push(next),
                _ => break,
            }
            owner = chain.last().copied().unwrap_or(owner);
        }
        chain
    }
}

/// Most aliases that are followed. Resolvers stop at 16 or fewer (unbound 12, glibc's buffer, BIND 16).
pub const CHAIN_MAX: usize = 16;

/// Whether `answer` belongs to `query`: id, opcode, name, type and class are the same, and it is an answer. The server's
/// address and port are the caller's to compare.
#[must_use]
pub fn matches(query: &Message, answer: &Message) -> bool {
    !query.flags.answer
        && answer.flags.answer
        && query.id == answer.id
        && query.flags.opcode == answer.flags.opcode
        && query.question == answer.question
}

/// The word for a type: `A`, `AAAA`, `HTTPS`; `TYPE65280` for those that have none here (RFC 3597 5).
#[must_use]
pub fn type_word(rtype: u16) -> Cow<'static, str> {
    Cow::Borrowed(match rtype {
        rtype::A => "A",
        2 => "NS",
        rtype::CNAME => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        rtype::AAAA => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        52 => "TLSA",
        rtype::SVCB => "SVCB",
        rtype::HTTPS => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        _ => return Cow::Owned(format!("TYPE{rtype}")),
    })
}
