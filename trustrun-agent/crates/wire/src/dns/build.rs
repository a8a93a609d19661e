//! What the agent says in DNS itself: its own queries, and refusals that make a client give up at once.

use super::{CLASS_IN, Error, Message, decode, name_to_wire};

/// RCODE: no error (RFC 1035 4.1.1).
pub const NOERROR: u8 = 0;
/// RCODE: the server could not read the query.
pub const FORMERR: u8 = 1;
/// RCODE: the server failed. musl and glibc ask again.
pub const SERVFAIL: u8 = 2;
/// RCODE: the name does not exist. Every resolver library gives up at once.
pub const NXDOMAIN: u8 = 3;
/// RCODE: the server does not want to. musl asks again until its timeout.
pub const REFUSED: u8 = 5;

/// A standard query for one name in class IN, recursion desired, without EDNS.
///
/// # Errors
///
/// As [`name_to_wire`].
pub fn query(id: u16, name: &str, qtype: u16) -> Result<Vec<u8>, Error> {
    let name = name_to_wire(name)?;
    let mut bytes = Vec::with_capacity(decode::HEADER + name.len() + 4);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Flags: RD. One question, nothing else.
    bytes.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(bytes)
}

/// An answer without records to `query`, with its id, opcode, RD bit and question (octet for octet: a client may have
/// mixed the case and compare it), QR and RA set, and the four bits of `rcode`, usually [`NXDOMAIN`].
///
/// `None` if `query` is not a query with one question.
#[must_use]
pub fn negative_answer(query: &[u8], rcode: u8) -> Option<Vec<u8>> {
    let asked = Message::decode_start(query).ok()?;
    if asked.flags.answer {
        return None;
    }
    let question = query.get(decode::HEADER..decode::question_end(query).ok()?)?;
    let opcode_and_rd = query.get(2)? & 0x79;
    let mut bytes = Vec::with_capacity(decode::HEADER + question.len());
    bytes.extend_from_slice(&asked.id.to_be_bytes());
    bytes.extend_from_slice(&[0x80 | opcode_and_rd, 0x80 | (rcode & 0x0f), 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(question);
    Some(bytes)
}
