//! The report of a session, `trustrun.report/1`: stable, only ever added to (design 8).

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{Action, Assurance, Direction, Evidence, Protocol, Severity, Verdict};

/// The value of `schema`.
pub const SCHEMA: &str = "trustrun.report/1";

/// All of a session that a person or a tool needs to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What made the report.
    pub tool: ToolInfo,
    /// What was watched, by whom, under which policy.
    pub session: SessionInfo,
    /// The answer.
    pub verdict: Verdict,
    /// What was looked at, and that the looking worked.
    pub coverage: Coverage,
    /// Everyone the target talked to or tried to.
    pub destinations: Vec<Destination>,
    /// Names that the target asked for.
    pub queries: Vec<QueryRecord>,
    /// What was outside the policy.
    pub violations: Vec<Violation>,
    /// What may have been missed.
    pub gaps: Vec<Gap>,
    /// Ways out and blind spots of this host or sensor that were not used.
    pub limits: Vec<Limit>,
    /// `emitted = stored + sum(dropped)`.
    pub counters: Counters,
}

/// What made a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolInfo {
    /// Semantic version.
    pub version: String,
    /// SHA-256 of the executable, lower-case hex; empty where it could not be read.
    pub sha256: String,
}

/// What was watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Unique, sortable by start.
    pub id: String,
    /// Labels that the operator gave.
    pub labels: BTreeMap<String, String>,
    /// The command, redacted.
    pub command: Vec<String>,
    /// SHA-256 of the command's executable, lower-case hex; empty where it could not be read.
    pub exe_sha256: String,
    /// The user that the target ran as.
    pub user: String,
    /// Who ran the tool.
    pub operator: Operator,
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// The sensor: `ebpf`, `pcap` or `sockets`.
    pub sensor: String,
    /// What kind of looking it was.
    pub assurance: Assurance,
    /// The policy, where there was one.
    pub policy: Option<PolicyRef>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; empty while the session runs.
    pub ended_at: String,
    /// How the target ended.
    pub exit: Exit,
}

/// Who ran the tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// The invoking user's id (`SUDO_UID`, else the real uid).
    pub uid: u32,
    /// `/proc/self/loginuid`; `u32::MAX` where it is not set.
    pub login_uid: u32,
    /// The invoking user's name.
    pub name: String,
}

/// The policy of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The policy's `name`.
    pub name: String,
    /// SHA-256 of the bytes that were compiled, lower-case hex.
    pub sha256: String,
    /// The files that it was read from; none where it came from elsewhere.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// The presets that it has.
    #[serde(default)]
    pub presets: Vec<PolicyPreset>,
    /// The environment whose overlay it has.
    #[serde(default)]
    pub environment: Option<String>,
    /// What of it had expired when the session began.
    #[serde(default)]
    pub expired: Vec<PolicyExpired>,
    /// The settings that name it, where nobody named one.
    #[serde(default)]
    pub settings: Option<String>,
}

/// A preset of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPreset {
    /// `baa/azure-openai`
    pub name: String,
    /// SHA-256 of its text, lower-case hex.
    pub sha256: String,
}

/// Something of a policy that no longer counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExpired {
    /// What it is, and what that means.
    pub what: String,
    /// Its last day, `YYYY-MM-DD`, in UTC.
    pub on: String,
    /// The document, and the line in it.
    pub at: String,
}

/// A file that a policy was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFile {
    /// As it was named.
    pub path: String,
    /// Who owns it: whose word it is.
    pub owner: u32,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// How the target's first process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal's number, where one ended it.
    pub signal: Option<i32>,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Each hook, from when to when.
    pub hooks: Vec<Hook>,
    /// Whether the session's own canary connection was seen.
    pub self_test: SelfTest,
    /// The resolvers whose answers were believed.
    pub resolvers: Vec<String>,
    /// The command's own locks under an enforcing policy; none where nothing is refused.
    #[serde(default)]
    pub locks: Vec<LockState>,
}

/// One lock of an enforcing session, and whether the command was under it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// A short stable word (`private-run`, `seccomp`).
    pub name: String,
    /// What it closes, for a person.
    pub closes: String,
    /// Whether the command was under it from its first instruction on.
    pub held: bool,
    /// Why not, where it was not.
    pub reason: Option<String>,
    /// What of the command met it, as far as that is known.
    pub refused: Vec<String>,
}

/// One attached hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program's name.
    pub name: String,
    /// RFC 3339; empty if it never was.
    pub attached_at: String,
    /// RFC 3339; empty while attached.
    pub detached_at: String,
}

/// Whether the canary connection was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelfTest {
    /// It was made and seen on every hook.
    Passed,
    /// It was made, and a hook did not see it.
    Failed,
    /// None was made.
    #[default]
    None,
}

/// One destination: everything that shares host, address, port, protocol, direction, action and rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// The name, where one is known.
    pub host: Option<String>,
    /// How the name is known.
    pub evidence: Evidence,
    /// The client's own claim (SNI, Host or proxy authority), where one was read.
    pub sni: Option<String>,
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub direction: Direction,
    /// The local address and port of the first such connection; empty where it is not known.
    pub local: String,
    /// What the policy says.
    pub action: Action,
    /// The rule that said so: its name, `default`, or a reason of our own (`internal`, `resolver`).
    pub rule: String,
    /// The business associate agreement that it is under, where its rule is of a BAA preset.
    pub baa: Option<BaaStatus>,
    /// How many connections.
    pub connections: u64,
    /// Transport payload bytes, retransmissions included.
    pub bytes_sent: u64,
    /// Transport payload bytes, retransmissions included.
    pub bytes_received: u64,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Who did it.
    pub processes: Vec<Process>,
}

/// A process, as it was when it acted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// The thread group id, in the agent's pid namespace.
    pub pid: u32,
    /// The executable's path; empty where it is not known.
    pub exe: String,
    /// The arguments, redacted.
    pub argv: Vec<String>,
}

/// A name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// The name asked.
    pub name: String,
    /// The record type (`A`, `AAAA`, `HTTPS`, `TYPE65280`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it was asked: address and port.
    pub resolver: String,
    /// What the policy says.
    pub action: Action,
    /// The addresses answered.
    pub answers: Vec<String>,
    /// How often.
    pub count: u64,
}

/// Something outside the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// RFC 3339.
    pub at: String,
    /// What was done about it.
    pub action: Action,
    /// The name, where one is known.
    pub host: Option<String>,
    /// The address; none for a refused lookup.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp`, `dns` for a refused lookup, or another protocol's name.
    pub protocol: String,
    /// The rule, `default`, or a reason of our own.
    pub rule: String,
    /// Who did it.
    pub process: Process,
    /// What to do about it.
    pub suggestion: String,
    /// How many alike were folded into this one.
    pub count: u64,
    /// Who began the connection.
    #[serde(default = "outgoing")]
    pub direction: Direction,
    /// How bad it is: as its rule says, else as its action does.
    #[serde(default = "unknown")]
    pub severity: Severity,
    /// Why the rule is there, in the words of who wrote it.
    #[serde(default)]
    pub reason: Option<String>,
    /// What turns off the program's wish to connect there.
    #[serde(default)]
    pub remedy: Option<String>,
    /// Document and line of the rule.
    #[serde(default)]
    pub source: Option<String>,
}

/// Of reports that were made before there were others.
fn outgoing() -> Direction {
    Direction::Out
}

/// Of reports that were made before it was told.
fn unknown() -> Severity {
    Severity::Medium
}

/// What is known of the business associate agreement of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaaStatus {
    /// Whether it is covered.
    pub status: BaaClass,
    /// The preset that the rule is from.
    pub preset: String,
    /// Whether nobody else's tenant can be behind the name.
    pub tenant_verified: bool,
    /// With whom the agreement is.
    pub counterparty: Option<String>,
    /// Contract number, document or link.
    pub reference: Option<String>,
    /// Its last day (UTC).
    pub expires: Option<String>,
    /// Why, for a person; empty where there is nothing to say.
    pub note: String,
}

/// Whether a destination is covered by a business associate agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaaClass {
    /// One's own tenant, under an agreement.
    Covered,
    /// A provider who offers agreements: the tenant is not known, or the policy names no agreement.
    Capable,
    /// The agreement has ended.
    Expired,
}

/// Something this session may have missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// A short stable word (`events-dropped`, `hook-lost`, `unattributed`).
    pub kind: String,
    /// How often.
    pub count: u64,
    /// What it was, for a person.
    pub detail: String,
}

/// A way out or blind spot that was not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// A short stable word.
    pub kind: String,
    /// What it is, for a person.
    pub detail: String,
}

/// How many events every stage saw; `emitted = stored + sum(dropped)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events that the kernel made or tried to make.
    pub emitted: u64,
    /// Events that reached the store.
    pub stored: u64,
    /// By stage: `ring`, `decode`, `channel`, `store`.
    pub dropped: BTreeMap<String, u64>,
}

impl Counters {
    /// Whether every event is accounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.emitted == self.stored + self.dropped.values().sum::<u64>()
    }
}
