//! The words of TrustRun as types: observation, destination, flow, action, verdict, report.
//!
//! Plain data that every other room may use. Nothing here touches the system, and nothing here depends on
//! another crate of ours.

mod action;
mod clock;
mod flow;
mod observation;
mod report;
mod severity;
mod text;
mod verdict;

pub use action::{Action, UnknownWord};
pub use clock::{Instants, rfc3339};
pub use flow::{Direction, Evidence, FlowId, Protocol};
pub use observation::{
    ClaimSource, Decided, Fact, Flow, LookupRefusal, Observation, ProcessId, Reason, SensorKind, Transport,
};
pub use report::{
    BaaClass, BaaStatus, Counters, Coverage, Destination, Exit, Gap, Hook, Limit, LockState, Operator, PolicyExpired,
    PolicyFile, PolicyPreset, PolicyRef, Process, QueryRecord, Report, SCHEMA, SelfTest, SessionInfo, ToolInfo,
    Violation,
};
pub use severity::Severity;
pub use text::{Untrusted, inert_json};
pub use verdict::{Assurance, Looking, Verdict, judge};
