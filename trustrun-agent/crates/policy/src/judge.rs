//! What each rule says about one point, read rule by rule: slower than the compiled forms, and it can say why.
//!
//! Tests hold it to [`crate::Matcher`].

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use trustrun_model::{Action, Protocol};

use crate::{
    Capture, Except, Pattern, Policy, Private, Rule, When,
    pattern::{Net, Target, V4, has_ports},
    private::{is_private, is_public_name},
};

/// What a policy is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point<'a> {
    /// As names are compared.
    pub(crate) name: Option<&'a str>,
    /// As 128 bits.
    pub(crate) address: Option<u128>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Whether the name's address is private, where there is none in `address`.
    pub(crate) private: bool,
}

impl Point<'_> {
    fn is_private(&self) -> bool {
        self.address.map_or(self.private, is_private)
    }
}

/// What is known about a process; what is not, may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The path of its executable.
    pub exe: Option<String>,
    /// Its user: name, number, or both.
    pub user: Vec<String>,
    /// The systemd unit that it is in.
    pub unit: Option<String>,
    /// Its arguments.
    pub arguments: Option<Vec<String>>,
}

/// Whether a condition holds; none is not known.
type Holds = Option<bool>;

impl Who {
    /// Whether a rule's condition holds for it.
    pub(crate) fn holds(&self, when: &When) -> Holds {
        let parts = [
            one(&when.exe, self.exe.as_deref().map(|exe| move |glob: &str| matches(glob, exe))),
            one(&when.user, (!self.user.is_empty()).then_some(|name: &str| self.user.iter().any(|user| user == name))),
            one(&when.unit, self.unit.as_deref().map(|unit| move |glob: &str| matches(glob, unit))),
            one(&when.argument, self.arguments.as_ref().map(|all| move |a: &str| all.iter().any(|b| matches(a, b)))),
        ];
        match parts {
            _ if parts.contains(&Some(false)) => Some(false),
            _ if parts.contains(&None) => None,
            _ => Some(true),
        }
    }
}

fn one(words: &[String], holds: Option<impl Fn(&str) -> bool>) -> Holds {
    if words.is_empty() {
        return Some(true);
    }
    holds.map(|holds| words.iter().any(|word| holds(word)))
}

/// Whether a glob of `when` matches: `*` within a folder, `**` across.
pub(crate) fn matches(glob: &str, text: &str) -> bool {
    fn from(glob: &[u8], text: &[u8]) -> bool {
        match glob {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => {
                let rest = rest.strip_prefix(b"/").filter(|rest| from(rest, text)).unwrap_or(rest);
                (0..=text.len()).any(|at| from(rest, &text[at..]))
            }
            [b'*', rest @ ..] => {
                let most = text.iter().position(|octet| *octet == b'/').unwrap_or(text.len());
                (0..=most).any(|at| from(rest, &text[at..]))
            }
            [b'?', rest @ ..] => text.first().is_some_and(|octet| *octet != b'/') && from(rest, &text[1..]),
            [octet, rest @ ..] => text.first() == Some(octet) && from(rest, &text[1..]),
        }
    }
    from(glob.as_bytes(), text.as_bytes())
}

/// Whether a target has the point in it.
pub(crate) fn has(target: &Target, point: &Point<'_>) -> bool {
    match target {
        Target::Any => true,
        Target::Name(name) => point.name == Some(name),
        Target::Below(zone) => point.name.is_some_and(|name| is_below(name, zone)),
        Target::Net(net) => point.address.is_some_and(|address| in_net(*net, address)),
    }
}

pub(crate) fn is_below(name: &str, zone: &str) -> bool {
    name.len() > zone.len() + 1 && name.ends_with(zone) && name.as_bytes()[name.len() - zone.len() - 1] == b'.'
}

pub(crate) fn in_net(net: Net, address: u128) -> bool {
    net.is_v4() == V4.contains(address) && net.contains(address)
}

/// Whether a pattern speaks about a protocol and port.
pub(crate) fn reaches(pattern: &Pattern, protocol: Protocol, port: u16) -> bool {
    let (lo, hi) = pattern.ports;
    pattern.protocol.is_none_or(|own| own == protocol && (!has_ports(protocol) || (lo..=hi).contains(&port)))
}

/// How a pattern that has the point in it counts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    Speaks,
    /// If its condition holds, which is not known.
    Maybe,
    /// Its condition does not hold.
    OtherProcess,
    /// An exception takes the point out.
    Excepted(&'a Except),
    /// It grants a public name no private address, or nothing else than one.
    WrongAddress,
}

/// How one pattern of a rule counts at a point that is in it.
pub(crate) fn standing<'a>(
    rule: &'a Rule,
    action: Action,
    pattern: &Pattern,
    point: &Point<'_>,
    who: &Who,
) -> Standing<'a> {
    let out = |e: &&Except| has(&e.pattern.target, point) && reaches(&e.pattern, point.protocol, point.port);
    if let Some(except) = rule.except.iter().find(out) {
        return Standing::Excepted(except);
    }
    if !grants(rule.private, action, &pattern.target, point.is_private()) {
        return Standing::WrongAddress;
    }
    match rule.when.as_ref().map_or(Some(true), |when| who.holds(when)) {
        Some(true) => Standing::Speaks,
        Some(false) => Standing::OtherProcess,
        None => Standing::Maybe,
    }
}

/// Whether a rule that lets a name through does so for this kind of address.
pub(crate) fn grants(rule: Private, action: Action, target: &Target, private: bool) -> bool {
    let (Target::Name(name) | Target::Below(name)) = target else { return true };
    action.refuses()
        || match rule {
            Private::Allow => true,
            Private::Require => private,
            Private::Refuse => !private || !is_public_name(name),
        }
}

/// What the most severe of several words is, of equals that of the first name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict<'a> {
    sure: Option<(Action, Reverse<(&'a str, usize)>)>,
    maybe: Option<(Action, Reverse<(&'a str, usize)>)>,
}

impl<'a> Verdict<'a> {
    pub(crate) fn add(&mut self, standing: Standing<'_>, action: Action, name: &'a str, rule: usize) {
        let word = Some((action, Reverse((name, rule))));
        match standing {
            Standing::Speaks => self.sure = self.sure.max(word),
            Standing::Maybe => self.maybe = self.maybe.max(word),
            _ => {}
        }
    }

    /// The action, and the rule; none where the default speaks.
    pub(crate) fn say(&self, default: Action) -> (Action, Option<usize>) {
        let best = self.sure.max(self.maybe);
        match best {
            // Nothing speaks for certain: the default may apply.
            Some((action, _)) if self.sure.is_none() && action < default => (default, None),
            Some((action, Reverse((_, rule)))) => (action, Some(rule)),
            None => (default, None),
        }
    }
}

impl Policy {
    /// A policy of some of its rules, to be asked about what only those speak about.
    pub(crate) fn with_rules(&self, rules: Vec<Rule>) -> Self {
        Self {
            name: String::new(),
            description: None,
            sha256: String::new(),
            default: self.default,
            capture: Capture::Metadata,
            unix_sockets: BTreeSet::new(),
            rules,
            listen: Vec::new(),
            canonical: Arc::from(""),
            documents: Vec::new(),
            expired: Vec::new(),
            environment: None,
            left_out: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_in_its_folder_and_two_do_not() {
        for (glob, text, expected) in [
            ("/usr/bin/python3*", "/usr/bin/python3.11", true),
            ("/usr/bin/*", "/usr/bin/x/y", false),
            ("/opt/**/run", "/opt/a/b/run", true),
            ("/opt/**/run", "/opt/run", true),
            ("/opt/**", "/opt/a/b", true),
            ("etl@*.service", "etl@1.service", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/a/c", false),
            ("/usr/bin/python", "/usr/bin/python3", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_process_may_be_anything() {
        let when = When { exe: vec!["/usr/bin/*".into()], user: vec!["ann".into(), "7".into()], ..When::default() };
        let exe = |path: &str| Who { exe: Some(path.into()), ..Who::default() };
        assert_eq!(Who::default().holds(&when), None);
        assert_eq!(exe("/opt/x").holds(&when), Some(false));
        assert_eq!(exe("/usr/bin/x").holds(&when), None);
        let both = Who { user: vec!["bob".into(), "7".into()], ..exe("/usr/bin/x") };
        assert_eq!(both.holds(&when), Some(true));
    }
}
