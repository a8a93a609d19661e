//! What a policy says to do about a connection.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What to do about a connection, mildest first: where several rules match, the most severe wins, so the derived
/// order is the order that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it through; it is inside the policy.
    Allow,
    /// Let it through and record a violation.
    Alert,
    /// Refuse it in the kernel.
    Block,
    /// Refuse it in the kernel, then end the target.
    Kill,
}

impl Action {
    /// Every action, mildest first.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Alert, Self::Block, Self::Kill];

    /// Whether the kernel refuses the connection.
    #[must_use]
    pub fn refuses(self) -> bool {
        self >= Self::Block
    }

    /// Whether it is recorded as a violation.
    #[must_use]
    pub fn violates(self) -> bool {
        self >= Self::Alert
    }

    /// The word used in policies, reports and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Alert => "alert",
            Self::Block => "block",
            Self::Kill => "kill",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was found.
    pub found: String,
    /// What would have been accepted.
    pub wanted: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not one of {}", crate::Untrusted::new(self.found.as_str()), self.wanted)
    }
}

impl std::error::Error for UnknownWord {}

impl FromStr for Action {
    type Err = UnknownWord;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == s)
            .ok_or_else(|| UnknownWord { found: s.into(), wanted: "allow, alert, block, kill" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_orders_actions() {
        assert!(Action::Kill > Action::Block && Action::Block > Action::Alert && Action::Alert > Action::Allow);
        assert!(Action::Block.refuses() && !Action::Alert.refuses());
        assert!(Action::Alert.violates() && !Action::Allow.violates());
    }

    #[test]
    fn words_round_trip() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert!("Allow".parse::<Action>().is_err());
    }
}
