//! Which policy applies: what the command line names, else the settings, and how it is composed.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use trustrun_model::{Action, PolicyExpired, PolicyFile, PolicyPreset, PolicyRef, Untrusted};
use trustrun_policy::{Composer, Named, Opener, Policy, PolicyError};

use crate::{settings, trusted::Counting};

/// Options that name a policy.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PolicyOptions {
    /// A policy: a file, or a preset by its name; several are composed, and the most severe word counts.
    #[arg(long = "policy", value_name = "FILE|PRESET")]
    pub(crate) named: Vec<PathBuf>,
    /// Take the policy's overlay of this name (also TRUSTRUN_ENVIRONMENT).
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// A value for a parameter of the policy.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) parameters: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("wanted NAME=VALUE, such as resource=contoso-phi")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl PolicyOptions {
    /// The environment that is named, on the command line or around it.
    fn environment(&self) -> Option<String> {
        let around = || std::env::var("TRUSTRUN_ENVIRONMENT").ok().filter(|name| !name.is_empty());
        self.environment.clone().or_else(around)
    }

    /// A composer for what is named.
    pub(crate) fn composer<'o>(&self, opener: &'o mut dyn Opener) -> Composer<'o> {
        let parameters: BTreeMap<String, String> = self.parameters.iter().cloned().collect();
        Composer::new(opener, today()).environment(self.environment()).parameters(parameters)
    }

    /// The policy of a session: what is named, else what the settings name.
    ///
    /// # Errors
    /// If a file cannot be read, does not count or is no policy.
    pub(crate) fn for_session(&self, strict: bool) -> Result<Chosen, PolicyError> {
        if self.named.is_empty() {
            return self.active(strict);
        }
        let named: Vec<Named> = self.named.iter().map(|path| Named::new(path)).collect();
        let mut opener = Counting::default();
        let policy = strictly(self.composer(&mut opener), strict).compose(&named)?;
        Ok(Chosen { policy: Some(policy), sources: opener.files, ..Chosen::default() })
    }

    /// The policy that the settings name.
    fn active(&self, strict: bool) -> Result<Chosen, PolicyError> {
        let mut active = settings::active()?;
        let mut said = Vec::new();
        if active.settings.is_none() {
            // Only what is wrong is worth a line; that there are none is how most begin.
            said.extend(active.why.drain(..).filter(|why| why.starts_with("settings that do not count")));
            if !strict {
                return Ok(Chosen { said, ..Chosen::default() });
            }
        }
        let mut named = std::mem::take(&mut active.named);
        if named.is_empty() && active.tighten.is_empty() {
            named.push(Named::Text("--strict".into(), b"version: 1\nname: strict\ndefault: block\n".to_vec()));
        }
        let mut opener = Counting::of_settings();
        let composer = self.composer(&mut opener).tighten(active.tighten);
        let composer = match self.environment() {
            Some(_) => composer,
            None => composer.environment(active.environment),
        };
        let policy = strictly(composer, strict).compose(&named)?;
        if let Some(settings) = &active.settings {
            said.push(format!("under the active policy {}: {}", Untrusted::new(&policy.name), active.why.join("; ")));
            if policy.left_out > 0 {
                said.push(format!(
                    "{} patterns of {} are left out: they would let through or milden, and a folder's settings may only \
                     tighten",
                    policy.left_out,
                    Untrusted::new(settings)
                ));
            }
        }
        Ok(Chosen { policy: Some(policy), sources: opener.files, settings: active.settings, said })
    }
}

fn strictly(composer: Composer<'_>, strict: bool) -> Composer<'_> {
    if strict { composer.at_least(Action::Block) } else { composer }
}

/// A session's policy.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// None where nobody named one.
    pub(crate) policy: Option<Policy>,
    /// The files that it was read from.
    pub(crate) sources: Vec<PolicyFile>,
    /// The settings that name it, where nobody named it on the command line.
    pub(crate) settings: Option<String>,
    /// What the person is told about that choice.
    pub(crate) said: Vec<String>,
}

/// What the report says about a policy.
pub(crate) fn reference(policy: &Policy, files: &[PolicyFile], settings: Option<&str>) -> PolicyRef {
    let presets = policy.documents.iter().filter(|document| document.preset);
    let presets = presets.map(|p| PolicyPreset { name: p.name.clone(), sha256: p.sha256.clone() });
    let expired = policy.expired.iter().map(|expired| {
        let (on, origin) = expired.place();
        let at = format!("{}:{}", Untrusted::new(&*origin.document), origin.line);
        PolicyExpired { what: expired.to_string(), on: on.to_string(), at }
    });
    PolicyRef {
        name: policy.name.clone(),
        sha256: policy.sha256.clone(),
        files: files.to_vec(),
        presets: presets.collect(),
        environment: policy.environment.clone(),
        expired: expired.collect(),
        settings: settings.map(str::to_owned),
    }
}

/// The day by which things expire: in UTC, as policies say it.
pub(crate) fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}
