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
    /// No violation was seen, but something may have been missed, or nobody watched to the end.
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

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looking {
    /// Whether there was a policy to judge by.
    pub policy: bool,
    /// Whether the target was watched until its end.
    pub to_the_end: bool,
    /// What kind of looking it was.
    pub assurance: Assurance,
}

/// The one place that decides a verdict. A gap never passes, and neither does a session that only sampled. Without a
/// policy there is nothing to pass: the session is `observed`, its gaps beside it, but only if it was: where the agent
/// was lost on the way, or never watched, it is `incomplete` as well.
#[must_use]
pub fn judge(looking: Looking, violations: u64, gaps: u64) -> Verdict {
    if violations > 0 {
        Verdict::Fail
    } else if !looking.to_the_end {
        Verdict::Incomplete
    } else if !looking.policy {
        Verdict::Observed
    } else if gaps > 0 || looking.assurance == Assurance::Sampled {
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
        let by = |assurance| Looking { policy: true, to_the_end: true, assurance };
        assert_eq!(judge(by(Assurance::Enforced), 0, 0), Verdict::Pass);
        assert_eq!(judge(by(Assurance::Contained), 0, 1), Verdict::Incomplete);
        assert_eq!(judge(by(Assurance::Contained), 1, 1), Verdict::Fail);
        assert_eq!(judge(by(Assurance::Sampled), 0, 0), Verdict::Incomplete);
        let lost = Looking { to_the_end: false, ..by(Assurance::Contained) };
        assert_eq!(judge(lost, 0, 0), Verdict::Incomplete);
        let without = Looking { policy: false, ..by(Assurance::Observed) };
        assert_eq!(judge(without, 0, 0), Verdict::Observed);
        assert_eq!(judge(without, 0, 3), Verdict::Observed, "its gaps are listed beside it");
        assert_eq!(judge(Looking { to_the_end: false, ..without }, 0, 0), Verdict::Incomplete);
    }
}
