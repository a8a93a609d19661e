//! What becomes of a DNS lookup, where protocol and port are not known yet.

use trustrun_model::{Action, Protocol};

use crate::ports::{Hit, PortTable};

/// What rules come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) action: Action,
    /// The rule's place in the order that decides between equals; none where the default applies.
    pub(crate) rank: Option<u32>,
}

impl Word {
    /// The more severe of two, of equals that of the earlier rule.
    pub(crate) fn severer(self, other: Self) -> Self {
        let key = |word: &Self| (word.action, std::cmp::Reverse(word.rank.unwrap_or(u32::MAX)));
        if key(&other) > key(&self) { other } else { self }
    }
}

impl From<Hit> for Word {
    fn from(hit: Hit) -> Self {
        Self { action: hit.action, rank: Some(hit.rank) }
    }
}

/// Judges a lookup from all that is said about the name.
///
/// - If any protocol and port of it is let through, the lookup is: with the mildest action, as the connection is
///   judged again.
/// - Else, if the rules speak about every TCP port, it gets the mildest of what they say; else the default.
/// - If that refuses, a more severe rule that names the host (exactly or by a wildcard) wins, since the connection
///   that it waits for can no longer come. A rule such as `kill: [":25"]`, which names no host, does not: it would
///   end the target for the lookup of any name at all.
///
/// `said` is the table of all rules that match, `named` the most severe of those that name the host.
pub(crate) fn ask(said: &PortTable, named: Option<Hit>, default: Action) -> Word {
    let mildest = |hits: &mut dyn Iterator<Item = Hit>| hits.min_by_key(|hit| (hit.action, hit.rank));
    if let Some(hit) = mildest(&mut said.hits()).filter(|hit| !hit.action.refuses()) {
        return hit.into();
    }
    let mut base = Word { action: default, rank: None };
    let on_tcp = mildest(&mut said.hits_of(Protocol::Tcp));
    if let Some(hit) = on_tcp.filter(|_| said.covers(Protocol::Tcp)) {
        base = hit.into();
    }
    match named {
        Some(hit) if base.action.refuses() && hit.action > base.action => hit.into(),
        _ => base,
    }
}
