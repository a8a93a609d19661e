//! What a document takes from others, and what it leaves open: `extends`, `parameters`, `overlays`.

use std::{collections::BTreeMap, sync::Arc};

use trustrun_model::Action;

use super::{
    fields::Reading,
    rule::{self, RawExcept, RawRule},
};
use crate::{
    Agreement, Fault,
    pattern::shown,
    text::Spot,
    yaml::{Kind, Node},
};

/// What is extended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extended {
    /// By its name.
    Preset(String),
    /// As it is written: beside the document.
    File(String),
}

impl Extended {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Preset(name) | Self::File(name) => name,
        }
    }
}

/// One entry of `extends`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: Extended,
    pub(crate) at: Spot,
    pub(crate) parameters: BTreeMap<Arc<str>, Value>,
    pub(crate) baa: Option<Arc<Agreement>>,
    pub(crate) except: Vec<RawExcept>,
}

/// A value of a parameter, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) text: Arc<str>,
    pub(crate) at: Spot,
}

/// What a document leaves open.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) description: Option<String>,
    pub(crate) at: Spot,
    /// None where it is required.
    pub(crate) default: Option<Value>,
}

/// What an environment changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) default: Option<Action>,
    pub(crate) parameters: BTreeMap<Arc<str>, Value>,
    pub(crate) extends: Vec<Entry>,
    pub(crate) rules: Vec<Arc<RawRule>>,
    pub(crate) listen: Vec<Arc<RawRule>>,
}

pub(super) fn entries(reading: &Reading<'_>, node: &Node<'_>) -> Vec<Entry> {
    reading.list(node).into_iter().flatten().filter_map(|node| entry(reading, node)).collect()
}

fn entry(reading: &Reading<'_>, node: &Node<'_>) -> Option<Entry> {
    if let Kind::Scalar(text) = &node.kind {
        let what = match is_path(text) {
            true => Extended::File(text.to_string()),
            false => Extended::Preset(text.to_string()),
        };
        return Some(Entry { what, at: node.at, parameters: BTreeMap::new(), baa: None, except: Vec::new() });
    }
    let wanted = "a preset's name, a file that begins with `./`, `../` or `/`, or a mapping with `preset:` or `file:`";
    let fields = reading.map(node, &["preset", "file", "parameters", "baa", "except"], wanted)?;
    let (preset, file) = (fields.get("preset"), fields.get("file"));
    let (what, at) = match (preset, file) {
        (Some(node), None) => (Extended::Preset(reading.string(node)?.to_owned()), node.at),
        (None, Some(node)) => (Extended::File(reading.string(node)?.to_owned()), node.at),
        (Some(_), Some(file)) => {
            let help = "the entry names a preset already; write an entry for each";
            reading.fault(file.at, Fault::Misplaced { key: "file", help });
            return None;
        }
        (None, None) => {
            let help = "an entry names a preset, or with `file:` a file";
            reading.fault(node.at, Fault::MissingKey { key: "preset", help });
            return None;
        }
    };
    Some(Entry {
        what,
        at,
        parameters: fields.get("parameters").map(|node| values(reading, node)).unwrap_or_default(),
        baa: fields.get("baa").and_then(|node| rule::agreement(reading, node)).map(Arc::new),
        except: fields.get("except").map(|node| rule::excepts(reading, node, None)).unwrap_or_default(),
    })
}

/// Whether a text has a file's form, which no preset's name has.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with("./") || text.starts_with("../") || text.starts_with('/')
}

/// Values that are given.
fn values(reading: &Reading<'_>, node: &Node<'_>) -> BTreeMap<Arc<str>, Value> {
    let named = reading.named(node, "a parameter");
    named.filter_map(|(name, _, node)| Some((name.clone(), value(reading, &name, node)?))).collect()
}

/// Parameters of a document: a value, or what is known about it.
pub(super) fn parameters(reading: &Reading<'_>, node: &Node<'_>) -> BTreeMap<Arc<str>, Parameter> {
    let each = |(name, key, node): (Arc<str>, &Node<'_>, &Node<'_>)| {
        let at = key.at;
        let parameter = match &node.kind {
            // Required, with nothing said about it.
            Kind::Null => Parameter { description: None, at, default: None },
            Kind::Map(_) => {
                let wanted = "a value, or `{description: \"what it is\", default: VALUE}`";
                let fields = reading.map(node, &["description", "default"], wanted)?;
                Parameter {
                    at,
                    description: fields.get("description").and_then(|n| reading.line(n, "the description", 500)),
                    default: fields.get("default").and_then(|node| value(reading, &name, node)),
                }
            }
            _ => Parameter { description: None, at, default: Some(value(reading, &name, node)?) },
        };
        Some((name, parameter))
    };
    reading.named(node, "a parameter").filter_map(each).collect()
}

fn value(reading: &Reading<'_>, name: &str, node: &Node<'_>) -> Option<Value> {
    let text = match &node.kind {
        Kind::Null => "",
        _ => reading.string(node)?,
    };
    if let Err(why) = check_value(text) {
        reading.fault(node.at, Fault::ParameterValue { name: shown(name), value: shown(text), why });
        return None;
    }
    Some(Value { text: text.into(), at: node.at })
}

/// Whether a text may be put where a parameter stands: one label, one address, or a port.
pub(crate) fn check_value(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty; wanted one label of a name, one address, or a port");
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    if text.contains('*') {
        return Err(
            "it holds a wildcard, which would widen the rule; wanted one label of a name, one address, or a port",
        );
    }
    if text.contains('.') {
        return Err("it holds a dot, so it is more than one label of a name; wanted one label, one address, or a port");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return Err("wanted one label of a name (letters, digits, `-` and `_`), one address, or a port");
    }
    if text.len() > 63 {
        return Err("it is longer than a label of a name, which has at most 63 octets");
    }
    Ok(())
}

pub(super) fn overlays(reading: &Reading<'_>, node: &Node<'_>) -> BTreeMap<Arc<str>, Overlay> {
    let each = |(name, _, node): (Arc<str>, _, &Node<'_>)| Some((name, overlay(reading, node)?));
    reading.named(node, "an environment").filter_map(each).collect()
}

fn overlay(reading: &Reading<'_>, node: &Node<'_>) -> Option<Overlay> {
    let wanted = "what the environment changes, such as `{default: alert}`";
    let fields = reading.map(node, &["default", "parameters", "extends", "rules", "listen"], wanted)?;
    let rules = |key, to_peers| {
        let list = fields.get(key).and_then(|node| reading.list(node)).into_iter().flatten();
        list.enumerate().filter_map(|(index, node)| rule::read(reading, index, node, to_peers).map(Arc::new)).collect()
    };
    Some(Overlay {
        default: fields.get("default").and_then(|node| reading.action(node)),
        parameters: fields.get("parameters").map(|node| values(reading, node)).unwrap_or_default(),
        extends: fields.get("extends").map(|node| entries(reading, node)).unwrap_or_default(),
        rules: rules("rules", false),
        listen: rules("listen", true),
    })
}
