//! What an old kernel says in every report, so that a test of something else can look past it.

use serde_json::Value;

/// Gaps of every session under a policy on a kernel that cannot tell (`docs/kernel.md`); `bypass` holds that they are there.
const OF_THE_KERNEL: [&str; 2] = ["unix-sockets-unseen", "other-processes-unseen"];

/// Leaves those gaps out, and judges without them. A report of a kernel that tells is left as it is.
pub(crate) fn look_past(mut report: Value) -> Value {
    let Some(gaps) = report["gaps"].as_array_mut() else { return report };
    let before = gaps.len();
    gaps.retain(|gap| !OF_THE_KERNEL.iter().any(|kind| gap["kind"] == *kind));
    let only = gaps.is_empty() && before > 0;
    if only && report["verdict"] == "incomplete" {
        report["verdict"] = "pass".into();
    }
    report
}
