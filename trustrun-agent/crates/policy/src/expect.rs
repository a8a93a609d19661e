//! Expectations that are kept beside a policy: what it has to say about some destinations.

use std::{str::FromStr, sync::Arc};

use trustrun_model::Action;

use crate::{
    Destination, Fault, PolicyError, Who, document,
    pattern::shown,
    suggest::nearest,
    text::{Faults, Text},
    yaml::{self, Kind, Node},
};

/// What `trustrun policy test` reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// Policies as `--policy` names them; files are beside this one.
    pub policy: Vec<String>,
    /// The overlay.
    pub environment: Option<String>,
    /// Values for parameters.
    pub parameters: Vec<(String, String)>,
    /// What is expected.
    pub expect: Vec<Expectation>,
}

/// One thing that a policy has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// About what.
    pub destination: Destination,
    /// Of which process.
    pub who: Who,
    /// What it has to say.
    pub action: Action,
    /// The rule that has to say it; `default` is none.
    pub rule: Option<String>,
    /// Where it is written.
    pub line: u64,
}

/// Why a text names no process.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{found}` names no process: wanted an executable's absolute path, a user, or both, such as `/usr/bin/python3,analyst`; also `unit=NAME` and `argument=TEXT`"
)]
pub struct WhoError {
    found: String,
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        let mut who = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("exe", exe)) => who.exe = Some(exe.to_owned()),
                Some(("user", user)) => who.user.push(user.to_owned()),
                Some(("unit", unit)) => who.unit = Some(unit.to_owned()),
                Some(("argument", argument)) => who.arguments.get_or_insert_default().push(argument.to_owned()),
                _ if part.starts_with('/') => who.exe = Some(part.to_owned()),
                None if !part.is_empty() && !part.contains('/') => who.user.push(part.to_owned()),
                _ => return Err(WhoError { found: shown(text) }),
            }
        }
        Ok(who)
    }
}

impl Expectations {
    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong with the text.
    pub fn parse(name: &str, octets: &[u8]) -> Result<Self, PolicyError> {
        let faults = Faults::default();
        let read = document::decode(name, octets.to_vec(), false, &faults).and_then(|text| {
            let node = yaml::read(&text, &faults, &[], &mut |_, _, _| {})?;
            Some(Reading { text: &text, faults: &faults }.all(&node))
        });
        faults.or(read)
    }
}

struct Reading<'t> {
    text: &'t Arc<Text>,
    faults: &'t Faults,
}

impl Reading<'_> {
    fn all(&self, node: &Node<'_>) -> Expectations {
        let keys = ["version", "policy", "environment", "parameters", "expect"];
        let fields = self.map(node, &keys, "keys with values, such as `policy: notebook.yaml`");
        let mut all = Expectations::default();
        for (key, value) in &fields {
            match *key {
                "policy" => all.policy = self.strings(value),
                "environment" => all.environment = self.string(value),
                "parameters" => all.parameters = self.parameters(value),
                "expect" => match &value.kind {
                    Kind::List(list) => all.expect = list.iter().filter_map(|node| self.one(node)).collect(),
                    _ => self.wrong(value, "a list, such as `[{destination: \"example.org\", action: allow}]`"),
                },
                _ => {}
            }
        }
        if all.policy.is_empty() {
            self.missing(node, "policy", "say which policy is meant, such as `policy: notebook.yaml`");
        }
        if !fields.iter().any(|(key, _)| *key == "expect") {
            self.missing(node, "expect", "write `expect:` and a list of `{destination: …, action: …}`");
        }
        all
    }

    fn one(&self, node: &Node<'_>) -> Option<Expectation> {
        let wanted = "an expectation, such as `{destination: \"example.org:443\", action: allow}`";
        let fields = self.map(node, &["destination", "as", "action", "rule"], wanted);
        let get = |key: &str| fields.iter().find(|(name, _)| *name == key).map(|(_, node)| *node);
        let who = match get("as").and_then(|node| Some((node, self.string(node)?))) {
            Some((node, text)) => match text.parse() {
                Ok(who) => who,
                Err(_) => {
                    self.wrong(node, "a process, such as `/usr/bin/python3,analyst`");
                    return None;
                }
            },
            None => Who::default(),
        };
        let (Some(destination), Some(action)) = (get("destination"), get("action")) else {
            let key = if get("destination").is_none() { "destination" } else { "action" };
            self.missing(node, key, "an expectation has a destination and an action");
            return None;
        };
        let text = self.string(destination)?;
        let Ok(parsed) = text.parse::<Destination>() else {
            self.wrong(destination, "one destination, such as `api.example.org:443` or `db.example.org@10.0.0.7:5432`");
            return None;
        };
        let word = self.string(action)?;
        let Ok(action) = word.parse::<Action>() else {
            let fault = Fault::Action { found: shown(&word), meant: nearest(&word, &Action::ALL.map(Action::as_str)) };
            self.faults.add(self.text, action.at, fault);
            return None;
        };
        let rule = get("rule").and_then(|node| self.string(node));
        Some(Expectation { destination: parsed, who, action, rule, line: node.at.line.into() })
    }

    fn parameters(&self, node: &Node<'_>) -> Vec<(String, String)> {
        let Kind::Map(map) = &node.kind else {
            self.wrong(node, "names with values, such as `resource: contoso-phi`");
            return Vec::new();
        };
        map.iter().filter_map(|(key, value)| Some((self.string(key)?, self.string(value)?))).collect()
    }

    fn map<'n, 't>(
        &self,
        node: &'n Node<'t>,
        keys: &[&'static str],
        wanted: &'static str,
    ) -> Vec<(&'static str, &'n Node<'t>)> {
        let Kind::Map(map) = &node.kind else {
            self.wrong(node, wanted);
            return Vec::new();
        };
        let mut fields: Vec<(&'static str, &Node<'_>)> = Vec::new();
        for (key, value) in map {
            let Some(name) = self.string(key) else { continue };
            match keys.iter().find(|known| **known == name) {
                None => {
                    let meant = nearest(&name, keys).map(str::to_owned);
                    let fault = Fault::UnknownKey { found: shown(&name), wanted: keys.join(", "), meant };
                    self.faults.add(self.text, key.at, fault);
                }
                Some(known) if fields.iter().any(|(seen, _)| seen == known) => {
                    self.faults.add(self.text, key.at, Fault::DuplicateKey { key: shown(&name) });
                }
                Some(known) => fields.push((known, value)),
            }
        }
        fields
    }

    fn strings(&self, node: &Node<'_>) -> Vec<String> {
        match &node.kind {
            Kind::List(list) => list.iter().filter_map(|node| self.string(node)).collect(),
            _ => self.string(node).into_iter().collect(),
        }
    }

    fn string(&self, node: &Node<'_>) -> Option<String> {
        match &node.kind {
            Kind::Scalar(text) => Some(text.to_string()),
            _ => {
                self.wrong(node, "text");
                None
            }
        }
    }

    fn wrong(&self, node: &Node<'_>, wanted: &'static str) {
        if !matches!(node.kind, Kind::Wrong) {
            self.faults.add(self.text, node.at, Fault::WrongType { found: node.shown(), wanted });
        }
    }

    fn missing(&self, node: &Node<'_>, key: &'static str, help: &'static str) {
        self.faults.add(self.text, node.at, Fault::MissingKey { key, help });
    }
}
