//! Lookups as a way out: whoever answers for a zone reads every name that is asked below it, so a program that may look up
//! names under one parent can send data there, some forty bytes a name, without any connection. An honest program connects
//! to most of the names that it looks up, and names of hosts are short.

use std::collections::HashMap;

use trustrun_common::name_hash;
use trustrun_model::Untrusted;

/// Most parents, and most names in all, that are watched. What is beyond is told as such.
const MOST_PARENTS: usize = 1 << 14;
const MOST_NAMES: usize = 1 << 20;

/// Fewer names than this carry little: a key or a password at most, and every browser asks for some that it never needs.
const FEWEST: u64 = 32;
/// Fewest bytes of information in long names.
const LONG_BYTES: u64 = 1024;
/// Letters of a name below its parent that make it long: names of hosts have some ten, encoded data fills the labels.
const LONG: u64 = 20;
/// Letters that no name of a host has: whatever they say, they are too long to be one.
const VERY_LONG: u64 = 48;
/// So many names that nobody connects to are too many, however short they are.
const MANY: u64 = 1000;

/// The parents that were asked about.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    parents: HashMap<Box<str>, Parent>,
    names: usize,
    /// Lookups that found no room here.
    unwatched: u64,
}

/// The distinct names below one parent.
#[derive(Debug)]
struct Parent {
    /// By hash; whether a connection to it followed.
    names: HashMap<u64, bool>,
    letters: [u64; 40],
}

/// A parent whose names may have carried data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// Distinct names.
    pub(crate) names: u64,
    /// For a person.
    pub(crate) detail: String,
}

impl Tunnels {
    /// A lookup that left the machine.
    pub(crate) fn asked(&mut self, name: &str) {
        let (below, parent) = split(name);
        if below.is_empty() {
            return;
        }
        if !self.parents.contains_key(parent) {
            if self.parents.len() == MOST_PARENTS {
                self.unwatched += 1;
                return;
            }
            self.parents.insert(parent.into(), Parent { names: HashMap::new(), letters: [0; 40] });
        }
        let Some(known) = self.parents.get_mut(parent) else { return };
        let id = name_hash(name.as_bytes());
        if known.names.contains_key(&id) {
            return;
        }
        if self.names == MOST_NAMES {
            self.unwatched += 1;
            return;
        }
        self.names += 1;
        known.names.insert(id, false);
        for letter in below.bytes().filter(|b| *b != b'.') {
            known.letters[class(letter)] += 1;
        }
    }

    /// A connection to a name that was looked up.
    pub(crate) fn connected(&mut self, name: &str) {
        let known = self.parents.get_mut(split(name).1);
        if let Some(used) = known.and_then(|parent| parent.names.get_mut(&name_hash(name.as_bytes()))) {
            *used = true;
        }
    }

    /// Which parents' names may have carried data out, in the order of their names.
    pub(crate) fn suspicions(&self) -> Vec<Suspicion> {
        let mut found: Vec<(&str, Suspicion)> =
            self.parents.iter().filter_map(|(name, parent)| Some((&**name, parent.suspicion(name)?))).collect();
        found.sort_by_key(|(name, _)| *name);
        let mut found: Vec<Suspicion> = found.into_iter().map(|(_, suspicion)| suspicion).collect();
        if self.unwatched > 0 {
            found.push(Suspicion {
                names: self.unwatched,
                detail: "more names were looked up than could be watched for data carried in them".into(),
            });
        }
        found
    }
}

impl Parent {
    fn suspicion(&self, parent: &str) -> Option<Suspicion> {
        let names = self.names.len() as u64;
        let unused = self.names.values().filter(|used| !**used).count() as u64;
        let letters: u64 = self.letters.iter().sum();
        let bytes = self.information();
        let long = letters >= VERY_LONG * names || (letters >= LONG * names && bytes >= LONG_BYTES);
        if names < FEWEST || unused * 2 < names || !(long || unused >= MANY) {
            return None;
        }
        let parent = Untrusted::new(parent);
        let detail = format!(
            "{names} names under {parent} were looked up, {unused} of them without a connection: \
             lookups can carry data out, here up to some {bytes} bytes"
        );
        Some(Suspicion { names, detail })
    }

    /// Shannon's measure of all letters, in bytes: an upper bound of what they say, letter by letter.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, of counts far below 2^52"
    )]
    fn information(&self) -> u64 {
        let total = self.letters.iter().sum::<u64>() as f64;
        let bits: f64 = self.letters.iter().filter(|n| **n > 0).map(|n| *n as f64 * (total / *n as f64).log2()).sum();
        (bits / 8.0) as u64
    }
}

/// Letters in either case, digits, hyphen, underscore, others.
fn class(letter: u8) -> usize {
    usize::from(match letter.to_ascii_lowercase() {
        letter @ b'a'..=b'z' => letter - b'a',
        digit @ b'0'..=b'9' => digit - b'0' + 26,
        b'-' => 36,
        b'_' => 37,
        _ => 38,
    })
}

/// A name below its parent, the zone that somebody registered, and the parent. Where that lies is not known here (the
/// public suffix list would say), so: two labels, three under a country's short second level (`co.uk`), and a network of
/// addresses in reverse lookups.
fn split(name: &str) -> (&str, &str) {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut labels = name.rsplit('.');
    let (top, second) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let depth = match (second, top) {
        ("in-addr", "arpa") => 4,
        ("ip6", "arpa") => 10,
        _ if top.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    let mut dots = name.bytes().enumerate().rev().filter(|(_, b)| *b == b'.').map(|(at, _)| at);
    match dots.nth(depth - 1) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => ("", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names: impl IntoIterator<Item = String>) -> Vec<Suspicion> {
        let mut tunnels = Tunnels::default();
        names.into_iter().for_each(|name| tunnels.asked(&name));
        tunnels.suspicions()
    }

    /// 40 letters that look like encoded data.
    fn data(n: u64) -> String {
        let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let letter = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(x % 32) as usize])
        };
        std::iter::repeat_with(letter).take(40).collect()
    }

    #[test]
    fn names_are_split_where_somebody_may_have_registered() {
        assert_eq!(split("a.b.example.com"), ("a.b", "example.com"));
        assert_eq!(split("a.example.co.uk."), ("a", "example.co.uk"));
        assert_eq!(split("4.3.2.1.in-addr.arpa"), ("4.3", "2.1.in-addr.arpa"));
        assert_eq!(split("example.com"), ("", "example.com"));
        assert_eq!(split("localhost"), ("", "localhost"));
    }

    #[test]
    fn data_in_names_is_told_with_its_size() {
        let found = asked((0..100).map(|n| format!("{}.t.example.com", data(n))));
        let [suspicion] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(suspicion.names, 100);
        // 100 names of 40 letters with five bits each are 2,500 bytes.
        assert!(suspicion.detail.contains("100 names under example.com"), "{suspicion:?}");
        assert!(suspicion.detail.contains("some 25"), "{suspicion:?}");
        assert_eq!(asked((0..2000).map(|n| format!("{}.{}.2.1.in-addr.arpa", n % 256, n / 256))).len(), 1);
        assert_eq!(asked((0..2000).map(|n| format!("x{n}.example.com"))).len(), 1, "many, if short");
        assert_eq!(asked((0..40).map(|n| format!("{n:060}.example.com"))).len(), 1, "very long, if it says little");
    }

    #[test]
    fn what_honest_programs_ask_is_not() {
        assert_eq!(asked((0..900).map(|n| format!("host-{n}.example.com"))), []);
        assert_eq!(asked((0..31).map(|n| format!("{}.example.com", data(n)))), []);
        assert_eq!(asked((0..1000).map(|_| format!("{}.example.com", data(1)))), [], "one name, often");
        let mut crawler = Tunnels::default();
        for n in 0..5000 {
            let name = format!("{}.example.com", data(n));
            crawler.asked(&name);
            crawler.connected(&name);
        }
        assert_eq!(crawler.suspicions(), []);
    }

    #[test]
    fn more_than_can_be_watched_is_told() {
        let found = asked((0..=MOST_PARENTS).map(|n| format!("x.zone{n}.com")));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].names, 1);
    }
}
