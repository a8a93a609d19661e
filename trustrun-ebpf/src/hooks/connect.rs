//! connect(2), before the kernel looks at the address: Linux 4.17, `__cgroup_bpf_run_filter_sock_addr`
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L577>). The decision for TCP falls here, with an
//! EPERM that every program understands, and is stored on the socket before any address is rewritten. io_uring,
//! MPTCP, TCP fast open and v4-mapped addresses come through here as well.
//!
//! A UDP connect sends nothing (resolver libraries sort addresses with it), so it is only remembered and judged at
//! the first datagram. Raw and SCTP sockets do not come here; `sock_create` and `egress` see them.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_lookup_tcp, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use trustrun_common::{
    ACTION_ALLOW, ACTION_BLOCK, Address, Config, FLAG_ENFORCED, MODE_OFF, SOCKET_CONNECTED, SOCKET_NOBODY,
    SOCKET_RESOLVER, SOCKET_SENDS, STAGE_DONE, STAGE_FIRST, SocketState, Tuple, hook, kind, reason,
};

use crate::{
    decide::{self, Decision, address, mapped},
    emit,
    maps::{SOCKETS, config, enforcing, hit},
    sockets,
};

/// connect4
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let Some(config) = config() else { return 0 };
    hit(config, hook::CONNECT4);
    // SAFETY: the context's field, read as the verifier wants: once, whole.
    let to = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    let (allowed, redirect) = connect(&ctx, to, config, config.dns_tcp_port != 0);
    if allowed && redirect && config.dns_tcp_port != 0 {
        // SAFETY: writable fields of the context.
        unsafe {
            (*ctx.sock_addr).user_ip4 = config.dns_tcp_v4;
            (*ctx.sock_addr).user_port = (config.dns_tcp_port as u16).to_be() as u32;
        }
    }
    allowed as i32
}

/// connect6
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let Some(config) = config() else { return 0 };
    hit(config, hook::CONNECT6);
    let to = destination6(&ctx);
    let (allowed, redirect) = connect(&ctx, to, config, config.dns_tcp6_port != 0);
    if allowed && redirect && config.dns_tcp6_port != 0 {
        // SAFETY: writable fields of the context.
        unsafe {
            core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip6[0], 0);
            core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip6[1], 0);
            core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip6[2], 0);
            core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip6[3], 1u32.to_be());
            (*ctx.sock_addr).user_port = (config.dns_tcp6_port as u16).to_be() as u32;
        }
    }
    allowed as i32
}

/// The address of a connect6 or sendmsg6.
#[inline(always)]
pub fn destination6(ctx: &SockAddrContext) -> Address {
    // SAFETY: the context's fields, each read by itself (LLVM would merge them into reads the verifier refuses).
    unsafe {
        address([
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[3]),
        ])
    }
}

/// IPPROTO of the socket, MPTCP as the TCP that it is on the wire.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: the context's field.
    match unsafe { (*ctx.sock_addr).protocol } {
        262 => 6,
        p => p as u8,
    }
}

/// Whether no TCP socket of this network namespace listens there.
#[inline(always)]
fn nobody(ctx: &SockAddrContext, to: &Address, port: u16) -> bool {
    let w = decide::words(to);
    // SAFETY: the tuple is plain data of the size given, and a socket that was found is released.
    unsafe {
        let mut t: bpf_sock_tuple = core::mem::zeroed();
        let size = if w[2] == 0xffffu32.to_be() {
            let v4 = &mut t.__bindgen_anon_1.ipv4;
            v4.saddr = w[3];
            v4.daddr = w[3];
            v4.dport = port.to_be();
            size_of_val(v4)
        } else {
            let v6 = &mut t.__bindgen_anon_1.ipv6;
            v6.saddr = w;
            v6.daddr = w;
            v6.dport = port.to_be();
            size_of_val(v6)
        };
        // BPF_F_CURRENT_NETNS
        let found = bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut t, size as u32, u64::MAX, 0);
        if found.is_null() {
            return true;
        }
        bpf_sk_release(found.cast());
        false
    }
}

/// Decides, remembers and tells; whether it may go on, and whether it is DNS over TCP that the agent answers. Its
/// messages are not read here, so without the agent's resolver (`answered`) an enforcing session refuses it.
#[inline(always)]
fn connect(ctx: &SockAddrContext, to: Address, config: &Config, answered: bool) -> (bool, bool) {
    if config.mode == MODE_OFF {
        return (true, false);
    }
    let protocol = protocol(ctx);
    // SAFETY: the context's field and the program's own context.
    let (port, cookie) =
        unsafe { (u16::from_be((*ctx.sock_addr).user_port as u16), bpf_get_socket_cookie(ctx.as_ptr())) };
    let resolver = decide::resolver(&to, port);
    let owner = emit::classified(config);
    let d = if resolver {
        let unread = protocol == 6 && !answered && enforcing(config);
        Decision::new(if unread { ACTION_BLOCK } else { ACTION_ALLOW }, reason::RESOLVER)
    } else if decide::internal(&to, protocol, port) {
        Decision::new(ACTION_ALLOW, reason::INTERNAL)
    } else if protocol == 6 && decide::loopback(&to) && nobody(ctx, &to, port) {
        // Waiting for a server of one's own to come up: it gets its ECONNREFUSED. `sock_ops` watches that nobody else
        // answers meanwhile.
        Decision { flags: SOCKET_NOBODY, ..Decision::new(ACTION_ALLOW, reason::INTERNAL) }
    } else {
        decide::destination(&to, owner.class, protocol, port)
    };
    let (sequence, earlier, local, local_port) = match SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        Some(st) => unsafe {
            ((*st).sequence, (*st).flags & (SOCKET_SENDS | SOCKET_RESOLVER), (*st).local, (*st).local_port)
        },
        None => (0, 0, [0; 16], 0),
    };
    let tcp = protocol == 6;
    let st = SocketState {
        peer: to,
        local,
        sequence: if tcp { sequence + 1 } else { sequence },
        rule: d.rule,
        port,
        action: d.action,
        reason: d.reason,
        // Loopback to ourselves, and DNS that the agent answers, name nobody.
        stage: if d.reason == reason::INTERNAL || resolver { STAGE_DONE } else { STAGE_FIRST },
        flags: d.flags | SOCKET_CONNECTED | earlier | if resolver { SOCKET_RESOLVER } else { 0 },
        local_port,
        ..sockets::known(protocol, owner)
    };
    let kept = sockets::keep(cookie, &st);
    if !tcp {
        return (kept || !enforcing(config), false);
    }
    let d = d.or_full(kept, config);
    let t = Tuple { action: d.action, reason: d.reason, rule: d.rule, ..emit::tuple(&st) };
    let refused = d.refused(config);
    let flags = if refused { FLAG_ENFORCED } else { 0 };
    emit::flow(emit::header(kind::OPENED, flags, owner, cookie), t, 0, 0);
    (!refused, resolver)
}
