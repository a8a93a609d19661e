//! A first policy from what a session reached.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use trustrun_model::{Protocol, Untrusted};

use crate::{
    Pattern, Policy, is_private_address, is_public_name,
    pattern::{Net, Target, has_ports, is_host_name, mapped, normal},
};

/// A destination that a session reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name, where it is known by more than the client's claim.
    pub host: Option<&'a str>,
    /// Its address; the pattern's target where there is no name that a rule could hold.
    pub addr: IpAddr,
    /// Its port; ignored for a protocol without ports.
    pub port: u16,
    /// Its protocol.
    pub proto: Protocol,
    /// How often it was reached, for a comment.
    pub count: u64,
}

impl Policy {
    /// The text of a policy that allows exactly these destinations and blocks everything else. `name` is that of the
    /// policy; `session` is said in its rule's name.
    #[must_use]
    pub fn propose(name: &str, session: &str, seen: &[Seen<'_>]) -> String {
        // A public name with a private address needs a word of its own.
        let mut counts: BTreeMap<(bool, Pattern), u64> = BTreeMap::new();
        for destination in seen {
            let pattern = pattern(destination);
            let inside = matches!(&pattern.target, Target::Name(name) if is_public_name(name));
            let inside = inside && is_private_address(destination.addr);
            let count = counts.entry((inside, pattern)).or_default();
            *count = count.saturating_add(destination.count);
        }
        let mut text = format!(
            "# Learned by trustrun: what one session reached, and nothing else. Read it before you rely on it.\n\
             version: 1\nname: {}\ndefault: block\nrules:\n",
            quoted(name)
        );
        if counts.is_empty() {
            text.truncate(text.len() - "rules:\n".len());
            text.push_str("rules: []\n");
            return text;
        }
        let mut rule = None;
        for ((inside, pattern), count) in counts {
            // Writing to a string cannot fail.
            if rule.replace(inside) != Some(inside) {
                let (what, key) = match inside {
                    true => (", at private addresses", "    private: allow\n"),
                    false => ("", ""),
                };
                let name = quoted(&format!("learned from session {session}{what}"));
                let _ = write!(text, "  - name: {name}\n{key}    allow:\n");
            }
            let times = if count == 1 { "time" } else { "times" };
            let _ = writeln!(text, "      - \"{pattern}\" # {count} {times}");
        }
        text
    }
}

fn pattern(seen: &Seen<'_>) -> Pattern {
    let address = mapped(seen.addr);
    let target = match seen.host.filter(|host| is_host_name(host)) {
        Some(host) => Target::Name(normal(host).into()),
        None => Target::Net(Net { address, bits: 128 }),
    };
    let ports = if has_ports(seen.proto) { (seen.port, seen.port) } else { (0, u16::MAX) };
    Pattern { target, protocol: Some(seen.proto), ports }
}

/// A YAML double-quoted scalar on one line, which a policy accepts as a name.
fn quoted(text: &str) -> String {
    const MOST: usize = 150;
    // What acts on a terminal is shown, not kept: a policy refuses it in names.
    let tame = Untrusted::new(text).to_string();
    let tame: String = tame.chars().take(MOST).collect();
    let tame = if tame.trim().is_empty() { "learned".to_owned() } else { tame };
    format!("\"{}\"", tame.replace('\\', "\\\\").replace('"', "\\\""))
}
