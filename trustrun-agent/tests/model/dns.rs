//! What the kernel programs are to make of DNS messages, said once more in plain Rust: `trustrun-ebpf/src/{dns,names}.rs`.

use std::net::{IpAddr, Ipv6Addr};

use trustrun_policy::Matcher;

/// Most records of an answer that are read.
const RECORDS: usize = 32;
/// Fewest bytes of a record: the root as owner, type, class, TTL and length (RFC 1035 4.1.3).
const RECORD_MIN: usize = 11;
/// Most labels of a record's owner, its end included.
const LABELS: usize = 34;
/// Where the question's name is: behind the header.
const QUESTION: usize = 12;
/// A name, its length octets and end included, that the kernel still reads.
const NAME: usize = 256;

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Refused,
    /// It goes out; `bind` if its answer binds addresses.
    Sent {
        id: u16,
        name: String,
        bind: bool,
    },
}

fn byte(m: &[u8], at: usize) -> usize {
    m.get(at).map_or(0, |b| usize::from(*b))
}

fn word(m: &[u8], at: usize) -> usize {
    byte(m, at) << 8 | byte(m, at + 1)
}

/// The name that is asked, in lower case, and where it ends. None for pointers, the root, and a dot or NUL in a label.
fn question(m: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = QUESTION;
    loop {
        let length = usize::from(*m.get(at)?);
        if at >= QUESTION + NAME {
            return None;
        }
        at += 1;
        if length == 0 {
            return (!name.is_empty()).then_some((name, at));
        }
        let label = m.get(at..at + length).filter(|_| length <= 63)?;
        if label.iter().any(|b| matches!(b, b'.' | 0)) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        // One character for each byte, so that no two names become one.
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        at += length;
    }
}

/// What becomes of a datagram to a resolver, where refusals are carried out.
pub(crate) fn asked(m: &[u8], matcher: &Matcher, search: &[String]) -> Asked {
    if m.len() <= QUESTION || byte(m, 2) & 0xf8 != 0 || word(m, 4) != 1 {
        return Asked::Refused;
    }
    let Some((name, _)) = question(m) else { return Asked::Refused };
    let id = word(m, 0) as u16;
    if !matcher.decide_query(&name).action.refuses() {
        return Asked::Sent { id, name, bind: true };
    }
    match matcher.is_search_expansion(trustrun_policy::Class::default(), &name, search) {
        Some(_) => Asked::Sent { id, name, bind: false },
        None => Asked::Refused,
    }
}

/// Whether an answer is believed to be the one to this query.
pub(crate) fn believed(query: &Asked, m: &[u8]) -> bool {
    let Asked::Sent { id, name, .. } = query else { return false };
    m.len() > QUESTION
        && byte(m, 2) & 0xf8 == 0x80
        && word(m, 4) == 1
        && word(m, 0) == usize::from(*id)
        && question(m).is_some_and(|(answered, _)| answered == *name)
}

/// The addresses that a believed answer binds, in order, with repetitions.
pub(crate) fn bound(query: &Asked, m: &[u8]) -> Vec<IpAddr> {
    let Asked::Sent { bind: true, .. } = query else { return Vec::new() };
    // NOERROR, not truncated.
    if byte(m, 3) & 0x0f != 0 || byte(m, 2) & 2 != 0 {
        return Vec::new();
    }
    let Some((_, end)) = question(m) else { return Vec::new() };
    let count = word(m, 6);
    // Of class IN, and not more records than there is room for.
    if word(m, end + 2) != 1 || count * RECORD_MIN > m.len() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (mut at, mut owner) = (end + 4, QUESTION);
    for _ in 0..count.min(RECORDS) {
        let start = at;
        let Some(end) = owner_end(m, start) else { break };
        if end + 10 > m.len() {
            break;
        }
        let about = is_owner(m, start, end, owner) && word(m, end + 2) == 1;
        let (kind, size) = (word(m, end), word(m, end + 8));
        let data = end + 10;
        let Some(rdata) = m.get(data..data + size) else { break };
        match (about, kind, size) {
            // Aliases come in order (RFC 1034 3.6.2).
            (true, 5, _) => owner = data,
            (true, 1, 4) => found.push(IpAddr::from(<[u8; 4]>::try_from(rdata).expect("four bytes"))),
            (true, 28, 16) => {
                let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(rdata).expect("sixteen bytes"));
                found.push(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4));
            }
            _ => {}
        }
        at = data + size;
    }
    found
}

/// Where a record's owner ends; none if it does not end before the record's own fields.
fn owner_end(m: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    for _ in 0..LABELS {
        if at + 12 > m.len() {
            return None;
        }
        match byte(m, at) {
            0xc0.. => return Some(at + 2),
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    None
}

/// Whether the name from `start` to `end` is the one at `owner`: a pointer to it, or written alike.
fn is_owner(m: &[u8], start: usize, end: usize, owner: usize) -> bool {
    let written = |at: usize| m.get(at..at + (end - start)).map(<[u8]>::to_ascii_lowercase);
    word(m, start) == 0xc000 | owner || (end - start <= 255 && written(start) == written(owner))
}
