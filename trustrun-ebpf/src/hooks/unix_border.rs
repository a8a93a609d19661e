//! The session's border for unix sockets, before any byte: BPF LSM, `security_unix_stream_connect` and
//! `security_unix_may_send` (<https://github.com/torvalds/linux/blob/v6.12/net/unix/af_unix.c#L1632>), where the
//! kernel's list of security modules has `bpf` in it. From Linux 6.1 on, for the way a cgroup's ancestors are found.
//!
//! A process outside that means to help the command needs a socket that both see, made at any time, with or without a
//! file. Locks that are taken on at the start cannot know it; here its end is asked for the cgroup that it was made
//! in. Going out is EPERM, as from every other lock; who comes in finds nobody there (ECONNREFUSED), since it may be
//! an honest program that only looks. What the policy names (`unix_sockets`) is let in, and may answer.
//!
//! Cannot see bytes on sockets that are connected already: standard descriptors, and what is passed over an allowed
//! socket. `unix_peer` tells of those.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::lsm, programs::LsmContext};
use trustrun_common::{FLAG_ENFORCED, MODE_OFF, hook};

use crate::{
    hooks::process_exec::ours,
    maps::{config, enforcing, hit},
    unix,
};

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

/// connect(2) of a stream, or of a sequence of packets.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_connect(ctx: LsmContext) -> i32 {
    judge(ctx.arg(0), ctx.arg(1), hook::UNIX_CONNECT)
}

/// A datagram, and connect(2) of a socket for such.
#[lsm(hook = "unix_may_send")]
pub fn unix_send(ctx: LsmContext) -> i32 {
    let Some(o) = unix::offsets() else { return 0 };
    let (own, other): (usize, usize) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: the helper checks every access.
    let sock = |socket: usize| unsafe { bpf_probe_read_kernel((socket + o.sock as usize) as *const usize) };
    match (sock(own), sock(other)) {
        (Ok(own), Ok(other)) => judge(own, other, hook::UNIX_SEND),
        _ => 0,
    }
}

#[inline(always)]
fn judge(own: usize, other: usize, which: u32) -> i32 {
    let Some(o) = unix::offsets() else { return 0 };
    let Some(config) = config() else { return 0 };
    if config.mode == MODE_OFF {
        return 0;
    }
    let going = ours(config);
    if going == unix::in_session(other, o, config) {
        return 0;
    }
    // A datagram socket that was given over the border goes on; `unix_peer` tells of it.
    if which == hook::UNIX_SEND && going != unix::in_session(own, o, config) {
        return 0;
    }
    if unix::let_in(if going { other } else { own }, o) {
        return 0;
    }
    hit(config, which);
    if !enforcing(config) {
        return 0;
    }
    unix::tell(other, o, !going, FLAG_ENFORCED);
    if going { -EPERM } else { -ECONNREFUSED }
}
