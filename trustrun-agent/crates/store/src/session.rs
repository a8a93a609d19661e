//! A session as the database holds it.

use std::collections::BTreeMap;

use trustrun_model::{Assurance, Counters, PolicyRef, Verdict};

/// What is known of a session when it starts. Stored at once, as `incomplete`.
#[derive(Clone, Debug)]
pub struct SessionStart {
    /// [`crate::SessionId`], as text.
    pub id: String,
    /// Nanoseconds since the Unix epoch.
    pub started_ns: i64,
    /// The command, redacted.
    pub command: Vec<String>,
    /// The user that the target runs as.
    pub user: String,
    /// The policy, where there is one.
    pub policy: Option<PolicyRef>,
    /// `ebpf`, `pcap` or `sockets`.
    pub sensor: String,
    /// What kind of looking it is.
    pub assurance: Assurance,
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process that will finish the session: while it lives, the session is shown as running.
    pub agent_pid: u32,
    /// Labels that the operator gave.
    pub labels: BTreeMap<String, String>,
}

/// A session as it is read back.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    /// Orders sessions by start; pages begin before it.
    pub key: i64,
    /// Its name.
    pub id: String,
    /// Nanoseconds since the Unix epoch.
    pub started_ns: i64,
    /// Nanoseconds since the Unix epoch, once it has ended.
    pub ended_ns: Option<i64>,
    /// `incomplete` until a report was stored.
    pub verdict: Verdict,
    /// Whether it runs, has ended, or was lost.
    pub state: SessionState,
    /// The command, redacted.
    pub command: Vec<String>,
    /// The user that the target ran as.
    pub user: String,
    /// The policy, where there was one.
    pub policy: Option<PolicyRef>,
    /// `ebpf`, `pcap` or `sockets`.
    pub sensor: String,
    /// What kind of looking it was.
    pub assurance: Assurance,
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The agent's process.
    pub agent_pid: u32,
    /// Labels that the operator gave.
    pub labels: BTreeMap<String, String>,
    /// How many violations, folded ones counted each, once it has ended.
    pub violations: Option<u64>,
    /// The counters of the report, once it has ended.
    pub counters: Option<Counters>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Its agent lives.
    Running,
    /// It has a report.
    Finished,
    /// Its agent ended without a report.
    Lost,
}

impl SessionState {
    /// For a person.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Lost => "the agent ended without a report",
        }
    }
}
