//! Whether the agent of a session still lives.

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// When a process started, in clock ticks since boot (`/proc/PID/stat`, field 22); tells it from a later process
/// with the same number. `None` where there is no /proc or no such process.
#[must_use]
pub fn agent_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    after_name(&stat)?.nth(19)?.parse().ok()
}

/// The fields from the third on. The second is the program's own name in parentheses and may hold anything, also
/// parentheses.
fn after_name(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    stat.rsplit_once(')').map(|(_, after)| after.split_ascii_whitespace())
}

/// Whether it ended and only waits to be reaped, which in a container may be never.
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    matches!(after_name(&stat).and_then(|mut fields| fields.next()), Some("Z" | "X"))
}

/// Whether the agent may still finish its session. Only what is certainly over is called over.
pub(crate) fn lives(pid: u32, start: Option<u64>, boot_id: &str) -> bool {
    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if !here.trim().is_empty() && here.trim() != boot_id.trim() {
        return false;
    }
    let Ok(number) = i32::try_from(pid) else { return false };
    if number <= 0 || kill(Pid::from_raw(number), None) == Err(Errno::ESRCH) || ended(pid) {
        return false;
    }
    match (start, agent_start(pid)) {
        (Some(then), Some(now)) => then == now,
        // Another user's process under hidepid: it exists, and that is all that can be known.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_id() -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()
    }

    #[test]
    fn a_process_lives_only_on_its_boot_with_its_start() {
        let me = std::process::id();
        let start = agent_start(me);
        assert!(start.is_some());
        assert!(lives(me, start, &boot_id()));
        assert!(!lives(me, start, "another boot"));
        assert!(!lives(me, start.map(|s| s + 1), &boot_id()));
        assert!(!lives(u32::MAX, None, &boot_id()));
        assert!(!lives(0, None, &boot_id()));
    }

    #[test]
    fn a_process_that_ended_does_not_live() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while lives(pid, None, &boot_id()) {
            assert!(std::time::Instant::now() < end, "a process that nobody reaped yet does not live");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!lives(pid, None, &boot_id()));
    }
}
