//! One rule of a policy as plain data, with all that may be said beside its destinations. Grammar and meaning:
//! `docs/decisions/0011`.

use std::sync::Arc;

use jiff::civil::Date;
use trustrun_model::{Action, Severity};

use crate::{Pattern, Private};

/// Which rule of a policy, from 0. Indices of a policy and of what is compiled from it are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub u32);

/// One rule: destinations (or, in `listen`, peers), each with what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name, or `rule N` with N from 1.
    pub name: String,
    /// Where it is written.
    pub origin: Origin,
    /// In the order of the file, which does not matter.
    pub patterns: Vec<(Action, Pattern)>,
    /// Destinations that this rule does not speak about, though its patterns match them: those of an `except` of the rule
    /// or of the `extends` entry that brought it. Expired ones are not here.
    pub except: Vec<Except>,
    /// Processes that it speaks about; none is every process.
    pub when: Option<Arc<When>>,
    /// Whether names that it lets through may have a private address.
    pub private: Private,
    /// How bad a violation of it is; none is what its action says.
    pub severity: Option<Severity>,
    /// Why it is there, in the words of who wrote it.
    pub reason: Option<Arc<str>>,
    /// The last day (UTC) on which it counts.
    pub expires: Option<Date>,
    /// The agreement that its destinations are under, where it comes from a BAA preset.
    pub baa: Option<Arc<Baa>>,
    /// What turns off the program's wish to connect there, to be shown beside a violation: telemetry's off-switch.
    pub remedy: Option<Arc<str>>,
}

/// Where something is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as it was named, or the preset (`baa/azure-openai`).
    pub document: Arc<str>,
    /// From 1; 0 is what trustrun adds by itself.
    pub line: u64,
    /// From 1, in characters; 0 where it is not known.
    pub column: u64,
}

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Except {
    /// What is taken out. Its protocol and ports are taken out of the rule's: `example.org:443` leaves port 80 to the rule.
    pub pattern: Pattern,
    /// Why, in the words of who wrote it.
    pub reason: Arc<str>,
    /// The last day (UTC) on which it counts.
    pub expires: Option<Date>,
    /// Where it is written.
    pub origin: Origin,
}

/// Which processes a rule speaks about: all that is said has to hold, and of a list one entry. Judged when a process
/// executes a program, and kept until it executes another; children begin with what their parent was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct When {
    /// Globs of the executable's absolute path as the kernel resolved it, `*` within a folder and `**` across.
    pub exe: Vec<String>,
    /// User names or numbers (the real user id).
    pub user: Vec<String>,
    /// Globs of the systemd unit that the session guards.
    pub unit: Vec<String>,
    /// Arguments, whole: one of the process's arguments is this one. Globs only where nothing is refused.
    pub argument: Vec<String>,
}

/// What is known of a business associate agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Baa {
    /// The preset that the destinations come from.
    pub preset: String,
    /// Whether its patterns can reach one tenant only (tenant form), or any tenant of the provider.
    pub tenant: bool,
    /// The agreement, where the policy names one.
    pub agreement: Option<Agreement>,
}

/// `baa: {counterparty, reference, expires}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Agreement {
    /// With whom.
    pub counterparty: String,
    /// Contract number, document or link.
    pub reference: String,
    /// The last day (UTC) of the agreement.
    pub expires: Option<Date>,
}
