//! How many events a second one core stores: `cargo run --release -p trustrun-store --example store_rate [RATE] [SECONDS]`.
//!
//! Appends RATE events a second (200,000) for SECONDS (10) from one thread as a session would, and reports the
//! processor time of the owner thread, so that the figure holds whatever the disk is.

use std::{
    error::Error,
    fs, thread,
    time::{Duration, Instant},
};

use trustrun_model::{
    Action, Assurance, Decided, Direction, Fact, Flow, FlowId, Instants, Observation, ProcessId, Protocol, Reason,
    SensorKind,
};
use trustrun_store::{EventRow, MAX_BATCH, SessionId, SessionStart, Store};

const TICK: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let rate: u64 = args.next().map_or(Ok(200_000), |a| a.parse())?;
    let seconds: u64 = args.next().map_or(Ok(10), |a| a.parse())?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("events.db");
    let store = Store::open(&path)?.start(session())?;
    let begun = Instant::now();
    let (mut seq, total) = (0, rate * seconds);
    while seq < total {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while seq < due.min(total) {
            let end = (seq + MAX_BATCH as u64).min(due).min(total);
            let rows = (seq + 1..=end).map(|n| EventRow::from_observation(n, &observation(n))).collect();
            // A full channel is counted, and shown below.
            let _ = store.append(rows);
            seq = end;
        }
        thread::sleep(TICK);
    }
    let (stats, error) = store.sync(Duration::from_secs(10));
    let cpu = thread_seconds("store")?;
    let bytes = fs::metadata(&path)?.len();
    println!("{stats:?} {}", error.map_or(String::new(), |e| e.to_string()));
    println!(
        "{:.0} events/s offered, {:.0} events/s per core, {:.1} % of a core in the store, {:.1} bytes an event, {:?}",
        stats.offered as f64 / begun.elapsed().as_secs_f64(),
        stats.stored as f64 / cpu,
        100.0 * cpu / begun.elapsed().as_secs_f64(),
        bytes as f64 / stats.stored as f64,
        begun.elapsed()
    );
    Ok(())
}

/// A third each of opened, established and closed.
fn observation(n: u64) -> Observation {
    let flow = Flow {
        id: FlowId { cookie: n / 3, sequence: 1 },
        protocol: Protocol::Tcp,
        direction: Direction::Out,
        local: ([10, 0, 0, 1], 30_000 + (n % 30_000) as u16).into(),
        peer: ([203, 0, 113, (n % 250) as u8], 443).into(),
    };
    let fact = match n % 3 {
        0 => Fact::Opened { flow, decided: Decided { action: Action::Allow, reason: Reason::Rule, enforced: false } },
        1 => Fact::Established { flow },
        _ => Fact::Closed { flow, sent: n * 7, received: n * 31 },
    };
    let at = Instants { boot_ns: 1_000_000_000_000 + n * 5_000, wall_ns: 1_795_211_734_000_000_000 + n as i64 * 5_000 };
    Observation {
        at,
        sensor: SensorKind::Ebpf,
        process: ProcessId { tgid: 4242, tid: 4242, uid: 1000, class: 0 },
        fact,
    }
}

fn session() -> SessionStart {
    SessionStart {
        id: SessionId::new(1_795_211_734_000_000_000).into(),
        started_ns: 1_795_211_734_000_000_000,
        command: vec!["store_rate".into()],
        user: "nobody".into(),
        policy: None,
        sensor: "ebpf".into(),
        assurance: Assurance::Observed,
        host: "localhost".into(),
        boot_id: String::new(),
        agent_pid: std::process::id(),
        labels: Default::default(),
    }
}

/// User and system time of this process's thread of that name, from `/proc/self/task/*/schedstat` (nanoseconds).
fn thread_seconds(name: &str) -> Result<f64, Box<dyn Error>> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() == name {
            let stat = fs::read_to_string(task.join("schedstat"))?;
            let ns: f64 = stat.split_whitespace().next().ok_or("no schedstat")?.parse()?;
            return Ok(ns / 1e9);
        }
    }
    Err("no such thread".into())
}
