//! The presets that come with trustrun: the files of `policies/{baa,deny,allow}`, part of the program.

include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// A preset that comes with trustrun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// `baa/azure-openai`
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
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
