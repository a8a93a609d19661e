//! Which processor does what, so that rounds are alike: the measured client on the first, servers on the second.

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Those that init may use: our own are restricted by [`stay_on`].
fn ours() -> Result<(CpuSet, Vec<usize>)> {
    let all = sched_getaffinity(Pid::from_raw(1)).context("reading init's processors")?;
    let list = (0..CpuSet::count()).filter(|i| all.is_set(*i) == Ok(true)).collect();
    Ok((all, list))
}

/// How many there are.
pub(crate) fn count() -> usize {
    ours().map_or(1, |(_, list)| list.len())
}

/// Keeps the calling thread, and what it starts, on one processor (modulo how many there are).
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let (_, ours) = ours()?;
    let mut set = CpuSet::new();
    if let Some(i) = ours.get(cpu % ours.len().max(1)) {
        set.set(*i)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("choosing a processor")
}

/// Runs `work` free to go anywhere: what it starts may too. Then back to the processor for servers.
pub(crate) fn anywhere<T>(work: impl FnOnce() -> T) -> Result<T> {
    sched_setaffinity(Pid::from_raw(0), &ours()?.0).context("choosing processors")?;
    let out = work();
    stay_on(1)?;
    Ok(out)
}
