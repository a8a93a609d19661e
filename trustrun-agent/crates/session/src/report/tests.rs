//! The report's own tests: what is lost is never a pass.

use trustrun_common::hook;
use trustrun_model::{Instants, Operator, PolicyRef, Verdict};

use super::*;

fn facts() -> Facts {
    Facts {
        id: "s".into(),
        command: Vec::new(),
        executable: String::new(),
        user: String::new(),
        operator: Operator::default(),
        policy: Some(PolicyRef::default()),
        sensor: SensorKind::Ebpf,
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
    let of_kernel = |unix: bool, lost: Option<u32>, lost_hooks: Vec<LostHook>| {
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
            changed: Vec::new(),
            held: trustrun_guard::locks::Held::default(),
            unix,
            border: false,
            packets: false,
            attached_ns: 0,
            no_scope: None,
            at: Instants::default(),
        };
        Engine::new(judge).finish(&facts, &last)
    };
    let report = |lost, lost_hooks| of_kernel(true, lost, lost_hooks);
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
        counter::SOURCE_ROUTED,
        counter::UNREAD,
    ] {
        assert_eq!(verdict(Some(lost)), Verdict::Incomplete, "counter {lost}");
    }
    let old = of_kernel(false, None, Vec::new());
    assert_eq!((old.verdict, old.gaps[0].kind.as_str()), (Verdict::Incomplete, "unix-sockets-unseen"));
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
