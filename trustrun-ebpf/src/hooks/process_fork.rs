//! fork, vfork and clone: raw tracepoint `sched_process_fork`, Linux 4.17
//! (<https://github.com/torvalds/linux/blob/v6.12/kernel/fork.c#L2820>). A child that never execs still has its
//! parent's executable and arguments. Threads are not told: they share their group's.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use trustrun_common::{TaskEvent, counter, hook, kind};

use crate::{
    emit,
    hooks::process_exec::ours,
    maps::{TASKS, config, count, hit},
};

/// process_fork
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let Some(config) = config() else { return 0 };
    if !ours(config) {
        return 0;
    }
    hit(config, hook::FORK);
    let child: usize = ctx.arg(1);
    let o = &config.offsets;
    // SAFETY: the helper checks the access.
    let (tgid, tid) = unsafe {
        (
            bpf_probe_read_kernel((child + o.task_tgid as usize) as *const u32),
            bpf_probe_read_kernel((child + o.task_pid as usize) as *const u32),
        )
    };
    let (Ok(tgid), Ok(tid)) = (tgid, tid) else { return 0 };
    if tgid == tid {
        // What its parent may, it may.
        let owner = emit::classified(config);
        if TASKS.insert(&tgid, &owner.class, 0).is_err() {
            count(counter::TASKS_FULL);
        }
        let header = emit::header(kind::FORK, 0, owner, 0);
        let wake = emit::wake(&header);
        emit::record(TaskEvent { header, value: tgid as u64 }, wake);
    }
    0
}
