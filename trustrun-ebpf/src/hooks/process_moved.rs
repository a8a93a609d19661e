//! A process moved to another cgroup: raw tracepoint `cgroup_attach_task`, Linux 4.17
//! (<https://github.com/torvalds/linux/blob/v6.12/kernel/cgroup/cgroup.c#L2863>). Root inside a session can write
//! another `cgroup.procs`, and the hooks of this cgroup would no longer see what it connects to. When enforcing, the
//! mover is killed before it returns to user space if it belongs to the session; every move of a process of ours is
//! told, and the agent ends what got out. Moves inside the session's own subtree, where the hooks hold, are told by
//! their path and are none. Moves in v1 hierarchies mean nothing to us.

use aya_ebpf::{
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel_str, bpf_send_signal},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use trustrun_common::{Config, ExecEvent, FLAG_ENFORCED, MODE_OFF, PATH_MAX, hook, kind};

use crate::{
    emit::{self, Owner},
    hooks::process_exec::ours,
    maps::{TASKS, config, enforcing, hit},
    scratch::{self, Scratch},
};

const SIGKILL: u32 = 9;

/// process_moved
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn process_moved(ctx: RawTracePointContext) -> i32 {
    let Some(config) = config() else { return 0 };
    if config.mode == MODE_OFF {
        return 0;
    }
    let (cgroup, task): (usize, usize) = (ctx.arg(0), ctx.arg(2));
    let o = &config.offsets;
    // SAFETY: the helpers check every access.
    let moved = unsafe {
        let hierarchy = bpf_probe_read_kernel((cgroup + o.cgroup_root as usize) as *const usize)
            .and_then(|root| bpf_probe_read_kernel((root + o.root_hierarchy as usize) as *const i32));
        let tgid = bpf_probe_read_kernel((task + o.task_tgid as usize) as *const u32);
        match (hierarchy, tgid) {
            (Ok(0), Ok(tgid)) => tgid,
            _ => return 0,
        }
    };
    // The canary enters the session's cgroup, which shows that the hook is there.
    hit(config, hook::MOVED);
    // SAFETY: only presence counts.
    if unsafe { TASKS.get(&moved) }.is_none() {
        return 0;
    }
    let Some(s) = scratch::take() else { return 0 };
    tell(&ctx, s, moved, config);
    0
}

#[inline(always)]
fn tell(ctx: &RawTracePointContext, s: *mut Scratch, moved: u32, config: &Config) {
    const EXEC: usize = size_of::<ExecEvent>();
    let path: usize = ctx.arg(1);
    // SAFETY: writes stay inside `payload`, which is longer than EXEC + PATH_MAX.
    unsafe {
        let base = (&raw mut (*s).payload).cast::<u8>();
        let n = bpf_probe_read_kernel_str(base.add(EXEC).cast(), PATH_MAX as u32, path as *const _);
        let exe = if n > 0 { n as u32 - 1 } else { 0 };
        let mut flags = 0;
        // The mover is of the session and is no longer in it: it moved itself.
        if enforcing(config) && emit::owner().tgid == moved && !ours(config) {
            bpf_send_signal(SIGKILL);
            flags = FLAG_ENFORCED;
        }
        let header = emit::header(kind::MOVED, flags, Owner { tgid: moved, tid: moved, uid: 0, class: 0 }, 0);
        let wake = emit::wake(&header);
        base.cast::<ExecEvent>().write_unaligned(ExecEvent { header, exe, argv: 0 });
        emit::output(base, (EXEC + PATH_MAX) as u64, wake);
    }
}
