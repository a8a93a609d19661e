//! What becomes of a DNS lookup, where protocol and port are not known yet.

use trustrun_model::{Action, Protocol};

use crate::{
    Decision,
    ports::{Hit, PortTable},
};

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
pub(crate) fn ask(said: &PortTable, named: Option<Hit>, default: Action) -> Decision {
    let mildest = |hits: &mut dyn Iterator<Item = Hit>| hits.min_by_key(|hit| (hit.action, hit.rule));
    if let Some(hit) = mildest(&mut said.hits()).filter(|hit| !hit.action.refuses()) {
        return Decision { action: hit.action, rule: Some(hit.rule) };
    }
    let mut base = Decision { action: default, rule: None };
    let on_tcp = mildest(&mut said.hits_of(Protocol::Tcp));
    if let Some(hit) = on_tcp.filter(|_| said.covers(Protocol::Tcp)) {
        base = Decision { action: hit.action, rule: Some(hit.rule) };
    }
    match named {
        Some(hit) if base.action.refuses() && hit.action > base.action => {
            Decision { action: hit.action, rule: Some(hit.rule) }
        }
        _ => base,
    }
}
