//! Documents to one policy: what they extend, the values of their parameters, one environment, and what has expired.
//!
//! The crate reads no clock and opens no file by itself: the day and an [`Opener`] come from the caller, who so decides
//! whose files count. The order in which things are written or named changes nothing.

mod finish;
mod parameters;
mod sources;
mod walk;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::civil::Date;
use trustrun_model::Action;

pub(crate) use self::walk::Made;
use self::{sources::Sources, walk::Walk};
use crate::{
    Fault, Policy, PolicyError,
    document::{check_value, is_path},
    pattern::shown,
    text::Faults,
};

/// Opens the files of a policy, and says which count.
pub trait Opener {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is too large or does not count.
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError>;
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// All of it.
    pub octets: Vec<u8>,
    /// Whether nothing of its text may be shown.
    pub hidden: bool,
    /// What tells it from every other file, such as device and inode; its path where there is none.
    pub identity: Option<String>,
}

/// An [`Opener`] for what is extended from nowhere: no file is opened.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Opener for NoFiles {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let none = std::io::Error::new(std::io::ErrorKind::Unsupported, "files are not read here");
        Err(PolicyError::unreadable(&path.to_string_lossy(), none))
    }
}

/// What a person named: `--policy FILE|PRESET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A file, by its path.
    File(PathBuf),
    /// A preset that comes with trustrun.
    Preset(String),
    /// Octets that are there already, with what messages call them.
    Text(String, Vec<u8>),
}

impl Named {
    /// A preset where there is one of this name, else a file; what begins with `./`, `../` or `/` is a file always.
    #[must_use]
    pub fn new(text: &Path) -> Self {
        match text.to_str() {
            Some(name) if !is_path(name) && crate::presets::find(name).is_some() => Self::Preset(name.to_owned()),
            // What looks like a preset and is neither is told about as one.
            Some(name) if is_preset_name(name) => Self::Preset(name.to_owned()),
            _ => Self::File(text.to_owned()),
        }
    }
}

/// `kind/name`
fn is_preset_name(name: &str) -> bool {
    let kind = name.split_once('/').map(|(kind, _)| kind);
    kind.is_some_and(|kind| matches!(kind, "baa" | "deny" | "allow")) && Path::new(name).extension().is_none()
}

/// What a policy is composed of and for.
pub struct Composer<'a> {
    opener: &'a mut dyn Opener,
    today: Option<Date>,
    environment: Option<String>,
    parameters: BTreeMap<String, String>,
    at_least: Option<Action>,
    placeholders: bool,
    tighten: Vec<Named>,
}

impl<'a> Composer<'a> {
    /// Whose files count, and which day (UTC) it is.
    pub fn new(opener: &'a mut dyn Opener, today: Date) -> Self {
        let parameters = BTreeMap::new();
        Self {
            opener,
            today: Some(today),
            environment: None,
            parameters,
            at_least: None,
            placeholders: false,
            tighten: Vec::new(),
        }
    }

    /// Takes the overlay of this name.
    #[must_use]
    pub fn environment(self, name: Option<String>) -> Self {
        Self { environment: name, ..self }
    }

    /// Values for the parameters of the named documents.
    #[must_use]
    pub fn parameters(self, parameters: BTreeMap<String, String>) -> Self {
        Self { parameters, ..self }
    }

    /// A default that is at least this severe, also where no document has one.
    #[must_use]
    pub fn at_least(self, default: Action) -> Self {
        Self { at_least: Some(default), ..self }
    }

    /// Policies that may add to what is refused or reported, and to nothing else: what they would let through or milden
    /// is left out.
    #[must_use]
    pub fn tighten(self, named: Vec<Named>) -> Self {
        Self { tighten: named, ..self }
    }

    /// Lets something stand for values that are missing and a default that nobody says, to look at a preset by itself.
    /// What comes of it is no policy to run anything under.
    #[must_use]
    pub fn with_placeholders(self) -> Self {
        Self { placeholders: true, ..self }
    }

    /// Composes the policy of all that is named; their order and repetitions do not matter.
    ///
    /// # Errors
    /// All that is wrong with all documents.
    pub fn compose(self, named: &[Named]) -> Result<Policy, PolicyError> {
        let faults = Faults::default();
        for (name, value) in &self.parameters {
            if let Err(why) = check_value(value) {
                let fault = Fault::ParameterValue { name: shown(name), value: shown(value), why };
                faults.add_outside("--parameter", fault);
            }
        }
        let mut sources = Sources::new(self.opener);
        let documents = roots(&mut sources, named, &faults)?;
        let tighter = roots(&mut sources, &self.tighten, &faults)?;
        let mut walk = Walk::new(&mut sources, &faults, self.today, self.placeholders);
        walk.roots(&documents, self.environment.as_deref(), &self.parameters);
        let mut composed = walk.done();
        if !tighter.is_empty() {
            let mut walk = Walk::new(&mut sources, &faults, self.today, self.placeholders);
            walk.roots(&tighter, None, &BTreeMap::new());
            let base = if documents.is_empty() { Some(Action::Allow) } else { composed.default };
            composed.tighten(walk.done(), base.max(self.at_least));
        }
        let made = faults
            .is_empty()
            .then(|| finish::finish(composed, &mut sources, self.today, self.at_least, self.placeholders, &faults));
        let mut policy = faults.or(made.flatten())?;
        policy.environment = self.environment;
        Ok(policy)
    }
}

/// The documents that are named, each once.
fn roots(sources: &mut Sources<'_>, named: &[Named], faults: &Faults) -> Result<Vec<usize>, PolicyError> {
    let mut documents = Vec::new();
    for one in named {
        documents.extend(sources.named(one, faults)?);
    }
    documents.sort_unstable();
    documents.dedup();
    Ok(documents)
}

/// One document by itself, in the order in which it is written and with nothing expired: for what looks at documents.
pub(crate) fn alone(name: &str, octets: &[u8]) -> Result<Policy, PolicyError> {
    let faults = Faults::default();
    let mut opener = NoFiles;
    let mut sources = Sources::new(&mut opener);
    let root = sources.text(name, octets, &faults);
    let mut walk = Walk::new(&mut sources, &faults, None, false);
    walk.roots(&root.into_iter().collect::<Vec<_>>(), None, &BTreeMap::new());
    let composed = walk.done();
    let made = faults.is_empty().then(|| finish::as_written(composed, &mut sources, &faults));
    faults.or(made.flatten())
}
