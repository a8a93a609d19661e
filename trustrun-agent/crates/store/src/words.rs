//! The numbers that stand for words in the database. They are stable: a number is never given another meaning.

use trustrun_model::{Action, Assurance, Direction, Reason, Verdict};

/// What kind of observation a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A process became another program; `detail` has `exe`, `argv`, `truncated`.
    Exec = 1,
    /// A process began; `detail` has `child`.
    Fork = 2,
    /// A process ended; `detail` has `status`.
    Exit = 3,
    /// A connection was attempted.
    Opened = 4,
    /// A TCP connection came to be.
    Established = 5,
    /// A connection ended, with its bytes.
    Closed = 6,
    /// A connection was judged again.
    Judged = 7,
    /// A packet without a stored decision was judged.
    Packet = 8,
    /// A socket of an unusual kind; `detail` has `family`, `type`, `protocol`.
    Socket = 9,
    /// A socket listens at the local address.
    Listening = 10,
    /// First bytes of a connection; `detail` has `outgoing`, `offset`, `length`.
    Payload = 11,
    /// A DNS query; `detail` has `resolver`, `refused`, `length`.
    Query = 12,
    /// A DNS answer; `detail` has `believed`, `bound`, `length`.
    Answer = 13,
    /// A process was moved to another cgroup; `detail` has `cgroup`, `killed`.
    Moved = 14,
    /// Bytes crossed the session's border over a unix socket; `detail` has `incoming`, `socket`.
    Unix = 15,
    /// Something was lost; `detail` has `stage`, `count`.
    Lost = 32,
    /// An address that made no sense; `detail` has `why`, `peer`.
    Unreadable = 33,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::Opened,
        Self::Established,
        Self::Closed,
        Self::Judged,
        Self::Packet,
        Self::Socket,
        Self::Listening,
        Self::Payload,
        Self::Query,
        Self::Answer,
        Self::Moved,
        Self::Unix,
        Self::Lost,
        Self::Unreadable,
    ];

    /// The word of the event stream.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::Opened => "opened",
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Judged => "judged",
            Self::Packet => "packet",
            Self::Socket => "socket",
            Self::Listening => "listening",
            Self::Payload => "payload",
            Self::Query => "query",
            Self::Answer => "answer",
            Self::Moved => "moved",
            Self::Unix => "unix",
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
        }
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as i64 == number)
    }
}

pub(crate) fn action_number(action: Action) -> i64 {
    match action {
        Action::Allow => 0,
        Action::Alert => 1,
        Action::Block => 2,
        Action::Kill => 3,
    }
}

pub(crate) fn action(number: i64) -> Option<Action> {
    Action::ALL.into_iter().find(|a| action_number(*a) == number)
}

pub(crate) fn direction_number(direction: Direction) -> i64 {
    match direction {
        Direction::Out => 0,
        Direction::In => 1,
    }
}

pub(crate) fn direction(number: i64) -> Option<Direction> {
    [Direction::Out, Direction::In].into_iter().find(|d| direction_number(*d) == number)
}

const REASONS: [Reason; 13] = [
    Reason::Default,
    Reason::Rule,
    Reason::Internal,
    Reason::Resolver,
    Reason::Accepted,
    Reason::Mismatch,
    Reason::Claim,
    Reason::Unreadable,
    Reason::Quic,
    Reason::Kind,
    Reason::Full,
    Reason::FakeResolver,
    Reason::EncryptedDns,
];

/// As in `trustrun_common::events::reason`.
pub(crate) fn reason_number(reason: Reason) -> i64 {
    match reason {
        Reason::Default => 0,
        Reason::Rule => 1,
        Reason::Internal => 2,
        Reason::Resolver => 3,
        Reason::Accepted => 4,
        Reason::Mismatch => 5,
        Reason::Claim => 6,
        Reason::Unreadable => 7,
        Reason::Quic => 8,
        Reason::Kind => 9,
        Reason::Full => 10,
        Reason::FakeResolver => 11,
        Reason::EncryptedDns => 13,
    }
}

pub(crate) fn reason(number: i64) -> Option<Reason> {
    REASONS.into_iter().find(|r| reason_number(*r) == number)
}

pub(crate) fn verdict(word: &str) -> Option<Verdict> {
    [Verdict::Pass, Verdict::Fail, Verdict::Incomplete, Verdict::Observed].into_iter().find(|v| v.to_string() == word)
}

pub(crate) fn assurance_word(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Contained => "contained",
        Assurance::Enforced => "enforced",
        Assurance::Observed => "observed",
        Assurance::Sampled => "sampled",
    }
}

pub(crate) fn assurance(word: &str) -> Option<Assurance> {
    [Assurance::Contained, Assurance::Enforced, Assurance::Observed, Assurance::Sampled]
        .into_iter()
        .find(|a| assurance_word(*a) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_round_trip() {
        assert!(EventKind::ALL.into_iter().all(|k| EventKind::from_number(k as i64) == Some(k)));
        assert!(Action::ALL.into_iter().all(|a| action(action_number(a)) == Some(a)));
        assert!(REASONS.into_iter().all(|r| reason(reason_number(r)) == Some(r)));
        assert_eq!(direction(1), Some(Direction::In));
        assert_eq!(verdict("pass"), Some(Verdict::Pass));
        assert_eq!(verdict("PASS"), None);
        assert_eq!(assurance("sampled"), Some(Assurance::Sampled));
        assert_eq!(EventKind::from_number(0), None);
    }
}
