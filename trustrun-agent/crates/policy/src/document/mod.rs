//! The text of one document to what it says, before anything that it extends is put beside it.
//!
//! Each key is read by itself, so that a mistake in one hides none in another. What needs values from outside
//! (parameters) stays text here, and is read by `compose`.

mod extends;
mod fields;
mod rule;
mod settings;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::civil::Date;
use trustrun_model::{Action, Untrusted};

use self::fields::Reading;
pub use self::settings::Settings;
pub(crate) use self::{
    extends::{Entry, Extended, Overlay, Parameter, Value, check_value, is_path},
    fields::is_identifier,
    rule::{Hole, RawExcept, RawRule, pattern},
};
use crate::{
    Fault,
    pattern::shown,
    socket_path,
    text::{Faults, Spot, Text},
    yaml::{self, Node},
};

/// What a policy keeps of the content of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capture {
    /// Who, where, when, how much.
    #[default]
    Metadata,
    /// Also what requests and answers say about themselves; not built yet.
    Headers,
    /// All that is said; not built yet.
    Full,
}

impl Capture {
    /// The word used in policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Headers => "headers",
            Self::Full => "full",
        }
    }
}

/// The kind of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Destinations under a business associate agreement.
    Baa,
    /// Destinations to be refused or reported.
    Deny,
    /// Destinations to be let through.
    Allow,
}

/// What a preset says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Whether its patterns reach one tenant only; of a BAA preset.
    pub tenant: bool,
    /// Where the names are from.
    pub source: Vec<String>,
    /// When that was looked at.
    pub checked_on: Option<Date>,
    /// What it does not promise.
    pub disclaimer: Option<String>,
}

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) text: Arc<Text>,
    /// Its name, or the file's.
    pub(crate) name: Arc<str>,
    pub(crate) description: Option<String>,
    /// Of its octets.
    pub(crate) sha256: String,
    pub(crate) head: Option<Head>,
    pub(crate) extends: Vec<Entry>,
    pub(crate) parameters: BTreeMap<Arc<str>, Parameter>,
    pub(crate) default: Option<Action>,
    pub(crate) capture: Option<Capture>,
    pub(crate) unix_sockets: BTreeSet<PathBuf>,
    pub(crate) rules: Vec<Arc<RawRule>>,
    pub(crate) listen: Vec<Arc<RawRule>>,
    pub(crate) overlays: BTreeMap<Arc<str>, Overlay>,
}

const KEYS: [&str; 12] = [
    "version",
    "name",
    "description",
    "extends",
    "parameters",
    "default",
    "capture",
    "unix_sockets",
    "rules",
    "listen",
    "overlays",
    "preset",
];
/// Reads a document. None where there is nothing to go on with; what is wrong is in `faults` also where there is one.
pub(crate) fn parse(text: Arc<Text>, sha256: String, faults: &Faults) -> Option<Document> {
    if text.source.lines().all(|line| matches!(line.trim().chars().next(), None | Some('#'))) {
        faults.add(&text, Spot::TOP, Fault::Empty);
        return None;
    }
    let reading = Reading { text: &text, faults, remedies: RefCell::default() };
    let (mut rules, mut listen) = (Vec::new(), Vec::new());
    let mut sink = |key: &str, index: usize, node: &Node<'_>| {
        let to_peers = key == "listen";
        let list = if to_peers { &mut listen } else { &mut rules };
        list.extend(rule::read(&reading, index, node, to_peers).map(Arc::new));
    };
    let node = yaml::read(&text, faults, &["rules", "listen"], &mut sink)?;
    let mut parts = build(&reading, &node)?;
    drop(node);
    parts.rules.append(&mut rules);
    parts.listen.append(&mut listen);
    if parts.head.is_none() {
        reading.refuse_remedies();
    }
    drop(reading);
    Some(Document { sha256, text, ..parts })
}

/// The text of octets, or what is wrong with them.
pub(crate) fn decode(name: &str, octets: Vec<u8>, hidden: bool, faults: &Faults) -> Option<Arc<Text>> {
    let text = |source: String| Text { name: name.into(), source, hidden };
    match String::from_utf8(octets) {
        Ok(mut source) => {
            // Editors on Windows begin a file with a byte order mark.
            if source.starts_with('\u{feff}') {
                source.remove(0);
            }
            Some(Arc::new(text(source)))
        }
        Err(error) => {
            let (valid, octets) = (error.utf8_error().valid_up_to(), error.into_bytes());
            let source = String::from_utf8_lossy(&octets[..valid]);
            let last = source.rsplit('\n').next().unwrap_or_default();
            let (start, column) = (source.len() as u32, last.chars().count() as u32 + 1);
            let line = source.matches('\n').count() as u32 + 1;
            let octet = octets.get(valid).copied().unwrap_or_default();
            let at = Spot { line, column, start, end: start };
            faults.add(&text(source.into_owned()), at, Fault::NotUtf8 { octet });
            None
        }
    }
}

fn build(reading: &Reading<'_>, node: &Node<'_>) -> Option<Document> {
    let fields = reading.map(node, &KEYS, "keys with values, such as `version: 1`")?;
    check_version(reading, fields.get("version"));
    let head = fields.get("preset").and_then(|node| head(reading, node));
    let default = fields.get("default").and_then(|node| reading.action(node));
    if let (Some(_), Some(node)) = (fields.get("preset"), fields.get("default")) {
        let help = "the policy that extends a preset says what happens to the rest";
        reading.fault(node.at, Fault::Misplaced { key: "default", help });
    }
    let rules = |key, to_peers| {
        let each = |(index, node)| rule::read(reading, index, node, to_peers).map(Arc::new);
        let list = fields.get(key).and_then(|node| reading.list(node));
        list.into_iter().flatten().enumerate().filter_map(each).collect()
    };
    let sockets = fields.get("unix_sockets").and_then(|node| reading.list(node)).into_iter().flatten();
    Some(Document {
        text: Arc::new(Text { name: "".into(), source: String::new(), hidden: false }),
        name: fields.get("name").and_then(|node| reading.name(node)).unwrap_or_else(|| stem(&reading.text.name)).into(),
        description: fields.get("description").and_then(|node| reading.string(node)).map(str::to_owned),
        sha256: String::new(),
        extends: fields.get("extends").map(|node| extends::entries(reading, node)).unwrap_or_default(),
        parameters: fields.get("parameters").map(|node| extends::parameters(reading, node)).unwrap_or_default(),
        default,
        capture: fields.get("capture").and_then(|node| capture(reading, node)),
        unix_sockets: sockets.filter_map(|node| socket(reading, node)).collect(),
        rules: rules("rules", false),
        listen: rules("listen", true),
        overlays: fields.get("overlays").map(|node| extends::overlays(reading, node)).unwrap_or_default(),
        head,
    })
}

fn check_version(reading: &Reading<'_>, version: Option<&Node<'_>>) {
    let Some(node) = version else {
        let fault = Fault::MissingKey { key: "version", help: "begin the policy with `version: 1`" };
        return reading.fault(Spot::TOP, fault);
    };
    match reading.string(node) {
        None | Some("1") => {}
        Some(other) => reading.fault(node.at, Fault::Version { found: shown(other) }),
    }
}

fn head(reading: &Reading<'_>, node: &Node<'_>) -> Option<Head> {
    let keys = &["kind", "form", "source", "checked_on", "disclaimer"];
    let fields = reading.map(node, keys, "what a preset says about itself, such as `{kind: deny}`")?;
    let Some(kind) = fields.get("kind") else {
        reading.fault(node.at, Fault::MissingKey { key: "kind", help: "write `kind: baa`, `deny` or `allow`" });
        return None;
    };
    let kinds = [("baa", Kind::Baa), ("deny", Kind::Deny), ("allow", Kind::Allow)];
    let kind = reading.word(kind, "kind", "`baa`, `deny` or `allow`", &kinds)?;
    let forms = [("tenant", true), ("provider", false)];
    let form = fields.get("form");
    match (kind, form) {
        (Kind::Baa, None) => {
            let help = "write `form: tenant` where its names belong to one tenant, else `form: provider`";
            reading.fault(node.at, Fault::MissingKey { key: "form", help });
        }
        (Kind::Deny | Kind::Allow, Some(form)) => {
            let help = "only a preset of the kind `baa` has a form";
            reading.fault(form.at, Fault::Misplaced { key: "form", help });
        }
        _ => {}
    }
    let tenant = form.and_then(|form| reading.word(form, "form", "`tenant` or `provider`", &forms));
    let source = fields.get("source").map(|node| reading.one_or_more(node)).unwrap_or_default();
    Some(Head {
        kind,
        tenant: tenant.unwrap_or(false),
        source: source.into_iter().filter_map(|node| reading.line(node, "the source", 500)).collect(),
        checked_on: fields.get("checked_on").and_then(|node| reading.date(node)),
        disclaimer: fields.get("disclaimer").and_then(|node| reading.string(node)).map(str::to_owned),
    })
}

fn capture(reading: &Reading<'_>, node: &Node<'_>) -> Option<Capture> {
    let words = [Capture::Metadata, Capture::Headers, Capture::Full].map(|c| (c.as_str(), c));
    reading.word(node, "capture", "`metadata`, `headers` or `full`", &words)
}

fn socket(reading: &Reading<'_>, node: &Node<'_>) -> Option<PathBuf> {
    let path = reading.string(node)?;
    match socket_path::parse(path) {
        Ok(path) => Some(path),
        Err(why) => {
            reading.fault(node.at, Fault::SocketPath { found: shown(path), why });
            None
        }
    }
}

/// The name of a policy that has none: that of its file, which may hold anything.
fn stem(file: &str) -> String {
    shown(&Path::new(file).file_stem().unwrap_or_default().to_string_lossy())
}

/// Whether a text is one line that a terminal shows as it is.
pub(crate) fn is_tame(text: &str) -> bool {
    Untrusted::new(text).to_string() == text
}
