//! `trustrun.yaml`: which policy applies where none is named.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use super::{
    decode,
    fields::{Reading, is_identifier},
};
use crate::{Fault, Named, PolicyError, pattern::shown, text::Faults, yaml};

/// Settings, as far as they are about policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The policies that apply where none is named; files as paths beside the settings.
    pub policy: Vec<Named>,
    /// The environment of these.
    pub environment: Option<String>,
}

impl Settings {
    /// Reads settings; `path` is where they are, and what messages call them, and of a `hidden` text nothing is shown.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn parse(path: &Path, octets: Vec<u8>, hidden: bool) -> Result<Self, PolicyError> {
        let faults = Faults::default();
        let settings = read(path, octets, hidden, &faults);
        faults.or(settings)
    }
}

fn read(path: &Path, octets: Vec<u8>, hidden: bool, faults: &Faults) -> Option<Settings> {
    let text = decode(&path.to_string_lossy(), octets, hidden, faults)?;
    if text.source.lines().all(|line| matches!(line.trim().chars().next(), None | Some('#'))) {
        return Some(Settings::default());
    }
    let node = yaml::read(&text, faults, &[], &mut |_, _, _| {})?;
    let reading = Reading { text: &text, faults, remedies: RefCell::default() };
    let fields =
        reading.map(&node, &["policy", "environment"], "keys with values, such as `policy: ./hospital.yaml`")?;
    let beside = path.parent().unwrap_or(Path::new(""));
    let policies = fields.get("policy").map(|node| reading.one_or_more(node)).unwrap_or_default();
    let named = |node| {
        let text = reading.line(node, "the policy", 1000)?;
        // As on the command line; but a file is found beside the settings, wherever the command is.
        match Named::new(Path::new(&text)) {
            Named::File(file) => {
                let file = file.strip_prefix("./").map(PathBuf::from).unwrap_or(file);
                Some(Named::File(beside.join(file)))
            }
            preset => Some(preset),
        }
    };
    let environment = fields.get("environment").and_then(|node| {
        let name = reading.string(node)?;
        if !is_identifier(name) {
            reading.fault(node.at, Fault::Identifier { what: "an environment", found: shown(name) });
        }
        Some(name.to_owned())
    });
    Some(Settings { policy: policies.into_iter().filter_map(named).collect(), environment })
}
