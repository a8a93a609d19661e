//! Names of sessions.

use std::{
    fmt,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::Read,
};

/// The name of a session: its start in UTC, which sorts, and 24 random bits, as in `20261120T215534Z-7f3a9c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// A new name for a session that starts at `wall_ns` since the Unix epoch.
    #[must_use]
    pub fn new(wall_ns: i64) -> Self {
        let second = wall_ns.div_euclid(1_000_000_000);
        let start = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let [a, b, c] = random();
        Self(format!("{}-{a:02x}{b:02x}{c:02x}", start.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

/// From the kernel; where /dev is missing, from the seed that the kernel gave to the standard library's hasher.
fn random() -> [u8; 3] {
    let mut bytes = [0; 3];
    if File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).is_err() {
        let [a, b, c, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        bytes = [a, b, c];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_their_start_and_sort_by_it() {
        let at = 1_795_211_734_987_654_321;
        let id = SessionId::new(at);
        assert!(id.as_str().starts_with("20261120T215534Z-"), "{id}");
        assert_eq!(id.as_str().len(), 23);
        assert!(SessionId::new(at + 1_000_000_000) > id);
        assert_ne!(SessionId::new(at), SessionId::new(at));
        assert!(SessionId::new(i64::MIN).as_str().len() >= 23 && SessionId::new(i64::MAX).as_str().len() == 23);
    }
}
