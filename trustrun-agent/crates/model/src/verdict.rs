//! The answer of a session, and what kind of looking it rests on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer to "did this program talk only to whom it may?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Under a policy, nothing outside it, no gap.
    Pass,
    /// A violation was seen.
    Fail,
    /// No violation was seen, but something may have been missed.
    Incomplete,
    /// There was no policy to judge by.
    Observed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Incomplete => "incomplete",
            Self::Observed => "observed",
        })
    }
}

/// What kind of looking a verdict rests on, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// Enforcing, and every lock of doctor's list held.
    Contained,
    /// Enforcing.
    Enforced,
    /// Watching only.
    Observed,
    /// Polling; cannot pass.
    Sampled,
}

/// The one place that decides a verdict. A gap never passes, and neither does a session that only sampled.
#[must_use]
pub fn judge(has_policy: bool, violations: u64, gaps: u64, assurance: Assurance) -> Verdict {
    if violations > 0 {
        Verdict::Fail
    } else if !has_policy {
        Verdict::Observed
    } else if gaps > 0 || assurance == Assurance::Sampled {
        Verdict::Incomplete
    } else {
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_never_passes() {
        assert_eq!(judge(true, 0, 0, Assurance::Enforced), Verdict::Pass);
        assert_eq!(judge(true, 0, 1, Assurance::Contained), Verdict::Incomplete);
        assert_eq!(judge(true, 1, 1, Assurance::Contained), Verdict::Fail);
        assert_eq!(judge(true, 0, 0, Assurance::Sampled), Verdict::Incomplete);
        assert_eq!(judge(false, 0, 0, Assurance::Observed), Verdict::Observed);
        assert_eq!(judge(false, 0, 3, Assurance::Observed), Verdict::Observed);
    }
}
