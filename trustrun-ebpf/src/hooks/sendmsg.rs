//! sendto(2), sendmsg(2) and sendmmsg(2) with an address on a UDP socket: Linux 4.18
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c#L1125>). Decides each (socket, peer) once, at its
//! first datagram, with EPERM for the program. Datagrams on a connected socket have no address here; `egress` judges
//! those. The payload cannot be seen here.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use trustrun_common::{
    ACTION_ALLOW, Address, DatagramKey, MODE_OFF, SOCKET_RESOLVER, SOCKET_SENDS, SocketState, hook, reason,
};

use crate::{
    decide::{self, Decision, mapped},
    emit::{self, Owner},
    hooks::connect::{destination6, protocol},
    hooks::egress::{datagram_opened, refuses},
    maps::{DATAGRAMS, SOCKETS, config, enforcing, hit},
    sockets,
};

/// sendmsg4
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context's field.
    let to = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    send(&ctx, to, hook::SENDMSG4)
}

/// sendmsg6
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let to = destination6(&ctx);
    send(&ctx, to, hook::SENDMSG6)
}

#[inline(always)]
fn send(ctx: &SockAddrContext, to: Address, hook: u32) -> i32 {
    let Some(config) = config() else { return 0 };
    hit(config, hook);
    if config.mode == MODE_OFF {
        return 1;
    }
    let protocol = protocol(ctx);
    // SAFETY: the context's field and the program's own context.
    let (port, cookie) =
        unsafe { (u16::from_be((*ctx.sock_addr).user_port as u16), bpf_get_socket_cookie(ctx.as_ptr())) };
    let owner = emit::classified(config);
    let resolver = decide::resolver(&to, port);
    if !remember(cookie, &to, port, protocol, owner, resolver) {
        return !enforcing(config) as i32;
    }
    if resolver {
        return 1; // each query is judged by the name it asks for, at egress
    }
    let key = DatagramKey { cookie, peer: to, port, pad: [0; 3] };
    if let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        return unsafe { !refuses((*known).action, config) } as i32;
    }
    let d = if decide::internal(&to, protocol, port) {
        Decision::new(ACTION_ALLOW, reason::INTERNAL)
    } else {
        decide::destination(&to, owner.class, protocol, port)
    };
    datagram_opened(&key, protocol, owner, &d, config) as i32
}

/// Notes on the socket that it sends by address, and where to; false if there was no room.
#[inline(always)]
fn remember(cookie: u64, to: &Address, port: u16, protocol: u8, owner: Owner, resolver: bool) -> bool {
    let bits = SOCKET_SENDS | if resolver { SOCKET_RESOLVER } else { 0 };
    if let Some(st) = SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value. A connected socket keeps its peer.
        unsafe {
            (*st).flags |= bits;
            if (*st).flags & trustrun_common::SOCKET_CONNECTED == 0 {
                (*st).peer = *to;
                (*st).port = port;
            }
            (*st).tgid = owner.tgid;
            (*st).tid = owner.tid;
            (*st).uid = owner.uid;
            (*st).class = owner.class;
        }
        return true;
    }
    let st = SocketState { peer: *to, port, flags: bits, ..sockets::known(protocol, owner) };
    sockets::keep(cookie, &st)
}
