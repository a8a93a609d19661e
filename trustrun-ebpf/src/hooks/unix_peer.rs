//! Bytes that cross the session's border over a unix socket: raw tracepoint `sk_data_ready`, Linux 6.3
//! (<https://github.com/torvalds/linux/blob/v6.12/net/unix/af_unix.c#L1700>). A connect that a listener takes, and every
//! datagram or piece of a stream, wakes its receiver in the sender's own context, after it succeeded. So a lookup that
//! finds nobody is not told, the name is the receiver's own and not what a program claims, and no time lies between.
//!
//! Sees every receiver of the host, TCP among them, and asks for the family first. What is read without being sent
//! for (a descriptor that waits in a socket that was given from outside) is not seen.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use trustrun_common::{MODE_OFF, hook};

use crate::{
    hooks::process_exec::ours,
    maps::{config, hit},
    unix,
};

const AF_UNIX: u16 = 1;

/// unix_peer
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn unix_peer(ctx: RawTracePointContext) -> i32 {
    let receiver: usize = ctx.arg(0);
    let Some(o) = unix::offsets() else { return 0 };
    // SAFETY: the helper checks every access.
    if unsafe { bpf_probe_read_kernel((receiver + o.family as usize) as *const u16) } != Ok(AF_UNIX) {
        return 0;
    }
    let Some(config) = config() else { return 0 };
    if config.mode == MODE_OFF {
        return 0;
    }
    let sender = ours(config);
    if sender != unix::in_session(receiver, o, config) {
        // Both ways, as the canary goes: so that a session that is not recognised is known.
        hit(config, if sender { hook::UNIX_PEER } else { hook::UNIX_VISIT });
        unix::tell(receiver, o, !sender, 0);
    }
    0
}
