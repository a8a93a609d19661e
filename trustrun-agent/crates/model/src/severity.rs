//! How bad a finding is, in OCSF's words (`severity_id` 1 to 5).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Action, UnknownWord};

/// The least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Informational,
    /// To be looked at some day.
    Low,
    /// To be looked at.
    Medium,
    /// To be acted on soon.
    High,
    /// To be acted on now.
    Critical,
}

impl Severity {
    /// Every one, the least first.
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// What a violation has whose rule says nothing else.
    #[must_use]
    pub fn of(action: Action) -> Self {
        match action {
            Action::Allow => Self::Informational,
            Action::Alert => Self::Medium,
            Action::Block => Self::High,
            Action::Kill => Self::Critical,
        }
    }

    /// The word used in policies, reports and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let unknown = || UnknownWord { found: word.into(), wanted: "informational, low, medium, high, critical" };
        Self::ALL.into_iter().find(|severity| severity.as_str() == word).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for severity in Severity::ALL {
            assert_eq!(severity.as_str().parse(), Ok(severity));
        }
        assert!("High".parse::<Severity>().is_err());
    }

    #[test]
    fn a_more_severe_action_is_no_less_severe() {
        assert!(Action::ALL.windows(2).all(|pair| Severity::of(pair[0]) < Severity::of(pair[1])));
    }
}
