//! The presets that come with trustrun: the files of `policies/{baa,deny,allow}`, part of the program.

use crate::{Head, PolicyError, document, text::Faults};

include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// A preset that comes with trustrun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// `baa/azure-openai`
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// What a document says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What a preset says besides.
    pub head: Option<Head>,
    /// What it leaves open: name, description, and the default where it has one.
    pub parameters: Vec<(String, Option<String>, Option<String>)>,
    /// The environments that it has.
    pub environments: Vec<String>,
}

impl Introduction {
    /// Reads what a document says about itself; what it extends is not looked at.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(name: &str, octets: Vec<u8>) -> Result<Self, PolicyError> {
        let faults = Faults::default();
        let sha256 = crate::sha256(&octets);
        let document =
            document::decode(name, octets, false, &faults).and_then(|text| document::parse(text, sha256, &faults));
        let document = faults.or(document)?;
        let parameters = document.parameters.iter().map(|(name, parameter)| {
            let default = parameter.default.as_ref().map(|value| value.text.to_string());
            (name.to_string(), parameter.description.clone(), default)
        });
        Ok(Self {
            name: document.name.to_string(),
            description: document.description.clone(),
            parameters: parameters.collect(),
            environments: document.overlays.keys().map(|name| name.to_string()).collect(),
            head: document.head,
        })
    }
}

impl Preset {
    /// What it says about itself.
    ///
    /// # Errors
    /// All that is wrong with it; a test sees to it that nothing is.
    pub fn about(&self) -> Result<Introduction, PolicyError> {
        Introduction::read(self.name, self.text.as_bytes().to_vec())
    }
}

/// Every preset, by name.
#[must_use]
pub fn presets() -> &'static [Preset] {
    PRESETS
}

/// The text of a preset.
pub(crate) fn find(name: &str) -> Option<&'static str> {
    let at = PRESETS.binary_search_by(|preset| preset.name.cmp(name)).ok()?;
    Some(PRESETS[at].text)
}
