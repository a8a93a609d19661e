//! Mixed traffic for a long time, several sessions at once, some of whose agents are killed underneath.
//!
//! `cargo xtask soak` runs it for ten minutes; `TRUSTRUN_SOAK` says how many seconds it is (30 in the tests). Nothing
//! disallowed may arrive, every report's counters balance, no session whose agent was killed passes, and nothing stays:
//! no cgroup, no pinned link, no process, no descriptor and no memory that grows.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use harness::{Parts, Running, SOON, gone, left_behind, send, status};
use nix::sys::signal::Signal;
use support::{client, lab_with, python};
use trustrun_lab::{ALLOWED, EVIL, FRESH_RANGE, Lab, wait_until};

/// Seconds of one short session.
const SHORT: u64 = 4;

const POLICY: &str = "version: 1\nname: soak\ndefault: block\nrules:\n  - allow: [\"*.fresh.test:9\", \"api.allowed.test\", \
    \"udp/203.0.113.10:7\"]\n";

/// What happens to a session's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    None,
    EngineKilled,
    GuardKilled,
    EngineStopped,
}

fn command(lab: &Lab, folder: &Path, seconds: u64, kinds: &str) -> Command {
    let policy = folder.join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let mut command = lab.command(harness::TRUSTRUN);
    command.args(["run", "--policy"]).arg(policy).arg("--report").arg(folder.join("report.json"));
    // One database for all, as on a real host.
    command.arg("--db").arg(lab.folder().join("events.db"));
    command.arg("--").args([python(), &client("mixed.py"), &seconds.to_string(), kinds]);
    command.stdin(Stdio::null());
    command
}

/// Everyone of the agent, once the command runs.
fn parts(running: &Running) -> Parts {
    let client = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("mixed.py\0"));
    let of_ours = || harness::children(running.id());
    let runs = |pid: &u32| client(pid) && status(*pid, "Name") != "trustrun";
    assert!(wait_until(SOON, || of_ours().iter().any(runs)), "the command does not start");
    Parts::of(running.id())
}

/// One session to its end, with what must be true of it; its id where there is a report.
fn session(lab: &Lab, fate: Fate, kinds: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::spawn(&mut command(lab, folder.path(), SHORT, kinds), folder.path().join("report.json"));
    let parts = parts(&running);
    match fate {
        Fate::None => {}
        Fate::EngineKilled => send(parts.engine, Signal::SIGKILL),
        Fate::GuardKilled => send(parts.guard, Signal::SIGKILL),
        Fate::EngineStopped => {
            send(parts.engine, Signal::SIGSTOP);
            wait_until(Duration::from_secs(SHORT / 2), || gone(parts.guard));
            send(parts.engine, Signal::SIGCONT);
        }
    }
    let began = Instant::now();
    let ran = running.end_within(3 * SOON);
    eprintln!(
        "{fate:?} {kinds}: ended after {:.1?}, {} {}",
        began.elapsed(),
        ran.report()["verdict"],
        ran.report()["gaps"]
    );
    // What was refused stayed refused and what was allowed worked, whatever became of the agent: the client says so.
    assert_eq!(ran.status.code(), Some(0), "{fate:?} {kinds}: {}\n{}", ran.out(), ran.stderr);
    assert!(gone(parts.engine) && gone(parts.guard), "{fate:?}: a process stays");
    let report = ran.report();
    let counters = &report["counters"];
    let count = |v: &serde_json::Value| v.as_u64().unwrap();
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(count).sum();
    assert_eq!(count(&counters["emitted"]), count(&counters["stored"]) + dropped, "{counters}");
    let killed = matches!(fate, Fate::EngineKilled | Fate::GuardKilled);
    let wanted = match (killed, kinds) {
        (true, _) => "incomplete",
        (false, "allowed") if ran.gaps().is_empty() => "pass",
        (false, "allowed") => "incomplete",
        (false, _) => "fail",
    };
    assert_eq!(report["verdict"], wanted, "{fate:?} {kinds}: {}\n{}", report["gaps"], ran.stderr);
    assert!(dropped == 0 || !ran.gaps().is_empty(), "{counters}");
    Some(ran.session()).filter(|id| !id.is_empty())
}

/// Only what the policy allows has arrived, and no refused lookup.
fn only_allowed_arrived(lab: &Lab) -> usize {
    let arrived = lab.arrived();
    let (base, prefix) = FRESH_RANGE;
    let fresh =
        |ip: IpAddr| matches!(ip, IpAddr::V4(a) if a.to_bits() >> (32 - prefix) == base.to_bits() >> (32 - prefix));
    for a in &arrived {
        let ip = a.local.ip();
        assert!(ip != EVIL && (ip == ALLOWED || fresh(ip)), "{a:?}");
    }
    assert!(lab.dns().queries().iter().all(|q| !q.name.ends_with("evil.test")), "a refused lookup arrived");
    assert_eq!((lab.arrivals_lost(), lab.dns().lost()), (0, 0));
    lab.clear();
    arrived.len()
}

/// Memory in kB and open files of a process.
fn size(pid: u32) -> (u64, usize) {
    let memory = status(pid, "VmRSS").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (memory, fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
}

/// A process over the time; the first third is for warming up.
fn steady(what: &str, sizes: &[(u64, usize)]) {
    let third = sizes.len() / 3;
    assert!(third > 0, "{what} was looked at {} times", sizes.len());
    let (middle, last) = (&sizes[third..2 * third], &sizes[2 * third..]);
    let memory = |part: &[(u64, usize)]| part.iter().map(|s| s.0).max().unwrap_or(0);
    let files = |part: &[(u64, usize)]| part.iter().map(|s| s.1).max().unwrap_or(0);
    let (before, after) = (memory(middle), memory(last));
    eprintln!("{what}: {before} kB, then {after} kB; {} files, then {}", files(middle), files(last));
    // A page cache and an allocator breathe; what is leaked grows with the traffic.
    assert!(after <= before + before / 10 + 4096, "{what} grows: {before} kB, then {after} kB");
    assert!(files(last) <= files(middle) + 4, "{what} keeps files: {} then {}", files(middle), files(last));
}

/// One session for the whole time, whose processes are watched.
fn long(lab: &Lab, seconds: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut running =
        Running::spawn(&mut command(lab, folder.path(), seconds, "all"), folder.path().join("report.json"));
    let parts = parts(&running);
    let (mut guard, mut engine) = (Vec::new(), Vec::new());
    let end = Instant::now() + Duration::from_secs(seconds.saturating_sub(2));
    while Instant::now() < end && running.lives() {
        guard.push(size(parts.guard));
        engine.push(size(parts.engine));
        thread::sleep(Duration::from_millis(250));
    }
    let ran = running.end_within(Duration::from_secs(60) + 3 * SOON);
    assert_eq!(ran.status.code(), Some(0), "{}\n{}", ran.out(), ran.stderr);
    assert_eq!(ran.report()["verdict"], "fail");
    eprintln!("long session: {} {}", ran.out().trim(), ran.report()["counters"]);
    steady("guard", &guard);
    steady("engine", &engine);
    ran.session()
}

#[test]
fn mixed_traffic_leaks_nothing_whatever_becomes_of_the_agents() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let seconds = std::env::var("TRUSTRUN_SOAK").ok().and_then(|s| s.parse().ok()).unwrap_or(30u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    let fates = [
        (Fate::None, "all"),
        (Fate::None, "allowed"),
        (Fate::EngineKilled, "all"),
        (Fate::GuardKilled, "allowed"),
        (Fate::EngineStopped, "all"),
        (Fate::GuardKilled, "all"),
        (Fate::EngineKilled, "allowed"),
    ];
    let (ids, done) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeMap::<Fate, u32>::new()));
    let mut arrived = 0;
    thread::scope(|scope| {
        let all = scope.spawn(|| {
            let id = long(&lab, seconds);
            ids.lock().unwrap().insert(id);
        });
        for worker in 0..2 {
            let (lab, ids, done) = (&lab, &ids, &done);
            scope.spawn(move || {
                for round in worker.. {
                    if Instant::now() + Duration::from_secs(SHORT) > end {
                        break;
                    }
                    let (fate, kinds) = fates[(round * 3 + worker) % fates.len()];
                    let id = session(lab, fate, kinds);
                    ids.lock().unwrap().extend(id);
                    *done.lock().unwrap().entry(fate).or_default() += 1;
                }
            });
        }
        while !all.is_finished() {
            arrived += only_allowed_arrived(&lab);
            thread::sleep(Duration::from_millis(500));
        }
    });
    assert!(lab.settle(SOON));
    arrived += only_allowed_arrived(&lab);
    let done = done.into_inner().unwrap();
    eprintln!("{arrived} arrivals, all allowed; sessions {done:?}");
    assert!(arrived > 0 && done.values().sum::<u32>() > 0);
    // The next session takes away what killed guards have left.
    let folder = tempfile::tempdir().unwrap();
    let last = Running::spawn(&mut command(&lab, folder.path(), 0, "allowed"), folder.path().join("report.json"));
    last.end_within(3 * SOON).exits(0);
    let left: Vec<String> = ids.into_inner().unwrap().iter().flat_map(|id| left_behind(id)).collect();
    assert!(left.is_empty(), "{left:?}");
}
