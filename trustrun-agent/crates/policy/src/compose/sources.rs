//! The documents of a policy, each read once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Named, Opened, Opener};
use crate::{
    Fault, PolicyError,
    document::{self, Document, Extended},
    pattern::shown,
    policy::sha256,
    presets,
    suggest::nearest,
    text::Faults,
};

pub(super) struct Sources<'o> {
    opener: &'o mut dyn Opener,
    found: Vec<Source>,
    by_identity: HashMap<String, usize>,
}

/// A document, and where it is from.
pub(super) struct Source {
    /// As it was named, or the preset.
    pub(super) name: Arc<str>,
    /// None for what is no file.
    path: Option<PathBuf>,
    pub(super) preset: bool,
    /// None where it is none.
    pub(super) document: Option<Arc<Document>>,
}

impl<'o> Sources<'o> {
    pub(super) fn new(opener: &'o mut dyn Opener) -> Self {
        Self { opener, found: Vec::new(), by_identity: HashMap::new() }
    }

    pub(super) fn get(&self, index: usize) -> &Source {
        &self.found[index]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Source> {
        self.found.iter()
    }

    /// What a person named.
    pub(super) fn named(&mut self, named: &Named, faults: &Faults) -> Result<Option<usize>, PolicyError> {
        match named {
            Named::File(path) => self.file(path, &path.to_string_lossy(), faults).map(Some),
            Named::Text(name, octets) => Ok(self.text(name, octets, faults)),
            Named::Preset(name) => match self.preset(name, faults) {
                Ok(index) => Ok(Some(index)),
                Err(fault) => {
                    faults.add_outside("--policy", fault);
                    Ok(None)
                }
            },
        }
    }

    /// What a document extends. `chain` is how it came to that, for messages.
    pub(super) fn extended(
        &mut self,
        from: usize,
        what: &Extended,
        chain: &str,
        faults: &Faults,
    ) -> Result<usize, Fault> {
        let source = &self.found[from];
        match what {
            Extended::Preset(name) => self.preset(name, faults),
            Extended::File(name) if source.preset => Err(Fault::FileFromPreset { found: shown(name) }),
            Extended::File(name) => {
                let beside = source.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
                let path = beside.join(name.strip_prefix("./").unwrap_or(name));
                let called = path.to_string_lossy().into_owned();
                self.file(&path, &called, faults)
                    .map_err(|error| Fault::NotExtended { chain: chain.to_owned(), why: why(&error, &called) })
            }
        }
    }

    fn file(&mut self, path: &Path, called: &str, faults: &Faults) -> Result<usize, PolicyError> {
        let Opened { octets, hidden, identity } = self.opener.open(path)?;
        if octets.len() as u64 > crate::MAX_BYTES {
            return Err(crate::load::too_large(called, format!("{} octets", octets.len())));
        }
        let identity = identity.unwrap_or_else(|| format!("path {called}"));
        if let Some(index) = self.by_identity.get(&identity) {
            return Ok(*index);
        }
        let document = read(called, octets, hidden, faults);
        let source = Source { name: called.into(), path: Some(path.to_owned()), preset: false, document };
        Ok(self.keep(identity, source))
    }

    /// Octets that are there already.
    pub(super) fn text(&mut self, name: &str, octets: &[u8], faults: &Faults) -> Option<usize> {
        let document = read(name, octets.to_vec(), false, faults);
        let source = Source { name: name.into(), path: Some(PathBuf::from(name)), preset: false, document };
        Some(self.keep(format!("text {name}"), source))
    }

    fn preset(&mut self, name: &str, faults: &Faults) -> Result<usize, Fault> {
        let identity = format!("preset {name}");
        if let Some(index) = self.by_identity.get(&identity) {
            return Ok(*index);
        }
        let Some(text) = presets::find(name) else {
            let names: Vec<&str> = presets::presets().iter().map(|preset| preset.name).collect();
            return Err(Fault::UnknownPreset { found: shown(name), meant: nearest(name, &names).map(str::to_owned) });
        };
        let document = read(name, text.as_bytes().to_vec(), false, faults);
        Ok(self.keep(identity, Source { name: name.into(), path: None, preset: true, document }))
    }

    /// Lets go of the documents: what was made of their rules becomes its owner.
    pub(super) fn forget(&mut self) {
        self.found.iter_mut().for_each(|source| source.document = None);
    }

    fn keep(&mut self, identity: String, source: Source) -> usize {
        self.found.push(source);
        self.by_identity.insert(identity, self.found.len() - 1);
        self.found.len() - 1
    }
}

fn read(name: &str, octets: Vec<u8>, hidden: bool, faults: &Faults) -> Option<Arc<Document>> {
    let sha256 = sha256(&octets);
    let text = document::decode(name, octets, hidden, faults)?;
    document::parse(text, sha256, faults).map(Arc::new)
}

/// Why a file that is extended could not be, in a line of another document's.
fn why(error: &PolicyError, called: &str) -> String {
    match error {
        PolicyError::Unreadable { source, .. } => {
            format!(
                "{} cannot be read: {source}; a file is looked for beside the document that names it",
                shown(called)
            )
        }
        other => other.to_string(),
    }
}
