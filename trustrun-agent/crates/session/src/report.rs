//! The report: what the engine folded, what the guard counted, and the verdict.

mod given;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use trustrun_common::{HOOK_NAMES, counter};
use trustrun_guard::{CGROUP_GONE, Changed, PLACES, locks::BORDER};
use trustrun_model::{
    Assurance, Counters, Coverage, Exit, Hook, LockState, Looking, Report, SCHEMA, SelfTest, SensorKind, SessionInfo,
    judge, rfc3339,
};
use trustrun_observe::Clock;

pub use self::given::{Facts, Final, LostHook};
use self::limits::limits;
use crate::{Engine, Judge, about_host, host};

/// The report of a session whose engine cannot tell: that the command ran, how it ended, and that nothing is known
/// about what it did. It affirms no coverage, and is `incomplete` also without a policy (see [`judge`]).
#[must_use]
pub fn unwatched(facts: &Facts, status: i32, gap: &'static str, why: &str) -> Report {
    let at = Clock::new().now();
    let last = Final { watched: false, status: Some(status), ..Final::without_kernel(0, at) };
    let mut engine = Engine::new(Judge {
        cgroup: String::new(),
        policy: None,
        enforce: facts.enforce,
        search: Vec::new(),
        resolvers: Vec::new(),
        hosts: Vec::new(),
        dns_grace: std::time::Duration::ZERO,
        doors: crate::Doors::default(),
    });
    engine.ledger.gap(gap, 1, || why.into());
    let mut report = engine.finish(facts, &last);
    report.session.assurance = Assurance::Observed;
    report.coverage = Coverage::default();
    report
}

impl Engine {
    /// Ends the session: closes what is open, names every gap, and judges.
    #[must_use]
    pub fn finish(mut self, facts: &Facts, last: &Final) -> Report {
        self.close_all(last.at);
        self.count_gaps(facts, last);
        for tgid in &last.leftovers {
            let who = self.processes.name(*tgid);
            self.ledger.gap("still-running", 1, || {
                format!("{who} outlived the command; it stays guarded (`--wait-all` waits for it)")
            });
        }
        self.count_lost_hooks(facts.enforce, &last.lost_hooks);
        self.count_others(facts, &last.changed);
        self.count_unseen(facts, last);
        // A sensor that polls has no such process.
        if last.status.is_none() && facts.sensor == SensorKind::Ebpf {
            self.ledger.gap("foreground-lost", 1, || "the process that waited for the command was lost".into());
        }
        for what in &facts.from_outside {
            self.ledger.gap("socket-from-outside", 1, || what.clone());
        }
        if let Some(why) = &facts.no_pass {
            self.ledger.gap("best-effort", 1, || why.clone());
        }
        let counters = counters(last);
        let breaches = self.ledger.breaches;
        let rows = self.ledger.into_rows();
        let gaps = rows.gaps.iter().map(|g| g.count).sum();
        let mut coverage = match facts.sensor {
            SensorKind::Ebpf => coverage(facts, last),
            _ => Coverage::default(),
        };
        self.refusals.tell(&mut coverage.locks);
        let contained = !coverage.locks.is_empty() && coverage.locks.iter().all(|l| l.held);
        let assurance = if contained { Assurance::Contained } else { facts.assurance() };
        let looking = Looking { policy: facts.policy.is_some(), to_the_end: last.watched, assurance };
        let verdict = judge(looking, breaches, gaps);
        Report {
            schema: SCHEMA.into(),
            tool: host::tool(),
            session: session(facts, last, assurance),
            verdict,
            limits: limits(facts, &coverage.locks, last),
            coverage,
            destinations: rows.destinations,
            queries: rows.queries,
            violations: rows.violations,
            gaps: rows.gaps,
            counters,
        }
    }

    /// Hooks that another process of root took off or changed.
    fn count_lost_hooks(&mut self, enforced: bool, lost: &[LostHook]) {
        let (gone, lost): (Vec<&LostHook>, Vec<&LostHook>) = lost.iter().partition(|l| l.hook == CGROUP_GONE);
        if !gone.is_empty() {
            self.ledger.gap("cgroup-removed", 1, || {
                "somebody stopped the session's scope or removed its cgroup, before its hooks were looked at a last time".into()
            });
        }
        if lost.is_empty() {
            return;
        }
        let names: Vec<&str> = lost.iter().map(|l| hook_name(l.hook)).collect();
        let ended = if enforced { "; what still ran was ended, since nothing may run unguarded" } else { "" };
        self.ledger.gap("hook-lost", lost.len() as u64, || {
            format!("another process of root detached or replaced the kernel's hooks: {}{ended}", names.join(", "))
        });
    }

    /// What this kernel lets a command do that nothing here could have seen: then nobody can say that it did not.
    fn count_unseen(&mut self, facts: &Facts, last: &Final) {
        if facts.sensor != SensorKind::Ebpf || !last.watched || facts.policy.is_none() {
            return;
        }
        if !last.unix && !last.border {
            self.ledger.gap("unix-sockets-unseen", 1, || {
                "whether the command reached a service outside over a unix socket (one without a file, or made after the \
                 start) cannot be told by this kernel: Linux 6.3 can, and 6.1 with BPF among its security modules (`lsm=`)"
                    .into()
            });
        }
        if facts.enforce && facts.locks(last.held).iter().any(|l| l.name == "other-processes" && !l.held) {
            self.ledger.gap("other-processes-unseen", 1, || {
                "whether the command wrote to the memory of another process of its user, and had it act for it, cannot be \
                 told by this kernel: Linux 5.19 with Landlock prevents it"
                    .into()
            });
        }
    }

    /// What others may have done for the target, where that was told them or could not have been seen.
    fn count_others(&mut self, facts: &Facts, changed: &[Changed]) {
        for c in changed {
            let path = PLACES.get(c.place as usize).map_or("a file of the system", |p| p.path);
            self.ledger.gap("others-may-act", 1, || {
                if c.unknown {
                    format!("whether {path} was changed while the command ran cannot be told; others act on what is there")
                } else {
                    format!("{path} was changed while the command ran, by it or by somebody else; others act on what is there")
                }
            });
        }
        // Under a policy that refuses, root is held by locks. Without one there is no verdict to spoil.
        if let (Some(exe), true, false) = (&self.as_root, facts.policy.is_some(), facts.enforce) {
            let detail = format!(
                "{} ran as root and nothing held it: that it had others act for it, or left the session as a new \
                 process can, could not have been seen; run it as an ordinary user (--run-as), or under a policy that refuses",
                trustrun_model::Untrusted::new(exe)
            );
            self.ledger.gap("root-target", 1, || detail);
        }
    }

    /// What the kernel and the stages counted as lost.
    fn count_gaps(&mut self, facts: &Facts, last: &Final) {
        let c = |i: u32| last.counters.get(i as usize).copied().unwrap_or(0);
        let emitted = c(counter::EMITTED);
        // Nobody counts in the kernel for a sensor that polls.
        let uncounted = if facts.sensor == SensorKind::Ebpf { last.received.saturating_sub(emitted) } else { 0 };
        let told: [(&'static str, u64, &str); 14] = [
            ("events-dropped", emitted.saturating_sub(last.received), "events that the ring buffer had no room for"),
            ("events-uncounted", uncounted, "events beyond what the kernel counted"),
            ("events-undecoded", last.undecoded, "events that could not be decoded"),
            ("events-not-stored", last.dropped.values().sum(), "events that did not reach the database"),
            (
                "names-not-bound",
                c(counter::BINDINGS_FULL),
                "answered addresses that the kernel had no room to bind (see `--table BINDINGS=`)",
            ),
            (
                "sockets-not-kept",
                c(counter::SOCKETS_FULL),
                "uses of sockets that the kernel had no room to remember, refused where the policy refuses anything; \
                 `--table SOCKETS=262144` makes room",
            ),
            (
                "datagrams-not-kept",
                c(counter::DATAGRAMS_FULL),
                "UDP peers that the kernel had no room to remember, refused where the policy refuses anything; \
                 `--table DATAGRAMS=524288` makes room",
            ),
            (
                "listeners-not-kept",
                c(counter::LISTENERS_FULL),
                "listeners that the kernel had no room to remember: connections to them were judged like any others; \
                 `--table LISTENERS=65536` makes room",
            ),
            ("hello-not-gathered", c(counter::GATHER_FULL), "first payloads that the kernel had no room to gather"),
            ("packets-unreadable", c(counter::UNREADABLE), "packets whose headers could not be read"),
            ("processes-not-kept", c(counter::TASKS_FULL), "processes that the kernel had no room to remember"),
            (
                "source-route",
                c(counter::SOURCE_ROUTED),
                "packets with a source route, which lead to others before they reach whom they were judged by",
            ),
            (
                "counters-unread",
                c(counter::UNREAD),
                "the kernel's counters could not be read, so nobody knows what was lost",
            ),
            ("packets-clobbered", c(counter::CLOBBERED), "packets whose reading was interrupted on the same CPU"),
        ];
        // Each connection that was refused for want of room is one of these.
        let counted = c(counter::SOCKETS_FULL) + c(counter::DATAGRAMS_FULL) + c(counter::TASKS_FULL);
        if counted == 0 && self.full > 0 {
            self.ledger
                .gap("tables-full", self.full, || "connections that the kernel had no room for, uncounted".into());
        }
        for (kind, count, detail) in told {
            if count > 0 {
                self.ledger.gap(kind, count, || detail.into());
            }
        }
    }
}

/// What a hook is called.
fn hook_name(hook: u32) -> &'static str {
    HOOK_NAMES.get(hook as usize).copied().unwrap_or("unknown")
}

/// `emitted = stored + sum(dropped)`, exactly: what the ring had no room for is what did not come out of it. The agent's own
/// resolver emits beside it.
fn counters(last: &Final) -> Counters {
    let emitted = last.counters.get(counter::EMITTED as usize).copied().unwrap_or(0).max(last.received);
    let mut dropped = last.dropped.clone();
    let ring = emitted - last.received;
    let emitted = emitted + last.own;
    for (stage, n) in [("ring", ring), ("decode", last.undecoded)] {
        if n > 0 {
            dropped.insert(stage.into(), n);
        }
    }
    Counters { emitted, stored: last.stored, dropped }
}

fn session(facts: &Facts, last: &Final, assurance: Assurance) -> SessionInfo {
    let (host, boot_id, kernel) = about_host();
    let status = last.status;
    let signal = status.map(|s| s & 0x7f).filter(|s| *s != 0);
    let code = status.filter(|_| signal.is_none()).map(|s| (s >> 8) & 0xff);
    SessionInfo {
        id: facts.id.clone(),
        labels: BTreeMap::new(),
        command: facts.command.clone(),
        exe_sha256: host::sha256(&facts.executable),
        user: facts.user.clone(),
        operator: facts.operator.clone(),
        host,
        boot_id,
        kernel,
        sensor: facts.sensor.as_str().into(),
        assurance,
        policy: facts.policy.clone(),
        started_at: rfc3339(facts.started_ns),
        ended_at: rfc3339(last.at.wall_ns),
        exit: Exit { code, signal },
    }
}

/// The hook that not every kernel has, and those that few have on.
const UNIX_HOOK: [&str; 1] = ["unix_peer"];
const BORDER_HOOKS: [&str; 2] = ["unix_connect", "unix_send"];

/// The guard starts no child unless every hook was attached and saw the canary.
fn coverage(facts: &Facts, last: &Final) -> Coverage {
    let (attached_at, detached_at) = (rfc3339(last.attached_ns), rfc3339(last.at.wall_ns));
    let hook = |(i, name): (u32, &&str)| {
        let lost = last.lost_hooks.iter().find(|l| l.hook == i);
        let detached_at = lost.map_or_else(|| detached_at.clone(), |l| rfc3339(l.noticed_ns));
        Hook { name: (*name).into(), attached_at: attached_at.clone(), detached_at }
    };
    let optional = UNIX_HOOK.iter().filter(|_| last.unix).chain(BORDER_HOOKS.iter().filter(|_| last.border));
    Coverage {
        hooks: (0..).zip(HOOK_NAMES.iter().chain(optional)).map(hook).collect(),
        self_test: SelfTest::Passed,
        resolvers: facts.resolvers.clone(),
        locks: facts.locks(last.held).into_iter().chain(last.border.then(border)).collect(),
    }
}

/// The lock that the guard holds from outside, where it holds.
fn border() -> LockState {
    LockState { name: BORDER.name.into(), closes: BORDER.closes.into(), held: true, ..LockState::default() }
}
