//! Domain names on the wire and in text.

use super::Error;

/// Most octets of a name on the wire, length octets and root included (RFC 1035 2.3.4).
const WIRE_MAX: usize = 255;

/// Most pointers in one name. A name of 255 octets has at most 127 labels, so more pointers serve nothing.
const JUMPS_MAX: usize = 127;

/// Reads the name at `start` of `message`. Gives its text and where it ends, which is behind the first pointer if it
/// has one.
///
/// Every pointer must lead before the labels that it follows (RFC 1035 4.1.4: "a prior occurrence"), and never into the
/// header, so that reading ends.
pub(super) fn read(message: &[u8], start: usize) -> Result<(String, usize), Error> {
    let cut = Error::Truncated { part: "name" };
    let mut text = String::new();
    let mut wire = 0;
    let (mut at, mut run, mut jumps) = (start, start, 0);
    let mut end = None;
    loop {
        let length = *message.get(at).ok_or(cut)?;
        match length {
            0 => {
                if text.is_empty() {
                    text.push('.');
                }
                return Ok((text, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length)).ok_or(cut)?;
                wire += label.len() + 1;
                if wire + 1 > WIRE_MAX {
                    return Err(Error::NameLength);
                }
                if !text.is_empty() {
                    text.push('.');
                }
                push_label(&mut text, label);
                at += label.len() + 1;
            }
            0xc0.. => {
                let low = *message.get(at + 1).ok_or(cut)?;
                let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                jumps += 1;
                if target >= run || target < super::decode::HEADER || jumps > JUMPS_MAX {
                    return Err(Error::Pointer { at });
                }
                end = end.or(Some(at + 2));
                (at, run) = (target, target);
            }
            _ => return Err(Error::Label { at }),
        }
    }
}

/// Appends a label in lower case, with `\DDD` for what is not printable or has a meaning in text (RFC 4343 2.1).
fn push_label(text: &mut String, label: &[u8]) {
    for octet in label {
        if octet.is_ascii_graphic() && !matches!(octet, b'.' | b'\\') {
            text.push(octet.to_ascii_lowercase().into());
        } else {
            text.push('\\');
            for digit in [octet / 100, octet / 10 % 10, octet % 10] {
                text.push((b'0' + digit).into());
            }
        }
    }
}

/// Encodes a name, without compression. Takes what [`super::Question::name`] holds: labels separated by dots, `\DDD`
/// or a backslash before a character for what is special, an optional trailing dot; `.` or nothing is the root.
///
/// # Errors
///
/// [`Error::NameText`] for an empty label, one over 63 octets or a broken escape; [`Error::NameLength`] over 255 octets.
pub fn name_to_wire(name: &str) -> Result<Vec<u8>, Error> {
    let mut wire = Vec::with_capacity(name.len().min(WIRE_MAX) + 2);
    let mut label = Vec::new();
    let mut bytes = name.bytes();
    if matches!(name, "" | ".") {
        return Ok(vec![0]);
    }
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => push_wire(&mut wire, &mut label)?,
            b'\\' => label.push(unescape(&mut bytes)?),
            _ => label.push(byte),
        }
        if label.len() > 63 {
            return Err(Error::NameText { why: "a label is longer than 63 octets" });
        }
    }
    if !label.is_empty() {
        push_wire(&mut wire, &mut label)?;
    }
    wire.push(0);
    if wire.len() > WIRE_MAX { Err(Error::NameLength) } else { Ok(wire) }
}

fn push_wire(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), Error> {
    let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
    if length == 0 {
        return Err(Error::NameText { why: "a label is empty" });
    }
    if wire.len() + label.len() > WIRE_MAX {
        return Err(Error::NameLength);
    }
    wire.push(length);
    wire.append(label);
    Ok(())
}

/// What follows a backslash: three digits, or any other character for itself (RFC 1035 5.1).
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, Error> {
    let broken = Error::NameText { why: "a backslash is followed by neither a character nor \\DDD up to 255" };
    let first = bytes.next().ok_or(broken)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(broken)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message whose header is 12 zeroes.
    fn after_header(bytes: &[u8]) -> Vec<u8> {
        [&[0; 12], bytes].concat()
    }

    #[test]
    fn escapes_what_is_not_plain() {
        let message = after_header(b"\x05A.b\\\xff\x00");
        assert_eq!(read(&message, 12), Ok(("a\\046b\\092\\255".into(), 19)));
        assert_eq!(read(&after_header(&[0]), 12), Ok((".".into(), 13)));
    }

    #[test]
    fn follows_pointers_back_only() {
        let message = after_header(b"\x03com\x00\x01a\xc0\x0c\x01b\xc0\x11\xc0\x15\xc0\x1c");
        assert_eq!(read(&message, 17), Ok(("a.com".into(), 21)));
        assert_eq!(read(&message, 21), Ok(("b.a.com".into(), 25)));
        assert_eq!(read(&message, 25), Ok(("b.a.com".into(), 27)));
        let cases: [&[u8]; 4] = [b"\xc0\x0c", b"\xc0\x0e\x00", b"\x01a\xc0\x0c", b"\xc0\x00"];
        for case in cases {
            assert!(matches!(read(&after_header(case), 12), Err(Error::Pointer { .. })), "{case:x?}");
        }
        assert_eq!(read(&after_header(b"\x41a\x00"), 12), Err(Error::Label { at: 12 }));
        // Two pointers at each other, both before the name: ends at the first that leads forward.
        assert_eq!(read(&after_header(b"\xc0\x0e\xc0\x0c\xc0\x0c"), 16), Err(Error::Pointer { at: 12 }));
    }

    #[test]
    fn bounds_the_length() {
        let longest = after_header(&[b"\x01a".repeat(127), vec![0]].concat());
        assert_eq!(read(&longest, 12).map(|(name, _)| name.len()), Ok(253));
        let longer = after_header(&[b"\x01a".repeat(128), vec![0]].concat());
        assert_eq!(read(&longer, 12), Err(Error::NameLength));
        assert_eq!(name_to_wire(&"a.".repeat(128)), Err(Error::NameLength));
        assert!(name_to_wire(&"a".repeat(64)).is_err());
        for bad in ["a..b", ".a", "a\\", "a\\25", "a\\256"] {
            assert!(matches!(name_to_wire(bad), Err(Error::NameText { .. })), "{bad}");
        }
        assert_eq!(name_to_wire("a\\.b."), Ok(b"\x03a.b\x00".to_vec()));
    }

    proptest! {
        #[test]
        fn a_name_round_trips(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..64), 0..4)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(&label.to_ascii_lowercase());
            }
            wire.push(0);
            let (text, end) = match read(&after_header(&wire), 12) {
                Err(Error::NameLength) => { prop_assert!(wire.len() > 255); return Ok(()); }
                other => other.unwrap(),
            };
            prop_assert_eq!(end, 12 + wire.len());
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(name_to_wire(&text), Ok(wire));
        }

        #[test]
        fn reading_names_never_panics(message in proptest::collection::vec(any::<u8>(), 0..600), start in 0_usize..700) {
            let _ = read(&message, start);
        }

        #[test]
        fn writing_names_never_panics(name in ".*") {
            let _ = name_to_wire(&name);
        }
    }
}
