//! Every packet that a socket of the session sends: Linux 4.10, `BPF_CGROUP_RUN_PROG_INET_EGRESS`
//! (<https://github.com/torvalds/linux/blob/v6.12/net/ipv4/ip_output.c#L320>), behind netfilter, so that addresses may
//! have been rewritten by NAT. The second lock: it follows the decision stored on the socket, and judges by address
//! where there is none (raw, ping, connected UDP's first datagram). It reads DNS queries and first payloads, and
//! counts bytes. A refused datagram is EPERM for the program; a refused TCP segment is silent, so the agent then
//! destroys the socket.
//!
//! AF_PACKET, AF_XDP and what the kernel itself sends (ICMP errors, TIME_WAIT) do not come here.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use trustrun_common::{
    ACTION_BLOCK, Config, DIRECTION_IN, DIRECTION_OUT, DatagramKey, DatagramState, FLAG_ENFORCED, FLAG_OUTGOING,
    MODE_OFF, SOCKET_CONNECTED, SOCKET_RESOLVER, SOCKET_SENDS, STAGE_DONE, SocketState, Tuple, counter, hook, kind,
    reason,
};

use crate::{
    decide::{self, Decision},
    dns,
    emit::{self, Owner},
    first,
    maps::{DATAGRAMS, JUMP_FIRST, JUMP_OTHER, JUMP_QUERY, JUMPS, SOCKETS, add, config, count, enforcing, hit},
    packet::{self, ACK, Packet, Peek, RST, SYN},
    scratch::{self, Scratch},
};

/// egress
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 0 };
    hit(config, hook::EGRESS);
    if config.mode == MODE_OFF {
        return 1;
    }
    let fallback = !enforcing(config) as i32;
    let Some(p) = packet::peek::<true>(&ctx) else {
        count(counter::UNREADABLE);
        return fallback;
    };
    let cookie = packet::cookie(&ctx);
    let next = match p.protocol {
        6 => tcp(&p, cookie, config),
        17 => udp(&p, cookie, config),
        _ => Next::Other,
    };
    match next {
        Next::Pass => 1,
        Next::Drop => 0,
        Next::First => jump(&ctx, JUMP_FIRST, fallback),
        Next::Query => jump(&ctx, JUMP_QUERY, fallback),
        Next::Other => jump(&ctx, JUMP_OTHER, fallback),
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Pass,
    Drop,
    /// Go on in `egress_first`.
    First,
    /// Go on in `egress_query`.
    Query,
    /// Go on in `egress_other`.
    Other,
}

impl Next {
    #[inline(always)]
    fn pass(allowed: bool) -> Self {
        if allowed { Self::Pass } else { Self::Drop }
    }
}

/// Goes on in another program; `fallback` where that is not there, which the loader excludes.
#[inline(always)]
fn jump(ctx: &SkBuffContext, index: u32, fallback: i32) -> i32 {
    // SAFETY: the programs in `JUMPS` are of this program's type.
    unsafe { JUMPS.tail_call(ctx, index) };
    count(counter::UNREADABLE);
    fallback
}

/// The first payload of a TCP connection, a tail call of `egress`.
#[cgroup_skb(egress)]
pub fn egress_first(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 0 };
    let fallback = !enforcing(config) as i32;
    let Some(s) = scratch::take() else { return fallback };
    let began = scratch::token(s);
    let Some(p) = packet::read(&ctx, s) else { return fallback };
    let cookie = packet::cookie(&ctx);
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return fallback };
    let allowed = first::outgoing(&ctx, s, p, st, cookie, config);
    if scratch::token(s) != began {
        count(counter::CLOBBERED);
        return fallback;
    }
    allowed as i32
}

/// A DNS query, a tail call of `egress`.
#[cgroup_skb(egress)]
pub fn egress_query(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 0 };
    let fallback = !enforcing(config) as i32;
    let Some(s) = scratch::take() else { return fallback };
    let began = scratch::token(s);
    let Some(p) = packet::read(&ctx, s) else { return fallback };
    let cookie = packet::cookie(&ctx);
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return fallback };
    // SAFETY: a live map value.
    let allowed = dns::query(&ctx, s, p, unsafe { &*st }, cookie, config);
    if scratch::token(s) != began {
        count(counter::CLOBBERED);
        return fallback;
    }
    allowed as i32
}

/// Whether an action is a refusal that is carried out.
#[inline(always)]
pub fn refuses(action: u8, config: &Config) -> bool {
    action >= ACTION_BLOCK && enforcing(config)
}

#[inline(always)]
fn tcp(p: &Peek, cookie: u64, config: &Config) -> Next {
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else {
        // A handshake's answer, or the reset of a socket that is closing: no payload, and no TCP socket sends these
        // unless it was allowed to before. (Raw sockets have a state.)
        let quiet = p.length == 0 && (p.flags & (SYN | ACK) == SYN | ACK || p.flags & RST != 0);
        return Next::pass(quiet || !enforcing(config));
    };
    // SAFETY: a live map value.
    unsafe {
        if refuses((*st).action, config) {
            // The reset that ends a connection whose first payload was refused: else its other end waits for ever.
            return Next::pass(p.length == 0 && p.flags & RST != 0);
        }
        if p.length != 0 {
            add(&raw mut (*st).sent, p.length as u64);
            if (*st).stage != STAGE_DONE && (*st).direction == DIRECTION_OUT && (*st).protocol == 6 {
                return Next::First;
            }
        }
    }
    Next::Pass
}

/// A datagram: whatever is not of a known peer goes on elsewhere.
#[inline(always)]
fn udp(p: &Peek, cookie: u64, config: &Config) -> Next {
    if p.source_port == 53 && enforcing(config) {
        return Next::Other;
    }
    let resolver = decide::resolver(&p.peer, p.destination_port);
    let key = DatagramKey { cookie, peer: p.peer, port: p.destination_port, pad: [0; 3] };
    if !resolver && let Some(known) = DATAGRAMS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe {
            if beginning(p.destination_port, &*known) {
                return Next::Other;
            }
            add(&raw mut (*known).sent, p.length as u64);
            return Next::pass(!refuses((*known).action, config));
        }
    }
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return Next::Other };
    if resolver {
        return Next::Query;
    }
    // SAFETY: a live map value.
    let st = unsafe { &*st };
    // From a socket that sent to a resolver, to where it never said it would: rewritten on the way. It must be a query,
    // or it goes nowhere.
    let here = st.flags & SOCKET_CONNECTED != 0 && st.peer == p.peer && st.port == p.destination_port;
    if st.flags & SOCKET_RESOLVER != 0 && !here { Next::Query } else { Next::Other }
}

/// Whether the agent is to read this datagram: see [`tell_beginning`].
#[inline(always)]
fn beginning(port: u16, known: &DatagramState) -> bool {
    (port == 443 || port == 53) && known.sent < 4096
}

/// A UDP peer's first datagram, what the agent is to read, and all that is neither TCP nor UDP, a tail call of `egress`.
#[cgroup_skb(egress)]
pub fn egress_other(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 0 };
    let fallback = !enforcing(config) as i32;
    let Some(s) = scratch::take() else { return fallback };
    let began = scratch::token(s);
    let Some(p) = packet::read(&ctx, s) else {
        count(counter::UNREADABLE);
        return fallback;
    };
    let cookie = packet::cookie(&ctx);
    if packet::source_routed(&ctx) {
        // Whatever was decided was about the last stop. Judged by the address of the first one while only watching.
        if enforcing(config) {
            let d = Decision::new(ACTION_BLOCK, reason::KIND);
            tell_packet(p, cookie, emit::NOBODY, &d, config);
            return 0;
        }
        count(counter::SOURCE_ROUTED);
    }
    let allowed =
        if p.protocol == 17 { first_datagram(&ctx, s, p, cookie, config) } else { other(s, p, cookie, config) };
    if scratch::token(s) != began {
        count(counter::CLOBBERED);
        return fallback;
    }
    allowed as i32
}

/// A datagram that `udp` did not let through; whether it may go.
#[inline(always)]
fn first_datagram(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, cookie: u64, config: &Config) -> bool {
    let Some(st) = SOCKETS.get_ptr_mut(&cookie) else { return other(s, p, cookie, config) };
    // SAFETY: a live map value, in all blocks of this function.
    let st = unsafe { &mut *st };
    if p.source_port == 53 && enforcing(config) {
        // Nobody inside plays the resolver: root could bind its address (IP_TRANSPARENT) and answer itself.
        let d = Decision::new(ACTION_BLOCK, reason::FAKE_RESOLVER);
        tell_packet(p, cookie, emit::owner_of(st), &d, config);
        return false;
    }
    let connected = st.flags & SOCKET_CONNECTED != 0;
    let here = connected && st.peer == p.destination && st.port == p.destination_port;
    // SAFETY: `s` is this run's slot.
    let key = unsafe {
        (*s).peer = DatagramKey { cookie, peer: p.destination, port: p.destination_port, pad: [0; 3] };
        &(*s).peer
    };
    if let Some(known) = DATAGRAMS.get_ptr_mut(key) {
        return datagram(ctx, s, p, st, known, config);
    }
    if !connected {
        if st.flags & SOCKET_SENDS == 0 {
            return other(s, p, cookie, config);
        }
        // Each datagram passed sendmsg with its own decision; this one's address was rewritten behind it. It counts for
        // where the socket sent to last, which is no judge: another thread may have sent since.
        // SAFETY: as above, and a live map value.
        unsafe {
            (*s).peer.peer = st.peer;
            (*s).peer.port = st.port;
            if let Some(known) = DATAGRAMS.get_ptr_mut(key) {
                add(&raw mut (*known).sent, p.length as u64);
            }
        }
        return true;
    }
    if !here {
        // Rewritten: the decision is about what the program said.
        // SAFETY: as above.
        unsafe {
            (*s).peer.peer = st.peer;
            (*s).peer.port = st.port;
        }
        if let Some(known) = DATAGRAMS.get_ptr_mut(key) {
            return datagram(ctx, s, p, st, known, config);
        }
    }
    let d = Decision { action: st.action, reason: st.reason, flags: 0, rule: st.rule };
    datagram_opened(key, 17, emit::owner_of(st), &d, config);
    match DATAGRAMS.get_ptr_mut(key) {
        Some(known) => datagram(ctx, s, p, st, known, config),
        None => !enforcing(config),
    }
}

/// A datagram of a known (socket, peer).
#[inline(always)]
fn datagram(
    ctx: &SkBuffContext,
    s: *mut Scratch,
    p: &Packet,
    st: &SocketState,
    known: *mut DatagramState,
    config: &Config,
) -> bool {
    // SAFETY: a live map value.
    unsafe {
        let early = beginning(p.destination_port, &*known);
        add(&raw mut (*known).sent, p.length as u64);
        let allowed = !refuses((*known).action, config);
        if early {
            tell_beginning(ctx, s, p, st, (*s).peer.cookie);
        }
        allowed
    }
}

/// Tells what only the agent can read: a QUIC Initial, whose ClientHello is encrypted against us, or a lookup at
/// somebody who is no resolver of the target.
#[inline(always)]
fn tell_beginning(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, st: &SocketState, cookie: u64) {
    let n = packet::payload(ctx, s, p, 0);
    if n < 13 {
        return;
    }
    let kind = if p.destination_port == 53 { kind::QUERY } else { kind::PAYLOAD };
    let mut t = emit::tuple(st);
    t.peer = p.destination;
    t.peer_port = p.destination_port;
    emit::payload(s, emit::header(kind, FLAG_OUTGOING, emit::owner_of(st), cookie), t, 0, n, 0);
}

/// A packet that no stored decision speaks for: judged by its address, told once for each (socket, peer).
#[inline(always)]
fn other(s: *mut Scratch, p: &Packet, cookie: u64, config: &Config) -> bool {
    // SAFETY: `s` is this run's slot.
    let key = unsafe {
        (*s).peer =
            DatagramKey { cookie, peer: p.destination, port: p.destination_port, pad: [p.protocol as u16, 1, 0] };
        &(*s).peer
    };
    if let Some(known) = DATAGRAMS.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*known).sent, p.length as u64);
            return !refuses((*known).action, config);
        }
    }
    let owner = match SOCKETS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        Some(st) => unsafe { emit::owner_of(&*st) },
        None => emit::NOBODY,
    };
    let d = decide::destination(&p.destination, owner.class, p.protocol, p.destination_port);
    insert(key, &d, DIRECTION_OUT, owner, 0);
    tell_packet(p, cookie, owner, &d, config);
    !d.refused(config)
}

#[inline(always)]
fn tell_packet(p: &Packet, cookie: u64, owner: Owner, d: &Decision, config: &Config) {
    let flags = if d.refused(config) { FLAG_ENFORCED } else { 0 };
    let t = Tuple {
        local: p.source,
        peer: p.destination,
        sequence: 0,
        rule: d.rule,
        local_port: p.source_port,
        peer_port: p.destination_port,
        protocol: p.protocol,
        direction: DIRECTION_OUT,
        action: d.action,
        reason: d.reason,
    };
    emit::flow(emit::header(kind::PACKET, flags, owner, cookie), t, p.length as u64, 0);
}

/// Keeps a new (socket, peer).
#[inline(always)]
fn insert(key: &DatagramKey, d: &Decision, direction: u8, owner: Owner, sequence: u32) -> bool {
    let state = DatagramState {
        sent: 0,
        received: 0,
        sequence,
        rule: d.rule,
        action: d.action,
        reason: d.reason,
        direction,
        pad: 0,
        tgid: owner.tgid,
        tid: owner.tid,
        uid: owner.uid,
    };
    let kept = DATAGRAMS.insert(key, &state, 0).is_ok();
    if !kept {
        count(counter::DATAGRAMS_FULL);
    }
    kept
}

/// A UDP connection begins: keeps and tells it; whether its datagrams may go.
#[inline(always)]
pub fn datagram_opened(key: &DatagramKey, protocol: u8, owner: Owner, d: &Decision, config: &Config) -> bool {
    opened(key, protocol, owner, d, DIRECTION_OUT, config)
}

/// The same for one that somebody else began.
#[inline(always)]
pub fn datagram_accepted(key: &DatagramKey, owner: Owner, d: &Decision, config: &Config) -> bool {
    opened(key, 17, owner, d, DIRECTION_IN, config)
}

#[inline(always)]
fn opened(key: &DatagramKey, protocol: u8, owner: Owner, d: &Decision, direction: u8, config: &Config) -> bool {
    let mut sequence = 1;
    let mut local_port = 0;
    if let Some(st) = SOCKETS.get_ptr_mut(&key.cookie) {
        // SAFETY: a live map value; two CPUs may give two peers one sequence, which the peer's address tells apart.
        unsafe {
            (*st).sequence += 1;
            sequence = (*st).sequence;
            local_port = (*st).local_port;
        }
    }
    let d = d.or_full(insert(key, d, direction, owner, sequence), config);
    let refused = d.refused(config);
    let t = Tuple {
        local: emit::NOWHERE,
        peer: key.peer,
        sequence,
        rule: d.rule,
        local_port,
        peer_port: key.port,
        protocol,
        direction,
        action: d.action,
        reason: d.reason,
    };
    let flags = if refused { FLAG_ENFORCED } else { 0 };
    emit::flow(emit::header(kind::OPENED, flags, owner, key.cookie), t, 0, 0);
    !refused
}
