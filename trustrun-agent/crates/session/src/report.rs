//! The report: what the engine folded, what the guard counted, and the verdict.

use std::collections::BTreeMap;

use trustrun_common::{HOOK_NAMES, counter};
use trustrun_guard::{CGROUP_GONE, locks::Held};
use trustrun_model::{
    Assurance, Counters, Coverage, Exit, Hook, Instants, Limit, LockState, Looking, Operator, PolicyRef, Report,
    SCHEMA, SelfTest, SensorKind, SessionInfo, judge, rfc3339,
};
use trustrun_observe::Clock;

use crate::{Engine, Judge, about_host, host};

/// What is known of a session when it starts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its id.
    pub id: String,
    /// The command, redacted.
    pub command: Vec<String>,
    /// The command's executable, to hash; empty if it was not found.
    pub executable: String,
    /// The user that the target runs as.
    pub user: String,
    /// Who ran the tool.
    pub operator: Operator,
    /// The policy.
    pub policy: Option<PolicyRef>,
    /// Whether the kernel refuses.
    pub enforce: bool,
    /// The command's locks as far as this host can hold them; none where nothing is refused.
    pub locks: Vec<LockState>,
    /// What leads around the session by the operator's own choice: standard descriptors, sockets that the policy lets in.
    pub doors: Vec<Limit>,
    /// What the command was given whose traffic cannot be seen.
    pub from_outside: Vec<String>,
    /// A mode that can never pass, and why (`--best-effort`).
    pub no_pass: Option<String>,
    /// Resolvers whose answers are believed.
    pub resolvers: Vec<String>,
    /// Nanoseconds since the epoch.
    pub started_ns: i64,
}

impl Facts {
    /// What kind of looking it is, before it is known which locks the command took upon itself.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        if self.enforce { Assurance::Enforced } else { Assurance::Observed }
    }

    /// The locks that the command was under: those that this host can hold and that it told of itself.
    fn locks(&self, held: Held) -> Vec<LockState> {
        let locks = self.locks.iter().enumerate().map(|(place, lock)| {
            let held = lock.held && held.has(place);
            let reason = lock.reason.clone().or_else(|| (!held).then(|| "the command did not come under it".into()));
            LockState { held, reason: reason.filter(|_| !held), ..lock.clone() }
        });
        locks.collect()
    }
}

/// A hook that was lost while the target ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostHook {
    /// Its place in [`HOOK_NAMES`].
    pub hook: u32,
    /// When that was noticed, nanoseconds since the epoch.
    pub noticed_ns: i64,
}

/// What is known when it ends.
#[derive(Clone, Debug)]
pub struct Final {
    /// Whether it was watched until its end, so that a report on it can be made at all.
    pub watched: bool,
    /// The first child's wait status; `None` if the foreground process was lost.
    pub status: Option<i32>,
    /// The kernel's counters.
    pub counters: [u64; counter::COUNT as usize],
    /// Records that came out of the ring.
    pub received: u64,
    /// Events of the agent's own resolver, beside those of the ring.
    pub own: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Rows that reached the store.
    pub stored: u64,
    /// Rows that did not, by stage.
    pub dropped: BTreeMap<String, u64>,
    /// Processes that outlived the first child and its grace.
    pub leftovers: Vec<u32>,
    /// Hooks that somebody else took off or changed.
    pub lost_hooks: Vec<LostHook>,
    /// The locks that the command told that it is under.
    pub held: Held,
    /// Whether what crosses the session's border over unix sockets was seen.
    pub unix: bool,
    /// When the hooks were attached, nanoseconds since the epoch.
    pub attached_ns: i64,
    /// Why systemd made no scope for the session, where it should have.
    pub no_scope: Option<String>,
    /// Now.
    pub at: Instants,
}

/// The report of a session whose engine cannot tell: that the command ran, how it ended, and that nothing is known
/// about what it did. It affirms no coverage, and is `incomplete` also without a policy (see [`judge`]).
#[must_use]
pub fn unwatched(facts: &Facts, status: i32, gap: &'static str, why: &str) -> Report {
    let at = Clock::new().now();
    let last = Final {
        watched: false,
        status: Some(status),
        counters: [0; counter::COUNT as usize],
        received: 0,
        own: 0,
        undecoded: 0,
        stored: 0,
        dropped: BTreeMap::new(),
        leftovers: Vec::new(),
        lost_hooks: Vec::new(),
        held: Held::default(),
        unix: false,
        attached_ns: at.wall_ns,
        no_scope: None,
        at,
    };
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
        self.count_gaps(last);
        for tgid in &last.leftovers {
            let who = self.processes.name(*tgid);
            self.ledger.gap("still-running", 1, || {
                format!("{who} outlived the command; it stays guarded (`--wait-all` waits for it)")
            });
        }
        self.count_lost_hooks(facts.enforce, &last.lost_hooks);
        if last.status.is_none() {
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
        let mut coverage = coverage(facts, last);
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

    /// What the kernel and the stages counted as lost.
    fn count_gaps(&mut self, last: &Final) {
        let c = |i: u32| last.counters.get(i as usize).copied().unwrap_or(0);
        let emitted = c(counter::EMITTED);
        let told: [(&'static str, u64, &str); 12] = [
            ("events-dropped", emitted.saturating_sub(last.received), "events that the ring buffer had no room for"),
            ("events-uncounted", last.received.saturating_sub(emitted), "events beyond what the kernel counted"),
            ("events-undecoded", last.undecoded, "events that could not be decoded"),
            ("events-not-stored", last.dropped.values().sum(), "events that did not reach the database"),
            ("names-not-bound", c(counter::BINDINGS_FULL), "answered addresses that the kernel had no room to bind"),
            ("sockets-not-kept", c(counter::SOCKETS_FULL), "sockets that the kernel had no room to remember"),
            ("datagrams-not-kept", c(counter::DATAGRAMS_FULL), "UDP peers that the kernel had no room to remember"),
            ("hello-not-gathered", c(counter::GATHER_FULL), "first payloads that the kernel had no room to gather"),
            ("packets-unreadable", c(counter::UNREADABLE), "packets whose headers could not be read"),
            ("processes-not-kept", c(counter::TASKS_FULL), "processes that the kernel had no room to remember"),
            (
                "counters-unread",
                c(counter::UNREAD),
                "the kernel's counters could not be read, so nobody knows what was lost",
            ),
            ("packets-clobbered", c(counter::CLOBBERED), "packets whose reading was interrupted on the same CPU"),
        ];
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
        sensor: SensorKind::Ebpf.as_str().into(),
        assurance,
        policy: facts.policy.clone(),
        started_at: rfc3339(facts.started_ns),
        ended_at: rfc3339(last.at.wall_ns),
        exit: Exit { code, signal },
    }
}

/// The hook that not every kernel has.
const UNIX_HOOK: [&str; 1] = ["unix_peer"];

/// The guard starts no child unless every hook was attached and saw the canary.
fn coverage(facts: &Facts, last: &Final) -> Coverage {
    let (attached_at, detached_at) = (rfc3339(last.attached_ns), rfc3339(last.at.wall_ns));
    let hook = |(i, name): (u32, &&str)| {
        let lost = last.lost_hooks.iter().find(|l| l.hook == i);
        let detached_at = lost.map_or_else(|| detached_at.clone(), |l| rfc3339(l.noticed_ns));
        Hook { name: (*name).into(), attached_at: attached_at.clone(), detached_at }
    };
    Coverage {
        hooks: (0..).zip(HOOK_NAMES.iter().chain(UNIX_HOOK.iter().filter(|_| last.unix))).map(hook).collect(),
        self_test: SelfTest::Passed,
        resolvers: facts.resolvers.clone(),
        locks: facts.locks(last.held),
    }
}

/// Ways out and blind spots of this sensor, whether or not they were used.
fn limits(facts: &Facts, locks: &[LockState], last: &Final) -> Vec<Limit> {
    let limit = |kind: &str, detail: &str| Limit { kind: kind.into(), detail: detail.into() };
    let held = |name: &str| locks.iter().any(|l| l.name == name && l.held);
    let mut out = Vec::new();
    let hidden = ["private-run", "unix-sockets", "abstract-sockets", "other-processes"].into_iter().all(held);
    match (last.unix, hidden) {
        (true, _) => out.push(limit(
            "local-services",
            "what a process outside does on the command's behalf is that process's traffic; a command that reaches one \
             over a unix socket is told (unix-socket-outside), one that does so through files is not",
        )),
        (false, true) => out.push(limit(
            "later-sockets",
            "a process outside that helps the command can make a unix socket in a folder that both see, after the \
             start, and carry bytes for it; this kernel cannot tell (Linux 6.3 can)",
        )),
        (false, false) => out.push(limit(
            "local-services",
            "what a local service does on the command's behalf (over a unix socket: container engine, D-Bus, name \
             service) is that service's traffic, not the command's; this kernel cannot tell who is reached (6.3 can)",
        )),
    }
    out.push(limit(
        "helpers-outside",
        "a process outside that means to help the command can carry bytes for it through files, named pipes or shared \
         memory, which nothing here sees",
    ));
    out.push(limit(
        "inside-tls",
        "what is asked for inside TLS is not seen: a server that answers for several names (domain fronting, encrypted \
         hellos) can be asked for another than the one that was allowed",
    ));
    if facts.user == "root" {
        out.push(limit(
            "root-target",
            "the command ran as root, who can have others act for it (cron, raw devices, other services); run it as an \
             ordinary user: --run-as",
        ));
    }
    if let Some(why) = &last.no_scope {
        out.push(limit(
            "outside-slice",
            &format!(
                "limits of the caller's slice did not hold for the command, since systemd made no scope for it: {why}"
            ),
        ));
    }
    if !facts.enforce {
        out.push(limit(
            "packet-sockets",
            "with CAP_NET_RAW a command can send frames (AF_PACKET, AF_XDP, AF_VSOCK) that the cgroup hooks do not see; \
             an enforcing policy refuses those sockets",
        ));
    }
    out.extend(facts.doors.iter().cloned());
    out
}

#[cfg(test)]
mod tests {
    use trustrun_common::hook;
    use trustrun_model::Verdict;

    use super::*;

    fn facts() -> Facts {
        Facts {
            id: "s".into(),
            command: Vec::new(),
            executable: String::new(),
            user: String::new(),
            operator: Operator::default(),
            policy: Some(PolicyRef::default()),
            enforce: true,
            locks: Vec::new(),
            doors: Vec::new(),
            from_outside: Vec::new(),
            no_pass: None,
            resolvers: Vec::new(),
            started_ns: 0,
        }
    }

    #[test]
    fn a_session_whose_engine_is_lost_is_incomplete_with_and_without_a_policy() {
        for policy in [None, Some(PolicyRef::default())] {
            let facts = Facts { policy, enforce: false, ..facts() };
            let report = unwatched(&facts, 0, "agent-lost", "it was ended");
            assert_eq!((report.verdict, report.gaps[0].kind.as_str()), (Verdict::Incomplete, "agent-lost"));
        }
    }

    #[test]
    fn whatever_the_kernel_or_the_guard_counted_as_lost_is_no_pass() {
        let facts = facts();
        let report = |lost: Option<u32>, lost_hooks: Vec<LostHook>| {
            let judge = crate::Judge {
                cgroup: String::new(),
                policy: None,
                enforce: true,
                search: Vec::new(),
                resolvers: Vec::new(),
                hosts: Vec::new(),
                dns_grace: std::time::Duration::ZERO,
                doors: crate::Doors::default(),
            };
            let mut counters = [0; counter::COUNT as usize];
            lost.into_iter().for_each(|i| counters[i as usize] = 1);
            let last = Final {
                watched: true,
                status: Some(0),
                counters,
                received: 0,
                own: 0,
                undecoded: 0,
                stored: 0,
                dropped: BTreeMap::new(),
                leftovers: Vec::new(),
                lost_hooks,
                held: Held::default(),
                unix: false,
                attached_ns: 0,
                no_scope: None,
                at: Instants::default(),
            };
            Engine::new(judge).finish(&facts, &last)
        };
        let verdict = |lost| report(lost, Vec::new()).verdict;
        assert_eq!(verdict(None), Verdict::Pass);
        for lost in [
            counter::EMITTED,
            counter::BINDINGS_FULL,
            counter::SOCKETS_FULL,
            counter::DATAGRAMS_FULL,
            counter::GATHER_FULL,
            counter::UNREADABLE,
            counter::CLOBBERED,
            counter::TASKS_FULL,
            counter::UNREAD,
        ] {
            assert_eq!(verdict(Some(lost)), Verdict::Incomplete, "counter {lost}");
        }
        let of = |hook, noticed_ns| LostHook { hook, noticed_ns };
        let r = report(None, vec![of(hook::EGRESS, 1_000_000_000), of(hook::CONNECT4, 2_000_000_000)]);
        assert_eq!((r.verdict, r.gaps.len(), r.gaps[0].count), (Verdict::Incomplete, 1, 2));
        assert!(r.gaps[0].detail.contains("egress, connect4"), "{}", r.gaps[0].detail);
        let r = report(None, vec![of(CGROUP_GONE, 1)]);
        assert_eq!((r.verdict, r.gaps[0].kind.as_str()), (Verdict::Incomplete, "cgroup-removed"));
        let r = report(None, vec![of(hook::EGRESS, 1_000_000_000), of(hook::CONNECT4, 2_000_000_000)]);
        let until: Vec<&str> = r.coverage.hooks.iter().map(|h| h.detached_at.as_str()).collect();
        assert!(until[hook::EGRESS as usize].contains(":01") && until[hook::CONNECT4 as usize].contains(":02"));
    }
}
