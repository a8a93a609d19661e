//! Values to what they are wanted to be; each that is not is a fault of its own.

use std::{cell::RefCell, sync::Arc};

use jiff::civil::Date;
use trustrun_model::Action;

use super::is_tame;
use crate::{
    Fault,
    pattern::shown,
    suggest::nearest,
    text::{Faults, Spot, Text},
    yaml::{Kind, Node},
};

/// A document that is being read.
pub(super) struct Reading<'t> {
    pub(super) text: &'t Text,
    pub(super) faults: &'t Faults,
    /// Where rules have a remedy, which only presets may.
    pub(super) remedies: RefCell<Vec<Spot>>,
}

/// The values of a mapping by their keys.
pub(super) struct Fields<'n, 't> {
    keys: &'n [&'static str],
    values: [Option<(Spot, &'n Node<'t>)>; MOST],
}

/// Most keys that a mapping may have.
const MOST: usize = 20;

impl<'n, 't> Fields<'n, 't> {
    /// The value; none also where it is null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        let (_, value) = self.values[self.keys.iter().position(|k| *k == key)?]?;
        (!matches!(value.kind, Kind::Null)).then_some(value)
    }
}

impl Fields<'_, '_> {
    /// Where the key stands.
    pub(super) fn key(&self, key: &str) -> Option<Spot> {
        self.values[self.keys.iter().position(|k| *k == key)?].map(|(at, _)| at)
    }
}

impl Reading<'_> {
    /// Tells about remedies outside presets.
    pub(super) fn refuse_remedies(&self) {
        for at in self.remedies.take() {
            let (found, wanted) = ("remedy".to_owned(), listed(&super::rule::KEYS));
            self.fault(at, Fault::UnknownKey { found, wanted, meant: None });
        }
    }

    pub(super) fn fault(&self, at: Spot, fault: Fault) {
        self.faults.add(self.text, at, fault);
    }

    pub(super) fn wrong(&self, node: &Node<'_>, wanted: &'static str) {
        if matches!(node.kind, Kind::Wrong) {
            return;
        }
        self.fault(node.at, Fault::WrongType { found: node.shown(), wanted });
    }

    /// A mapping with some of these keys.
    pub(super) fn map<'n, 't>(
        &self,
        node: &'n Node<'t>,
        keys: &'n [&'static str],
        wanted: &'static str,
    ) -> Option<Fields<'n, 't>> {
        let Kind::Map(map) = &node.kind else {
            self.wrong(node, wanted);
            return None;
        };
        let mut values = [None; MOST];
        for (key, value) in map {
            let Kind::Scalar(name) = &key.kind else {
                self.wrong(key, "a key, such as `name`");
                continue;
            };
            match keys.iter().position(|k| *k == name) {
                None => {
                    let meant = nearest(name, keys).map(str::to_owned);
                    self.fault(key.at, Fault::UnknownKey { found: shown(name), wanted: listed(keys), meant });
                }
                Some(at) if values[at].is_some() => self.fault(key.at, Fault::DuplicateKey { key: shown(name) }),
                Some(at) => values[at] = Some((key.at, value)),
            }
        }
        Some(Fields { keys, values })
    }

    /// A mapping whose keys are names of the author's choice.
    pub(super) fn named<'n, 't>(
        &self,
        node: &'n Node<'t>,
        what: &'static str,
    ) -> impl Iterator<Item = (Arc<str>, &'n Node<'t>, &'n Node<'t>)> + use<'n, 't> {
        let mut named: Vec<(Arc<str>, &Node<'_>, &Node<'_>)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        match &node.kind {
            Kind::Map(map) => {
                for (key, value) in map {
                    let Kind::Scalar(name) = &key.kind else {
                        self.wrong(key, "a name");
                        continue;
                    };
                    if !is_identifier(name) {
                        self.fault(key.at, Fault::Identifier { what, found: shown(name) });
                    } else if !seen.insert(name.clone()) {
                        self.fault(key.at, Fault::DuplicateKey { key: shown(name) });
                    } else {
                        named.push((Arc::from(&**name), key, value));
                    }
                }
            }
            Kind::Null => {}
            _ => self.wrong(node, "names with values, such as `resource: contoso-phi`"),
        }
        named.into_iter()
    }

    pub(super) fn list<'n, 't>(&self, node: &'n Node<'t>) -> Option<&'n [Node<'t>]> {
        match &node.kind {
            Kind::List(list) => Some(list),
            _ => {
                self.wrong(node, "a list, such as `[\"example.org:443\"]`");
                None
            }
        }
    }

    /// A list, or what could be the one entry of a list.
    pub(super) fn one_or_more<'n, 't>(&self, node: &'n Node<'t>) -> Vec<&'n Node<'t>> {
        match &node.kind {
            Kind::List(list) => list.iter().collect(),
            _ => vec![node],
        }
    }

    pub(super) fn string<'n>(&self, node: &'n Node<'_>) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar(text) => Some(text),
            Kind::Null => {
                self.wrong(node, "text");
                None
            }
            _ => {
                self.wrong(
                    node,
                    "text; what begins with `[`, `{` or `*` needs quotes, such as `\"[2001:db8::1]:443\"`",
                );
                None
            }
        }
    }

    /// Text that reports and terminals show.
    pub(super) fn line(&self, node: &Node<'_>, what: &'static str, most: usize) -> Option<String> {
        let text = self.string(node)?;
        if !is_tame(text) || text.trim().is_empty() || (text.len() > most && text.chars().count() > most) {
            self.fault(node.at, Fault::Line { what, found: shown(text), most });
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn name(&self, node: &Node<'_>) -> Option<String> {
        self.line(node, "the name", 200)
    }

    pub(super) fn boolean(&self, node: &Node<'_>) -> Option<bool> {
        match &node.kind {
            Kind::Scalar(text) if text == "true" => Some(true),
            Kind::Scalar(text) if text == "false" => Some(false),
            _ => {
                self.wrong(node, "`true` or `false`");
                None
            }
        }
    }

    pub(super) fn word<T: Copy>(
        &self,
        node: &Node<'_>,
        key: &'static str,
        wanted: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = self.string(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == found) {
            return Some(*value);
        }
        let meant = nearest(found, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>());
        self.fault(node.at, Fault::Word { key, found: shown(found), wanted, meant });
        None
    }

    pub(super) fn action(&self, node: &Node<'_>) -> Option<Action> {
        let word = self.string(node)?;
        word.parse().ok().or_else(|| {
            let meant = nearest(word, &Action::ALL.map(Action::as_str));
            self.fault(node.at, Fault::Action { found: shown(word), meant });
            None
        })
    }

    /// `YYYY-MM-DD`, and nothing else that is a date somewhere.
    pub(super) fn date(&self, node: &Node<'_>) -> Option<Date> {
        let text = self.string(node)?;
        let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let date = text.parse().ok().filter(|_| plain);
        if date.is_none() {
            self.fault(node.at, Fault::Date { found: shown(text) });
        }
        date
    }
}

/// Keys as messages list them; what only presets have is not among them.
fn listed(keys: &[&str]) -> String {
    keys.iter().filter(|key| **key != "remedy").copied().collect::<Vec<_>>().join(", ")
}

/// A name of a parameter or an environment.
pub(crate) fn is_identifier(text: &str) -> bool {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    text.len() <= 64 && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && text.bytes().all(rest)
}
