//! execve(2), once the new program is in place: raw tracepoint `sched_process_exec`, Linux 4.17
//! (<https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1793>). Copies the executable's path and the arguments
//! out of the new memory, so that a process that lives 1 ms still has them. The path is what the kernel ran (for a
//! script its interpreter), as the caller named it: the agent makes it absolute. Arguments beyond 4096 bytes are cut
//! and marked. Sees the whole host; only tasks of the session's cgroup are told.

use aya_ebpf::{
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use trustrun_common::{ARGV_MAX, Config, ExecEvent, FLAG_CUT, MODE_OFF, PATH_MAX, counter, hook, kind};

use crate::{
    classify::{self, ARGUMENTS, Read},
    emit::{self, Owner},
    maps::{SESSION, TASKS, config, count, hit},
    scratch::{self, Scratch, launder},
};

/// Whether the current task is in the session's cgroup, or below it. Asked of a map of cgroups, since tracepoints may read
/// the ids of a task's cgroups only from Linux 5.15 on.
#[inline(always)]
pub fn ours(config: &Config) -> bool {
    config.mode != MODE_OFF && SESSION.current_task_under_cgroup(0) == Ok(true)
}

/// process_exec
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let Some(config) = config() else { return 0 };
    if !ours(config) {
        return 0;
    }
    hit(config, hook::EXEC);
    let mut owner = emit::owner();
    // Not classified until it is known what it is.
    if TASKS.insert(&owner.tgid, &owner.class, 0).is_err() {
        count(counter::TASKS_FULL);
    }
    let Some(s) = scratch::take() else { return 0 };
    let began = scratch::token(s);
    let Some(size) = read(&ctx, s, config) else { return 0 };
    if config.classes != 0 {
        let class = classify::process(ctx.arg(0), s, size, config);
        // The arguments may be another's.
        if scratch::token(s) == began {
            owner.class = class;
            let _ = TASKS.insert(&owner.tgid, &class, 0);
        }
    }
    tell(s, size, owner);
    0
}

/// Puts path and arguments into the payload.
#[inline(always)]
fn read(ctx: &RawTracePointContext, s: *mut Scratch, config: &Config) -> Option<Read> {
    const EXEC: usize = size_of::<ExecEvent>();
    let (task, bprm): (usize, usize) = (ctx.arg(0), ctx.arg(2));
    let o = &config.offsets;
    // SAFETY: reads of kernel and user memory through helpers that check every access; writes stay inside
    // `payload`, which is longer than EXEC + PATH_MAX + ARGV_MAX.
    unsafe {
        let base = (&raw mut (*s).payload).cast::<u8>();
        let mut flags = 0;
        let mut exe = 0;
        if let Ok(interp) = bpf_probe_read_kernel((bprm + o.bprm_interp as usize) as *const usize) {
            let n = bpf_probe_read_kernel_str(base.add(EXEC).cast(), PATH_MAX as u32, interp as *const _);
            if n > 0 {
                exe = n as u32 - 1;
            }
        }
        let mut size = 0;
        if let Ok(mm) = bpf_probe_read_kernel((task + o.task_mm as usize) as *const usize)
            && let Ok(start) = bpf_probe_read_kernel((mm + o.mm_arg_start as usize) as *const u64)
            && let Ok(end) = bpf_probe_read_kernel((mm + o.mm_arg_end as usize) as *const u64)
        {
            size = end - start;
            if size > ARGV_MAX as u64 {
                size = ARGV_MAX as u64;
                flags |= FLAG_CUT;
            }
            size = launder(s, size) & (2 * ARGV_MAX as u64 - 1);
            if size > ARGV_MAX as u64 {
                return None;
            }
            if bpf_probe_read_user(base.add(ARGUMENTS).cast(), size as u32, start as *const _) != 0 {
                size = 0;
                flags |= FLAG_CUT;
            }
        }
        Some(Read { exe, arguments: size, flags })
    }
}

#[inline(always)]
fn tell(s: *mut Scratch, read: Read, owner: Owner) {
    // SAFETY: `payload` is longer than what is told.
    unsafe {
        let base = (&raw mut (*s).payload).cast::<u8>();
        let header = emit::header(kind::EXEC, read.flags, owner, 0);
        let wake = emit::wake(&header);
        base.cast::<ExecEvent>().write_unaligned(ExecEvent { header, exe: read.exe, argv: read.arguments as u32 });
        let total = launder(s, read.arguments) & (2 * ARGV_MAX as u64 - 1);
        emit::output(base, ARGUMENTS as u64 + total, wake);
    }
}
