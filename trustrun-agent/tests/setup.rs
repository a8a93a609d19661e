//! A session that cannot be set up leaves nothing behind, wherever it fails.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::fs;

use harness::{BLOCK, Case, Ran, have};

/// Runs with so many open files at most. The right to lift the limit is taken away, as in a container.
fn with_files(case: &mut Case, most: u32) -> Ran {
    case.shell =
        Some(format!("ulimit -n {most} && exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource \\"));
    case.run(&["true"])
}

/// Pinned links without a cgroup: a session makes its cgroup before and removes it after them.
fn orphans() -> Vec<String> {
    let pinned = fs::read_dir("/sys/fs/bpf/trustrun").into_iter().flatten().flatten();
    let lives = |pins: &std::path::Path| fs::read_link(pins.join("cgroup")).is_ok_and(|folder| folder.exists());
    pinned.map(|e| e.path()).filter(|pins| !lives(pins)).map(|pins| pins.display().to_string()).collect()
}

#[test]
fn a_set_up_that_fails_after_pinning_unpins() {
    if !have(&["setpriv"]) {
        return;
    }
    let Some(case) = Case::new() else { return };
    let mut case = case.policy(BLOCK);
    // The fewest that are enough; each failure below it fails at another step.
    let (mut few, mut enough) = (10, 200);
    with_files(&mut case, enough).exits(0).verdict("pass");
    while enough - few > 1 {
        let middle = u32::midpoint(few, enough);
        if with_files(&mut case, middle).status.success() {
            enough = middle;
        } else {
            few = middle;
        }
        assert_eq!(orphans(), [] as [&str; 0], "after {middle}");
    }
    let mut failed = 0;
    for most in few.saturating_sub(8)..=few {
        let ran = with_files(&mut case, most);
        // Where a hook that not every kernel has is what found no room, the session goes on without it, and says so.
        match ran.status.code() {
            Some(0) => assert!(ran.stderr.contains("INCOMPLETE"), "after {most}: {}", ran.stderr),
            _ => drop(ran.exits(125)),
        }
        failed += u32::from(!ran.status.success());
        assert_eq!(orphans(), [] as [&str; 0], "after {most}: {}", ran.stderr);
    }
    assert!(failed > 0, "none of {few} and fewer files was too few");
}
