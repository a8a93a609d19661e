//! TCP's own callbacks: Linux 4.16 for state changes
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp.c#L2866>). Sees connections come to be, be accepted and
//! end (with their bytes, also after the descriptor was closed), and sockets that listen. It runs partly in softirq,
//! so it takes the owner from the socket's state. It refuses nothing.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::sock_ops, programs::SockOpsContext};
use trustrun_common::{
    ACTION_ALLOW, Address, Config, DIRECTION_IN, FLAG_ENFORCED, MODE_OFF, SOCKET_NOBODY, SocketState, Tuple, hook,
    kind, reason,
};

use crate::{
    decide::{self, Decision, NO_RULE, address, mapped},
    emit,
    hooks::post_bind::{listens, unlistens},
    maps::{GATHER, SOCKETS, config, hit},
    sockets,
};

// enum bpf_sock_ops operations, include/uapi/linux/bpf.h
const TCP_CONNECT: u32 = 3;
const ACTIVE_ESTABLISHED: u32 = 4;
const PASSIVE_ESTABLISHED: u32 = 5;
const STATE: u32 = 10;
const TCP_LISTEN: u32 = 11;
/// BPF_SOCK_OPS_STATE_CB_FLAG
const WANT_STATE: i32 = 4;
/// TCP_CLOSE
const CLOSE: u32 = 7;
/// TCP_LISTEN
const LISTEN: u32 = 10;

/// sock_ops
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    // Each connect asks five other things of it (timeouts, windows), and tells of states that nobody wants to know.
    let op = ctx.op();
    let wanted = matches!(op, TCP_CONNECT | ACTIVE_ESTABLISHED | PASSIVE_ESTABLISHED | TCP_LISTEN);
    if !wanted && (op != STATE || ctx.arg(1) != CLOSE) {
        return 1;
    }
    let Some(config) = config() else { return 1 };
    hit(config, hook::SOCKOPS);
    if config.mode == MODE_OFF {
        return 1;
    }
    if op == STATE {
        closed(&ctx);
        return 1;
    }
    if op != ACTIVE_ESTABLISHED {
        let _ = ctx.set_cb_flags(WANT_STATE);
    }
    match op {
        ACTIVE_ESTABLISHED => established(&ctx, config),
        PASSIVE_ESTABLISHED => accepted(&ctx, config),
        TCP_LISTEN => listening(&ctx),
        _ => {}
    }
    1
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The local end. A dual-stack socket's v4 addresses are v4-mapped.
#[inline(always)]
fn local(ctx: &SockOpsContext) -> Address {
    if ctx.family() == 2 {
        return mapped(ctx.local_ip4());
    }
    // SAFETY: the context's fields, each read by itself.
    unsafe {
        address([
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[3]),
        ])
    }
}

#[inline(always)]
fn peer(ctx: &SockOpsContext) -> Address {
    if ctx.family() == 2 {
        return mapped(ctx.remote_ip4());
    }
    // SAFETY: the context's fields, each read by itself.
    unsafe {
        address([
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[3]),
        ])
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, config: &Config) {
    let cookie = cookie(ctx);
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value.
    unsafe {
        (*st).local_port = ctx.local_port() as u16;
        let mut t = Tuple { local: local(ctx), ..emit::tuple(&*st) };
        emit::flow(emit::header(kind::ESTABLISHED, 0, emit::owner_of(&*st), cookie), t, 0, 0);
        if (*st).flags & SOCKET_NOBODY != 0 && !decide::internal(&(*st).peer, 6, (*st).port) {
            // Somebody outside began to listen between the connect and its arrival: judged as any destination.
            let d = decide::destination(&(*st).peer, (*st).class, 6, (*st).port);
            (*st).action = d.action;
            (*st).reason = d.reason;
            (*st).rule = d.rule;
            t.action = d.action;
            t.reason = d.reason;
            t.rule = d.rule;
            let flags = if d.refused(config) { FLAG_ENFORCED } else { 0 };
            emit::flow(emit::header(kind::JUDGED, flags, emit::owner_of(&*st), cookie), t, 0, 0);
        }
    }
}

#[inline(always)]
fn accepted(ctx: &SockOpsContext, config: &Config) {
    let cookie = cookie(ctx);
    let peer = peer(ctx);
    let mut d = Decision::new(ACTION_ALLOW, reason::ACCEPTED);
    // What got past `ingress` was let through there: over loopback only the session itself, or who may.
    if config.listen != 0 && !decide::loopback(&peer) {
        d = decide::peer(&peer, 6, ctx.local_port() as u16, config);
    }
    let st = SocketState {
        peer,
        sequence: 1,
        port: u32::from_be(ctx.remote_port()) as u16,
        direction: DIRECTION_IN,
        rule: d.rule,
        action: d.action,
        reason: d.reason,
        local_port: ctx.local_port() as u16,
        ..sockets::known(6, emit::NOBODY)
    };
    sockets::keep(cookie, &st);
    let t = Tuple { local: local(ctx), ..emit::tuple(&st) };
    let flags = if d.refused(config) { FLAG_ENFORCED } else { 0 };
    emit::flow(emit::header(kind::OPENED, flags, emit::NOBODY, cookie), t, 0, 0);
}

/// The key of a listener: any address is all zeroes for both families.
#[inline(always)]
fn listen_address(ctx: &SockOpsContext) -> Address {
    if ctx.family() == 2 && ctx.local_ip4() == 0 { [0; 16] } else { local(ctx) }
}

#[inline(always)]
fn listening(ctx: &SockOpsContext) {
    let cookie = cookie(ctx);
    let local = listen_address(ctx);
    let port = ctx.local_port() as u16;
    listens(&local, port, 6);
    // Its owner was seen at bind(2); a socket that listens without is rare, and known by nobody.
    let owner = match SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        Some(st) => unsafe { emit::owner_of(&*st) },
        None => emit::NOBODY,
    };
    let t = Tuple {
        local,
        peer: [0; 16],
        sequence: 0,
        rule: NO_RULE,
        local_port: port,
        peer_port: 0,
        protocol: 6,
        direction: DIRECTION_IN,
        action: ACTION_ALLOW,
        reason: reason::ACCEPTED,
    };
    emit::flow(emit::header(kind::LISTENING, 0, owner, cookie), t, 0, 0);
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let cookie = cookie(ctx);
    if ctx.arg(0) == LISTEN {
        unlistens(&listen_address(ctx), ctx.local_port() as u16, 6);
        let _ = SOCKETS.remove(&cookie);
        return;
    }
    // SAFETY: a live map value, copied before it is removed.
    unsafe {
        let Some(st) = SOCKETS.get(&cookie) else { return };
        let st = *st;
        if st.sequence == 0 {
            return; // bound, never connected
        }
        let t = Tuple { local: local(ctx), ..emit::tuple(&st) };
        emit::flow(emit::header(kind::CLOSED, 0, emit::owner_of(&st), cookie), t, st.sent, st.received);
        if st.looked != st.base {
            let _ = GATHER.remove(&cookie); // the message that was being gathered
        }
    }
    let _ = SOCKETS.remove(&cookie);
}
