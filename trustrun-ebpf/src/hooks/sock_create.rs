//! socket(2) for AF_INET and AF_INET6: Linux 4.10, `BPF_CGROUP_RUN_PROG_INET_SOCK`
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L392>). Raw, ping, SCTP, DCCP and UDP-Lite
//! sockets carry no decision from connect, so an enforcing session refuses them here (ICMP is let through where a
//! rule speaks of it, and then judged packet by packet). Other families (packet, vsock, xdp, netlink) do not come
//! here; seccomp in the child refuses those.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock, programs::SockContext};
use trustrun_common::{
    ACTION_ALLOW, ACTION_BLOCK, FLAG_ENFORCED, KIND_ICMP, MODE_OFF, SOCKET_UNUSUAL, SocketState, hook, kind, reason,
};

use crate::{
    emit,
    maps::{config, enforcing, hit},
    sockets,
};

/// sock_create
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let Some(config) = config() else { return 0 };
    hit(config, hook::SOCK_CREATE);
    if config.mode == MODE_OFF {
        return 1;
    }
    // SAFETY: the context's fields.
    let (family, sort, protocol) = unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    let stream = sort == 1 && (protocol == 6 || protocol == 262 || protocol == 0);
    let datagram = sort == 2 && (protocol == 17 || protocol == 0);
    if stream || datagram {
        return 1;
    }
    let icmp = (protocol == 1 || protocol == 58) && config.kinds & KIND_ICMP != 0;
    let action = if icmp { ACTION_ALLOW } else { ACTION_BLOCK };
    let refused = action >= ACTION_BLOCK && enforcing(config);
    let owner = emit::classified(config);
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let st =
        SocketState { action, reason: reason::KIND, flags: SOCKET_UNUSUAL, ..sockets::known(protocol as u8, owner) };
    if !refused {
        sockets::keep(cookie, &st);
    }
    let flags = if refused { FLAG_ENFORCED } else { 0 };
    emit::flow(emit::header(kind::SOCKET, flags, owner, cookie), emit::tuple(&st), family as u64, sort as u64);
    !refused as i32
}
