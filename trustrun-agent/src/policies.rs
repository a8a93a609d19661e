//! Which policy applies: what the command line names, and how it is composed.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use trustrun_model::{Action, PolicyFile};
use trustrun_policy::{Composer, Named, Opener, Policy, PolicyError};

use crate::trusted::Counting;

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

    /// The policy of a session, and the files that it was read from.
    ///
    /// # Errors
    /// If a file cannot be read, does not count or is no policy.
    pub(crate) fn for_session(&self, strict: bool) -> Result<(Option<Policy>, Vec<PolicyFile>), PolicyError> {
        let mut named: Vec<Named> = self.named.iter().map(|path| Named::new(path)).collect();
        if named.is_empty() {
            if !strict {
                return Ok((None, Vec::new()));
            }
            named.push(Named::Text("--strict".into(), b"version: 1\nname: strict\ndefault: block\n".to_vec()));
        }
        let mut opener = Counting::default();
        let composer = self.composer(&mut opener);
        let composer = if strict { composer.at_least(Action::Block) } else { composer };
        let policy = composer.compose(&named)?;
        Ok((Some(policy), opener.files))
    }
}

/// The day by which things expire: in UTC, as policies say it.
pub(crate) fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}
