//! The last close(2) of a socket: Linux 5.9
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L417>). Ends UDP connections and forgets sockets
//! that never connected. A TCP connection may outlive its descriptor; `sockops` sees its end.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock, programs::SockContext};
use trustrun_common::{DatagramKey, MODE_OFF, Tuple, hook, kind};

use crate::{
    emit,
    hooks::post_bind::unlistens,
    maps::{DATAGRAMS, GATHER, SOCKETS, config, hit},
};

/// TCP_CLOSE
const CLOSE: u32 = 7;

/// sock_release
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    let Some(config) = config() else { return 1 };
    hit(config, hook::SOCK_RELEASE);
    if config.mode == MODE_OFF {
        return 1;
    }
    // SAFETY: the program's own context, and a live map value that is copied.
    let (cookie, state) = unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), (*ctx.sock).state) };
    // SAFETY: as above.
    let Some(st) = (unsafe { SOCKETS.get(&cookie) }) else { return 1 };
    if st.protocol == 6 {
        if state == CLOSE {
            let _ = SOCKETS.remove(&cookie);
            let _ = GATHER.remove(&cookie);
        }
        return 1;
    }
    if st.protocol == 17 {
        if st.local_port != 0 {
            unlistens(&st.local, st.local_port, 17);
        }
        // The last peer's bytes; those of other peers the agent reads from the map.
        let key = DatagramKey { cookie, peer: st.peer, port: st.port, pad: [0; 3] };
        // SAFETY: the value is read at once.
        let last = unsafe { DATAGRAMS.get(&key) };
        let (sent, received, sequence, direction) = match last {
            Some(d) => (d.sent, d.received, d.sequence, d.direction),
            None => (0, 0, 0, 0),
        };
        if st.sequence != 0 {
            let t = Tuple { sequence, direction, ..emit::tuple(st) };
            emit::flow(emit::header(kind::CLOSED, 0, emit::owner_of(st), cookie), t, sent, received);
        }
        if st.sequence <= 1 {
            let _ = DATAGRAMS.remove(&key);
        }
    }
    let _ = SOCKETS.remove(&cookie);
    1
}
