//! What the store's tests share: a session, events, a report.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy does not take helpers for tests")]

use std::time::{Duration, Instant};

use trustrun_model::{
    Action, Assurance, Counters, Coverage, Decided, Direction, Exit, Fact, Flow, FlowId, Instants, Observation,
    Operator, ProcessId, Protocol, Reason, Report, SCHEMA, SensorKind, SessionInfo, ToolInfo, Verdict,
};
use trustrun_store::{EventRow, SessionStart, Stats};

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

pub(crate) fn start(id: &str) -> SessionStart {
    SessionStart {
        id: id.into(),
        started_ns: 1_795_211_734_000_000_000,
        command: vec!["curl".into(), "https://example.org/".into()],
        user: "analyst".into(),
        policy: Some(trustrun_model::PolicyRef { name: "cohort".into(), sha256: "ab".into(), ..Default::default() }),
        sensor: "ebpf".into(),
        assurance: Assurance::Enforced,
        host: "lab".into(),
        boot_id: boot_id(),
        agent_pid: std::process::id(),
        labels: [("ticket".to_owned(), "42".to_owned())].into(),
    }
}

pub(crate) fn flow(n: u64) -> Flow {
    Flow {
        id: FlowId { cookie: u64::MAX - n, sequence: 3 },
        protocol: Protocol::Udp,
        direction: Direction::In,
        local: "[2001:db8::1]:5353".parse().unwrap(),
        peer: "203.0.113.5:443".parse().unwrap(),
    }
}

pub(crate) fn opened(n: u64) -> EventRow {
    let decided = Decided { action: Action::Block, reason: Reason::FakeResolver, enforced: true };
    EventRow::from_observation(n, &observation(n, Fact::Opened { flow: flow(n), decided }))
}

pub(crate) fn observation(n: u64, fact: Fact) -> Observation {
    let at = Instants { boot_ns: n.wrapping_mul(1_000), wall_ns: 1_795_211_734_000_000_000 };
    Observation { at, sensor: SensorKind::Ebpf, process: ProcessId { tgid: 7, tid: 8, uid: u32::MAX, class: 0 }, fact }
}

pub(crate) fn report(start: &SessionStart, verdict: Verdict, stats: &Stats) -> Report {
    Report {
        schema: SCHEMA.into(),
        tool: ToolInfo::default(),
        session: SessionInfo {
            id: start.id.clone(),
            labels: start.labels.clone(),
            command: start.command.clone(),
            exe_sha256: String::new(),
            user: start.user.clone(),
            operator: Operator::default(),
            host: start.host.clone(),
            boot_id: start.boot_id.clone(),
            kernel: String::new(),
            sensor: start.sensor.clone(),
            assurance: start.assurance,
            policy: start.policy.clone(),
            started_at: String::new(),
            ended_at: String::new(),
            exit: Exit::default(),
        },
        verdict,
        coverage: Coverage::default(),
        destinations: vec![],
        queries: vec![],
        violations: vec![],
        gaps: vec![],
        limits: vec![],
        counters: Counters { emitted: stats.offered, stored: stats.stored, dropped: stats.dropped() },
    }
}

/// Polls until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every row is accounted for.
pub(crate) fn assert_exact(stats: &Stats) {
    assert_eq!(stats.waiting, 0, "{stats:?}");
    assert_eq!(stats.offered, stats.stored + stats.dropped().values().sum::<u64>(), "{stats:?}");
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
