//! A policy as plain data.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use jiff::civil::Date;
use sha2::{Digest, Sha256};
use trustrun_model::Action;

use crate::pattern::shown;
use crate::{Capture, Matcher, Origin, Rule, RuleIndex, Tables, TablesError};

/// What is acceptable, and what to do about the rest.
///
/// Order never matters: of all rules that match a destination the most severe action wins, and the default applies
/// where none matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, or the file's.
    pub name: String,
    /// What it says about itself.
    pub description: Option<String>,
    /// Its identity: SHA-256 of its canonical form, in lower-case hexadecimal. Of a document by itself
    /// ([`Policy::parse`]) that of its text.
    pub sha256: String,
    /// What happens where no rule matches.
    pub default: Action,
    /// What is kept of the content of connections.
    pub capture: Capture,
    /// Sockets of services outside, or folders of them, that a command under an enforcing policy finds: absolute paths.
    pub unix_sockets: BTreeSet<PathBuf>,
    /// The rules; a [`RuleIndex`] is an index into them.
    pub rules: Vec<Rule>,
    /// Rules for accepted connections: patterns are peers' networks with the port that was connected to. Where there is
    /// none, accepted connections are reported and not judged.
    pub listen: Vec<Rule>,
    /// Its canonical form, whose digest it is known by; empty for a document by itself.
    pub canonical: Arc<str>,
    /// What it is made of, sorted.
    pub documents: Vec<DocumentRef>,
    /// What no longer counts, sorted.
    pub expired: Vec<Expired>,
    /// How many patterns of policies that may only tighten are left out, since they would loosen.
    pub left_out: usize,
    /// The environment whose overlay it has.
    pub environment: Option<String>,
}

/// A document that a policy is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentRef {
    /// The file as it was named, or the preset.
    pub name: String,
    /// SHA-256 of its octets, in lower-case hexadecimal.
    pub sha256: String,
    /// Whether it comes with trustrun.
    pub preset: bool,
}

/// What no longer counts, since its last day is past.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expired {
    /// A rule, which is left out.
    Rule {
        /// Its name, with its document's where it is extended.
        name: String,
        /// Its last day.
        on: Date,
        /// Where it is written.
        origin: Origin,
    },
    /// An exception, which is left out.
    Except {
        /// What it took out.
        destination: String,
        /// Its last day.
        on: Date,
        /// Where it is written.
        origin: Origin,
    },
    /// An agreement: what the preset allows is a violation.
    Agreement {
        /// The preset.
        preset: String,
        /// Its last day.
        on: Date,
        /// Where it is written.
        origin: Origin,
    },
}

impl Expired {
    /// Its last day, and where it is written.
    #[must_use]
    pub fn place(&self) -> (Date, &Origin) {
        let (Self::Rule { on, origin, .. } | Self::Except { on, origin, .. } | Self::Agreement { on, origin, .. }) =
            self;
        (*on, origin)
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { name, on, .. } => write!(f, "the rule `{}` expired on {on} and is left out", shown(name)),
            Self::Except { destination, on, .. } => {
                write!(f, "the exception for `{}` expired on {on} and is left out", shown(destination))
            }
            Self::Agreement { preset, on, .. } => {
                write!(f, "the agreement for {} expired on {on}: what it allows is a violation", shown(preset))
            }
        }
    }
}

impl Policy {
    /// Whether anything can be refused: a `block` or `kill`, the default included.
    #[must_use]
    pub fn enforcing(&self) -> bool {
        let mut patterns = self.rules.iter().chain(&self.listen).flat_map(|rule| &rule.patterns);
        self.default.refuses() || patterns.any(|(action, _)| action.refuses())
    }

    /// The name of a rule of this policy; empty where there is no such rule.
    #[must_use]
    pub fn rule_name(&self, rule: RuleIndex) -> &str {
        self.rules.get(rule.0 as usize).map_or("", |r| r.name.as_str())
    }

    /// Compiles for deciding in user space.
    #[must_use]
    pub fn compile(&self) -> Matcher {
        Matcher::new(&self.without_encrypted_dns())
    }

    /// Compiles for the kernel's maps.
    ///
    /// # Errors
    ///
    /// Where the rules multiply to more entries than the kernel is given, [`crate::MAX_PORT_ENTRIES`].
    pub fn tables(&self) -> Result<Tables, TablesError> {
        Tables::new(&self.without_encrypted_dns())
    }
}

/// SHA-256 of octets, in lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
