//! What a preset says about itself, for who chooses among them.

use std::sync::Arc;

use crate::{Head, Preset, document, sha256, text::Faults};

/// A preset as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// In one line.
    pub description: Option<String>,
    /// Kind, form, source and date.
    pub head: Head,
    /// What it leaves open, by name.
    pub parameters: Vec<DescribedParameter>,
}

/// A parameter of a preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedParameter {
    /// As patterns name it.
    pub name: Arc<str>,
    /// What it is.
    pub description: Option<String>,
    /// None where it has to be given.
    pub default: Option<Arc<str>>,
}

impl Preset {
    /// What the preset says about itself; none where its text is no preset, which a test excludes.
    #[must_use]
    pub fn describe(&self) -> Option<Described> {
        let faults = Faults::default();
        let octets = self.text.as_bytes();
        let text = document::decode(self.name, octets.to_vec(), false, &faults)?;
        let document = document::parse(text, sha256(octets), &faults)?;
        let parameters = document.parameters.into_iter().map(|(name, parameter)| DescribedParameter {
            name,
            description: parameter.description,
            default: parameter.default.map(|value| value.text),
        });
        let parameters = parameters.collect();
        Some(Described { description: document.description, head: document.head?, parameters })
    }
}
