//! Every packet that reaches a socket of the session, before the program can read it: Linux 4.10,
//! `BPF_CGROUP_RUN_PROG_INET_INGRESS` (<https://github.com/torvalds/linux/blob/v6.12/net/core/filter.c#L141>). Reads
//! DNS answers and binds their addresses, so that the connect that follows finds them; counts bytes; notes who sent to
//! a UDP socket first, so that the reply is known as one. It refuses nothing.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use trustrun_common::{Config, DatagramKey, MODE_OFF, counter, hook};

use crate::{
    decide, dns, emit,
    hooks::egress::datagram_accepted,
    maps::{DATAGRAMS, JUMP_ANSWER, JUMPS_IN, SOCKETS, add, config, count, hit},
    packet::{self, Peek},
    scratch,
};

/// ingress
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 1 };
    hit(config, hook::INGRESS);
    if config.mode == MODE_OFF {
        return 1;
    }
    let Some(p) = packet::peek::<false>(&ctx) else { return 1 };
    if p.protocol == 6 {
        if p.length != 0
            && let Some(st) = SOCKETS.get_ptr_mut(&packet::cookie(&ctx))
        {
            // SAFETY: a live map value.
            unsafe { add(&raw mut (*st).received, p.length as u64) }
        }
    } else if p.protocol == 17 {
        if p.source_port == 53 {
            // SAFETY: the program in `JUMPS_IN` is of this program's type.
            unsafe { JUMPS_IN.tail_call(&ctx, JUMP_ANSWER) };
            count(counter::UNREADABLE);
        }
        datagram(&p, packet::cookie(&ctx), config);
    }
    1
}

/// What may be a DNS answer, a tail call of `ingress`.
#[cgroup_skb(ingress)]
pub fn ingress_answer(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 1 };
    let cookie = packet::cookie(&ctx);
    answer(&ctx, cookie);
    if let Some(p) = packet::peek::<false>(&ctx)
        && !decide::resolver(&p.peer, p.source_port)
    {
        datagram(&p, cookie, config);
    }
    1
}

/// What may be a DNS answer.
#[inline(always)]
fn answer(ctx: &SkBuffContext, cookie: u64) {
    let Some(s) = scratch::take() else { return };
    let began = scratch::token(s);
    let Some(p) = packet::read(ctx, s) else { return };
    if let Some(st) = SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        dns::answer(ctx, s, p, unsafe { &*st }, cookie);
    }
    if scratch::token(s) != began {
        count(counter::CLOBBERED);
    }
}

/// A datagram of a known or a new peer.
#[inline(always)]
fn datagram(p: &Peek, cookie: u64, config: &Config) {
    let key = DatagramKey { cookie, peer: p.peer, port: p.source_port, pad: [0; 3] };
    if let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*known).received, p.length as u64) }
        return;
    }
    // A socket that receives has bound, connected or sent, and has a state since. One without is being closed: a late
    // answer that nobody will read begins no connection.
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value.
    let owner = unsafe { emit::owner_of(&*st) };
    datagram_accepted(&key, owner, config);
    if let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*known).received, p.length as u64) }
    }
}
