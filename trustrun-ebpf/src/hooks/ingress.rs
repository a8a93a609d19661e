//! Every packet that reaches a socket of the session, before the program can read it: Linux 4.10,
//! `BPF_CGROUP_RUN_PROG_INET_INGRESS` (<https://github.com/torvalds/linux/blob/v6.12/net/core/filter.c#L141>). Reads
//! DNS answers and binds their addresses, so that the connect that follows finds them; counts bytes; notes who sent to
//! a UDP socket first, so that the reply is known as one. By the `listen` rules
//! it refuses who connects to the target, or sends to it first, before the program knows of them; else nothing.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_tuple,
    helpers::generated::{
        bpf_sk_ancestor_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_load_bytes,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use trustrun_common::{
    ACTION_ALLOW, Config, DIRECTION_IN, DatagramKey, FLAG_ENFORCED, MODE_OFF, Tuple, counter, hook, kind, reason,
};

use crate::{
    decide::{self, Decision},
    dns, emit,
    hooks::egress::{datagram_accepted, refuses},
    maps::{DATAGRAMS, JUMP_ANSWER, JUMPS_IN, SOCKETS, add, config, count, enforcing, hit},
    packet::{self, ACK, Peek, SYN},
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
    if config.listen != 0 && !may_come(&ctx, &p, config) {
        return 0;
    }
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
        return datagram(&ctx, &p, packet::cookie(&ctx), config) as i32;
    }
    1
}

/// Whether a packet may come in under `listen` rules: a connection's first, or one of a connection that was refused when
/// it was there. Extension headers of IPv6 hide what they are before, and are refused when enforcing.
#[inline(always)]
fn may_come(ctx: &SkBuffContext, p: &Peek, config: &Config) -> bool {
    if matches!(p.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        count(counter::UNREADABLE);
        return !enforcing(config);
    }
    if p.protocol != 6 {
        return true;
    }
    let cookie = packet::cookie(ctx);
    if p.flags & (SYN | ACK) != SYN {
        let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return true };
        // SAFETY: a live map value.
        return unsafe { (*st).direction != DIRECTION_IN || !refuses((*st).action, config) };
    }
    if own(ctx, p, config) {
        return true;
    }
    let d = decide::peer(&p.peer, 6, p.destination_port, config);
    if !d.refused(config) {
        return true; // told when it is there
    }
    let owner = match SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        Some(st) => unsafe { emit::owner_of(&*st) },
        None => emit::NOBODY,
    };
    let t = Tuple {
        local: emit::NOWHERE,
        peer: p.peer,
        sequence: 0,
        rule: d.rule,
        local_port: p.destination_port,
        peer_port: p.source_port,
        protocol: 6,
        direction: DIRECTION_IN,
        action: d.action,
        reason: d.reason,
    };
    emit::flow(emit::header(kind::OPENED, FLAG_ENFORCED, owner, cookie), t, 0, 0);
    false
}

/// Levels of cgroups in which the session's is looked for.
const DEEPEST: i32 = 32;

/// Whether a packet comes from a socket of the session itself, over loopback.
#[inline(always)]
fn own(ctx: &SkBuffContext, p: &Peek, config: &Config) -> bool {
    if !decide::loopback(&p.peer) {
        return false;
    }
    let w = decide::words(&p.peer);
    // SAFETY: the tuple is plain data of the size given, and a socket that was found is released.
    unsafe {
        let mut t: bpf_sock_tuple = core::mem::zeroed();
        let skb: *mut c_void = ctx.as_ptr();
        let size = if w[2] == 0xffffu32.to_be() {
            let v4 = &mut t.__bindgen_anon_1.ipv4;
            if bpf_skb_load_bytes(skb, 16, (&raw mut v4.saddr).cast(), 4) != 0 {
                return false;
            }
            v4.daddr = w[3];
            v4.sport = p.destination_port.to_be();
            v4.dport = p.source_port.to_be();
            size_of_val(v4)
        } else {
            let v6 = &mut t.__bindgen_anon_1.ipv6;
            if bpf_skb_load_bytes(skb, 24, (&raw mut v6.saddr).cast(), 16) != 0 {
                return false;
            }
            v6.daddr = w;
            v6.sport = p.destination_port.to_be();
            v6.dport = p.source_port.to_be();
            size_of_val(v6)
        };
        // BPF_F_CURRENT_NETNS
        let found = if p.protocol == 6 {
            bpf_sk_lookup_tcp(skb, &raw mut t, size as u32, u64::MAX, 0)
        } else {
            bpf_sk_lookup_udp(skb, &raw mut t, size as u32, u64::MAX, 0)
        };
        if found.is_null() {
            return false;
        }
        // In a cgroup namespace nobody knows how deep the session's cgroup lies.
        let mut ours = false;
        for level in 0..DEEPEST {
            let cgroup = bpf_sk_ancestor_cgroup_id(found.cast(), level);
            if cgroup == 0 {
                break;
            }
            ours |= cgroup == config.cgroup;
        }
        bpf_sk_release(found.cast());
        ours
    }
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
        return datagram(&ctx, &p, cookie, config) as i32;
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

/// A datagram of a known or a new peer; whether it may come in.
#[inline(always)]
fn datagram(ctx: &SkBuffContext, p: &Peek, cookie: u64, config: &Config) -> bool {
    let key = DatagramKey { cookie, peer: p.peer, port: p.source_port, pad: [0; 3] };
    if let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*known).received, p.length as u64);
            return (*known).direction != DIRECTION_IN || !refuses((*known).action, config);
        }
    }
    // A socket that receives has bound, connected or sent, and has a state since. One without is being closed: a late
    // answer that nobody will read begins no connection.
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return true };
    // SAFETY: a live map value.
    let owner = unsafe { emit::owner_of(&*st) };
    let mut d = Decision::new(ACTION_ALLOW, reason::ACCEPTED);
    if config.listen != 0 {
        d = if own(ctx, p, config) {
            Decision::new(ACTION_ALLOW, reason::INTERNAL)
        } else {
            decide::peer(&p.peer, 17, p.destination_port, config)
        };
    }
    let allowed = datagram_accepted(&key, owner, &d, config);
    if let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*known).received, p.length as u64) }
    }
    allowed || !refuses(d.action, config)
}
