//! The end of a process's first thread: raw tracepoint `sched_process_exit`, Linux 4.17
//! (<https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c#L958>). Other threads may live on; the agent keeps
//! what it knows of the process until the session ends.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use trustrun_common::{TaskEvent, hook, kind};

use crate::{
    emit,
    hooks::process_exec::ours,
    maps::{TASKS, config, hit},
};

/// process_exit
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    let Some(config) = config() else { return 0 };
    let owner = emit::owner();
    if owner.tgid == owner.tid {
        // Also one that left the session's cgroup: its number will be somebody else's.
        let _ = TASKS.remove(&owner.tgid);
    }
    if !ours(config) {
        return 0;
    }
    hit(config, hook::EXIT);
    if owner.tgid != owner.tid {
        return 0;
    }
    let task: usize = ctx.arg(0);
    // SAFETY: the helper checks the access.
    let status = unsafe { bpf_probe_read_kernel((task + config.offsets.task_exit_code as usize) as *const u32) };
    let header = emit::header(kind::EXIT, 0, owner, 0);
    let wake = emit::wake(&header);
    emit::record(TaskEvent { header, value: status.unwrap_or(0) as u64 }, wake);
    0
}
