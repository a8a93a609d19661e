//! bind(2), after it worked: Linux 4.17 (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L541>).
//! Remembers UDP sockets that wait at a port, so that loopback to them is known as internal, and who owns a bound
//! socket, so that what it receives or accepts is attributed. That a TCP socket listens is seen by `sock_ops`; ports
//! that the kernel picks for a client are not seen here and are no listeners.

use aya_ebpf::{
    EbpfContext, bindings::BPF_NOEXIST, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock,
    programs::SockContext,
};
use trustrun_common::{Address, ListenKey, MODE_OFF, SocketState, Tuple, counter, hook, kind};

use crate::{
    decide::{NO_RULE, address, mapped},
    emit,
    maps::{LISTENERS, SOCKETS, add, config, count, hit, note_listener},
    sockets,
};

/// post_bind4
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: the context's field.
    let ip = unsafe { (*ctx.sock).src_ip4 };
    bound(&ctx, &if ip == 0 { [0; 16] } else { mapped(ip) }, hook::POST_BIND4);
    1
}

/// post_bind6
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    // SAFETY: the context's fields, each read by itself.
    let ip = unsafe {
        address([
            core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[3]),
        ])
    };
    bound(&ctx, &ip, hook::POST_BIND6);
    1
}

#[inline(always)]
fn bound(ctx: &SockContext, local: &Address, hook: u32) {
    let Some(config) = config() else { return };
    hit(config, hook);
    // SAFETY: the context's fields.
    let (protocol, port) = unsafe { ((*ctx.sock).protocol, (*ctx.sock).src_port) };
    if config.mode == MODE_OFF || (protocol != 17 && protocol != 6) {
        return;
    }
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // A UDP socket whose port the kernel picked gives it up when it is disconnected, and may be bound again.
    // SAFETY: the value is read at once.
    if let Some(before) = unsafe { SOCKETS.get(&cookie) }
        && before.protocol == 17
        && before.local_port != 0
    {
        unlistens(&before.local, before.local_port, 17);
    }
    let owner = emit::classified(config);
    let st = SocketState { local: *local, local_port: port as u16, ..sockets::known(protocol as u8, owner) };
    // Without an entry nothing would forget the listener, and whoever takes its port afterwards would be taken for it.
    if !sockets::keep(cookie, &st) || protocol == 6 {
        return;
    }
    listens(local, port as u16, 17);
    let t = Tuple { local: *local, local_port: port as u16, protocol: 17, rule: NO_RULE, ..emit::tuple(&st) };
    emit::flow(emit::header(kind::LISTENING, 0, owner, cookie), t, 0, 0);
}

/// Keeps a listener. Several sockets may share one place (SO_REUSEPORT), so they are counted.
#[inline(always)]
pub fn listens(local: &Address, port: u16, protocol: u16) {
    note_listener(port);
    let key = ListenKey { address: *local, port, protocol, pad: 0 };
    if let Some(n) = LISTENERS.get_ptr_mut(&key) {
        add(n, 1);
    } else if LISTENERS.insert(&key, &1, BPF_NOEXIST.into()).is_err() {
        // Full, or another processor was faster.
        match LISTENERS.get_ptr_mut(&key) {
            Some(n) => add(n, 1),
            None => count(counter::LISTENERS_FULL),
        }
    }
}

/// Forgets one listener. Where two processors do so at once the place may be forgotten with a listener left: then
/// loopback to it is judged as any destination.
#[inline(always)]
pub fn unlistens(local: &Address, port: u16, protocol: u16) {
    let key = ListenKey { address: *local, port, protocol, pad: 0 };
    let Some(n) = LISTENERS.get_ptr_mut(&key) else { return };
    // SAFETY: a live map value.
    if unsafe { *n } > 1 {
        add(n, u64::MAX);
    } else {
        let _ = LISTENERS.remove(&key);
    }
}
