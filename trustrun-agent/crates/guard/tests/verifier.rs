//! The kernel accepts every program, within a budget.

mod skip;

use trustrun_guard::verified_instructions;

/// Half of what the verifier allows at most, on any kernel: other projects saw a small change go from 236 k to over a
/// million on a newer one, and then silently not attach.
const BUDGET: u32 = 500_000;

#[test]
fn every_program_loads_within_the_verifier_budget() {
    if !nix::unistd::geteuid().is_root() {
        skip::skip("loading kernel programs needs root");
        return;
    }
    let counts = verified_instructions().unwrap();
    for (name, count) in &counts {
        eprintln!("{name}: {count:?} verified instructions");
        assert!(count.is_none_or(|c| c < BUDGET), "{name} needs {count:?} verified instructions");
    }
    // Those that are jumped to, and the one that not every kernel has.
    let unix = counts.iter().filter(|(name, _)| *name == "unix_peer").count();
    assert_eq!(counts.len(), trustrun_common::HOOK_NAMES.len() + 4 + unix);
}
