//! The first payload of a TCP connection that the target began: which name the client says it talks to.
//!
//! A ClientHello's server_name can only refute: it must be one of the names that DNS bound to the address (where the
//! grant rests on names), and the policy must not refuse it. In a proxy request (CONNECT, absolute form, SOCKS) the
//! authority *is* the destination and is judged as one. What comes in pieces passes piece by piece and is judged when
//! it is whole; what cannot be read is refused where a name is needed, and where it is for a proxy. IPv6 literals are read in
//! SOCKS5 alone (in an HTTP request they count as unreadable).

mod authority;
mod proxy;
mod read;

use aya_ebpf::{helpers::bpf_probe_read_kernel_buf, programs::SkBuffContext};
use trustrun_common::{
    ACTION_ALLOW, ACTION_BLOCK, ACTION_NONE, Address, BoundName, Config, FLAG_ENFORCED, FLAG_OUTGOING, SET_DEPENDS,
    SOCKET_BY_NAME, SOCKET_NEEDS_NAME, STAGE_DONE, STAGE_FIRST, STAGE_HELLO, STAGE_SECOND, STAGE_SOCKS, SocketState,
    counter, kind, reason,
};

use crate::{
    decide::{self, Decision},
    emit,
    first::{
        authority::finish_name,
        read::{ADDRESS, GREETING, OPAQUE, PART, SNI, UNREADABLE, classify, length},
    },
    maps::{BOUND_NAMES, GATHER, GATHER_MAX, Gathered, count, enforcing},
    names,
    packet::{self, Packet},
    scratch::{Scratch, load, store},
};

/// Looks at a payload that the target sends; whether it may go.
#[inline(always)]
pub fn outgoing(
    ctx: &SkBuffContext,
    s: *mut Scratch,
    p: &Packet,
    st: *mut SocketState,
    cookie: u64,
    config: &Config,
) -> bool {
    // SAFETY: `st` is a live map value and `s` this run's slot, in all blocks of this function.
    unsafe {
        let stage = (*st).stage;
        if stage != STAGE_FIRST && p.sequence != (*st).next {
            // Sent before and judged then, or a hole, which a local stream does not have.
            return true;
        }
        if stage == STAGE_SECOND && !second(ctx, s, p, st) {
            return true;
        }
        let gathered = ((*st).looked - (*st).base) as u64;
        let mut at = 0;
        if gathered != 0 {
            at = restore(s, cookie, gathered);
        }
        let n = packet::payload(ctx, s, p, at);
        if n == 0 {
            return !enforcing(config);
        }
        // The record holds all that was gathered of this message so far.
        let offset = if at == gathered { (*st).base } else { (*st).looked };
        store(&raw mut (*s).whole, (at == gathered) as u64);
        store(&raw mut (*s).stage, stage as u64);
        let header = emit::header(kind::PAYLOAD, FLAG_OUTGOING, emit::owner_of(&*st), cookie);
        emit::payload(s, header, emit::tuple(&*st), offset, at + n, 0);
        (*st).next = p.sequence.wrapping_add(p.length);
        (*st).looked += p.length;
        classify(s);
        finish_name(s);
        let stage = load(&raw const (*s).stage) as u8;
        let whole = load(&raw const (*s).whole) != 0;
        let what = load(&raw const (*s).what);
        if what == PART && length(s) < GATHER_MAX as u64 && whole && keep(s, cookie) {
            (*st).stage = if stage == STAGE_SOCKS { STAGE_SOCKS } else { STAGE_HELLO };
            return true;
        }
        if gathered != 0 {
            let _ = GATHER.remove(&cookie);
        }
        (*st).base = (*st).looked;
        if what == GREETING {
            (*st).stage = STAGE_SOCKS;
            return true;
        }
        (*st).stage = if what == SNI { STAGE_SECOND } else { STAGE_DONE };
        if stage == STAGE_SECOND && what != SNI {
            return true; // no second ClientHello after all
        }
        let d = judge(s, st, config);
        if d.action == ACTION_NONE {
            return true;
        }
        apply(st, cookie, &d, config)
    }
}

/// After a ClientHello: whether this payload is another one (RFC 8446 4.1.4), in one record, maybe behind the
/// compatibility ChangeCipherSpec. Anything else ends the reading: it is the handshake's end, or encrypted.
#[inline(always)]
fn second(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, st: *mut SocketState) -> bool {
    // SAFETY: a live map value and this run's slot.
    unsafe {
        let change = packet::starts_with_change_cipher_spec(ctx, s, p);
        if change && p.length == 6 {
            (*st).next = p.sequence.wrapping_add(6);
            (*st).looked += 6;
            (*st).base = (*st).looked;
            return false;
        }
        if change {
            // Read from behind it: the packet's description lies in this run's slot.
            (*s).packet.offset += 6;
            (*s).packet.length -= 6;
            (*s).packet.sequence = p.sequence.wrapping_add(6);
            (*st).looked += 6;
            (*st).base = (*st).looked;
        }
        if packet::starts_with_whole_hello(ctx, s, p) {
            return true;
        }
        (*st).stage = STAGE_DONE;
        false
    }
}

/// Records a judgement on the socket, tells the agent, and says whether the bytes may go.
#[inline(always)]
fn apply(st: *mut SocketState, cookie: u64, d: &Decision, config: &Config) -> bool {
    let refused = d.refused(config);
    // SAFETY: a live map value.
    unsafe {
        if d.action >= ACTION_BLOCK || d.action > (*st).action {
            (*st).action = d.action;
            (*st).reason = d.reason;
            (*st).rule = d.rule;
        }
        let mut t = emit::tuple(&*st);
        t.action = d.action;
        t.reason = d.reason;
        t.rule = d.rule;
        let flags = if refused { FLAG_ENFORCED } else { 0 };
        emit::flow(emit::header(kind::JUDGED, flags, emit::owner_of(&*st), cookie), t, 0, 0);
    }
    !refused
}

/// Puts what was gathered before into the payload; how many bytes.
#[inline(always)]
fn restore(s: *mut Scratch, cookie: u64, before: u64) -> u64 {
    // SAFETY: the value is GATHER_MAX bytes long and may be overwritten only by the same stream.
    unsafe {
        let Some(g) = GATHER.get(&cookie) else { return 0 };
        let to = core::slice::from_raw_parts_mut((&raw mut (*s).payload).cast::<u8>(), GATHER_MAX);
        if bpf_probe_read_kernel_buf(g.bytes.as_ptr(), to).is_err() {
            return 0;
        }
    }
    before
}

/// Keeps the first `GATHER_MAX` bytes of the payload for the next piece.
#[inline(always)]
fn keep(s: *mut Scratch, cookie: u64) -> bool {
    // SAFETY: `payload` is longer than Gathered, which is plain bytes.
    let kept = unsafe { GATHER.insert(&cookie, &*(&raw const (*s).payload).cast::<Gathered>(), 0).is_ok() };
    if !kept {
        count(counter::GATHER_FULL);
    }
    kept
}

/// What becomes of the connection; action none where it changes nothing.
#[inline(always)]
fn judge(s: *mut Scratch, st: *mut SocketState, config: &Config) -> Decision {
    // SAFETY: a live map value and this run's slot, in all blocks of this function.
    let (what, flags, port, granted, class) =
        unsafe { (load(&raw const (*s).what), (*st).flags, (*st).port, (*st).action, (*st).class) };
    let nothing = Decision::new(ACTION_NONE, reason::DEFAULT);
    if what == ADDRESS {
        // SAFETY: as above.
        let (address, port): (Address, u64) = unsafe { ((*s).address, load(&raw const (*s).port)) };
        return claim(decide::claimed_address(&address, class, port as u16, config));
    }
    if what == OPAQUE && enforcing(config) {
        // Also where an address rule granted the proxy: that says nothing of whom it is asked for.
        return Decision::new(ACTION_BLOCK, reason::UNREADABLE);
    }
    if what < SNI {
        let unread = (what == UNREADABLE || what == OPAQUE || what == PART) && flags & SOCKET_BY_NAME != 0;
        if unread || flags & SOCKET_NEEDS_NAME != 0 {
            return Decision::new(ACTION_BLOCK, reason::UNREADABLE);
        }
        return nothing;
    }
    let set = match names::rules(s, class) {
        // SAFETY: as above.
        Some(v) if what == SNI && v.private != v.set && names::private(unsafe { &(*st).peer }) => v.private,
        Some(v) => v.set,
        None => 0,
    };
    // SAFETY: as above.
    let port = if what == SNI { port } else { unsafe { load(&raw const (*s).port) as u16 } };
    let mut case = class as u32;
    if what == SNI && set & SET_DEPENDS != 0 {
        // SAFETY: as above.
        case += decide::skip(unsafe { &(*st).peer });
    }
    let d = decide::name(set, case, 6, port, config);
    if what != SNI {
        return claim(d);
    }
    if flags & SOCKET_BY_NAME != 0 {
        // SAFETY: as above.
        let known = unsafe {
            (*s).bound = BoundName { address: (*st).peer, name: load(&raw const (*s).hash) };
            BOUND_NAMES.get(&(*s).bound).is_some()
        };
        if !known {
            return Decision::new(ACTION_BLOCK, reason::MISMATCH);
        }
        return if d.action >= ACTION_BLOCK { claim(d) } else { nothing };
    }
    // An address rule or the default granted it: only a rule on the name itself refutes.
    if d.reason == reason::RULE && d.action > granted && granted >= ACTION_ALLOW { claim(d) } else { nothing }
}

/// The same decision, because of what the client said.
#[inline(always)]
fn claim(d: Decision) -> Decision {
    Decision { action: d.action, reason: reason::CLAIM, flags: 0, rule: d.rule }
}
