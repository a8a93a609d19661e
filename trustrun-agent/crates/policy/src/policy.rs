//! A policy as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use sha2::{Digest, Sha256};
use trustrun_model::Action;

use crate::{Matcher, Rule, RuleIndex, Tables, TablesError};

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
    /// SHA-256 of the text, in lower-case hexadecimal. Of several policies: of their sorted digests, each followed by
    /// a newline.
    pub sha256: String,
    /// What happens where no rule matches.
    pub default: Action,
    /// Sockets of services outside, or folders of them, that a command under an enforcing policy finds: absolute paths.
    pub unix_sockets: BTreeSet<PathBuf>,
    /// The rules; a [`RuleIndex`] is an index into them.
    pub rules: Vec<Rule>,
    /// Rules for accepted connections: patterns are peers' networks with the port that was connected to. Where there is
    /// none, accepted connections are reported and not judged.
    pub listen: Vec<Rule>,
}

impl Policy {
    /// Puts several policies together: all rules of all, and the most severe default. The result is the same in
    /// whatever order they are given; one that is given twice counts once. Rules are then named
    /// `policy/rule`. None where there is no policy at all.
    #[must_use]
    pub fn merge(policies: Vec<Self>) -> Option<Self> {
        let mut distinct: BTreeMap<(String, String), Self> = BTreeMap::new();
        for policy in policies {
            let default = policy.default;
            let kept = distinct.entry((policy.name.clone(), policy.sha256.clone())).or_insert(policy);
            // The same text twice, but one with a default of its own (`with_default`).
            kept.default = kept.default.max(default);
        }
        if distinct.len() < 2 {
            return distinct.into_values().next();
        }
        let mut digests: Vec<String> = distinct.values().map(|p| format!("{}\n", p.sha256)).collect();
        digests.sort();
        let name = distinct.values().map(|p| p.name.as_str()).collect::<Vec<_>>().join("+");
        let default = distinct.values().map(|p| p.default).max()?;
        let unix_sockets = distinct.values().flat_map(|p| p.unix_sockets.iter().cloned()).collect();
        let (mut rules, mut listen) = (Vec::new(), Vec::new());
        for policy in distinct.into_values() {
            let named = |rule: Rule| Rule { name: format!("{}/{}", policy.name, rule.name), ..rule };
            rules.extend(policy.rules.into_iter().map(named));
            listen.extend(policy.listen.into_iter().map(named));
        }
        Some(Self {
            name,
            description: None,
            sha256: sha256(digests.concat().as_bytes()),
            default,
            unix_sockets,
            rules,
            listen,
        })
    }

    /// The same rules with another default, for `--strict`. The digest stays that of the text.
    #[must_use]
    pub fn with_default(self, default: Action) -> Self {
        Self { default, ..self }
    }

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

/// Lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
