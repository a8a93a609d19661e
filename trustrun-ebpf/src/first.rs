//! The first payload of a TCP connection that the target began: which name the client says it talks to.
//!
//! A ClientHello's server_name can only refute: it must be one of the names that DNS bound to the address (where the
//! grant rests on names), and the policy must not refuse it. In a proxy request (CONNECT, absolute form, SOCKS) the
//! authority *is* the destination and is judged as one. What comes in pieces passes piece by piece and is judged when
//! it is whole; what cannot be read is refused where a name is needed. Only IPv4 literals are read in proxy requests
//! (an IPv6 literal there counts as unreadable).

use aya_ebpf::{helpers::bpf_probe_read_kernel_buf, programs::SkBuffContext};
use trustrun_common::{
    ACTION_ALLOW, ACTION_BLOCK, ACTION_NONE, Address, BoundName, Config, FLAG_ENFORCED, FLAG_OUTGOING, SOCKET_BY_NAME,
    SOCKET_NEEDS_NAME, STAGE_DONE, STAGE_FIRST, STAGE_HELLO, STAGE_SECOND, STAGE_SOCKS, SocketState, counter, kind,
    reason,
};

use crate::{
    decide::{self, Decision},
    emit,
    maps::{BOUND_NAMES, GATHER, GATHER_MAX, Gathered, count, enforcing},
    names,
    packet::{self, Packet},
    scratch::{MASK, Scratch, byte, launder, load, store, word},
};

/// Most TLS extensions that are walked to find server_name.
const EXTENSIONS: u32 = 48;

// What a first payload turned out to be (`Scratch::what`).

/// Nothing that names anybody.
const NOTHING: u64 = 0;
/// More bytes are needed.
const PART: u64 = 1;
/// A SOCKS5 greeting: the request is in a later payload.
const GREETING: u64 = 2;
/// It should name somebody and cannot be read.
const UNREADABLE: u64 = 3;
/// A ClientHello with server_name.
const SNI: u64 = 4;
/// An HTTP proxy request; the port follows the name as text.
const HTTP: u64 = 5;
/// A SOCKS request for a name.
const SOCKS: u64 = 6;
/// A proxy request for the IPv4 address in `s.address`.
const ADDRESS: u64 = 7;

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
        let _ = GATHER.remove(&cookie);
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

/// Bytes of the payload, read anew each time: in a register every path would leave it in a range of its own, and no two
/// paths would be equal to the verifier.
#[inline(always)]
fn length(s: *mut Scratch) -> u64 {
    // SAFETY: a field of this run's slot.
    unsafe { load(&raw const (*s).length) }
}

/// Notes what the payload is.
#[inline(always)]
fn found(s: *mut Scratch, what: u64) {
    // SAFETY: a field of this run's slot.
    unsafe { store(&raw mut (*s).what, what) }
}

/// Notes where its name is.
#[inline(always)]
fn named(s: *mut Scratch, what: u64, at: u64, limit: u64, stops: u64) {
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).name, at);
        store(&raw mut (*s).limit, limit);
        store(&raw mut (*s).stops, stops);
    }
    found(s, what);
}

#[inline(always)]
fn set_port(s: *mut Scratch, port: u64) {
    // SAFETY: a field of this run's slot.
    unsafe { store(&raw mut (*s).port, port) }
}

/// What the payload is, and where its name would be.
#[inline(always)]
fn classify(s: *mut Scratch) {
    found(s, NOTHING);
    let b = byte(s, 0);
    // SAFETY: a field of this run's slot.
    if unsafe { load(&raw const (*s).stage) } == STAGE_SOCKS as u64 {
        return socks5(s);
    }
    if b == 0x16 {
        return hello(s);
    }
    if b == 5 {
        // RFC 1928 3: version, number of methods, methods, nothing else. A client that sends its request with it, before
        // the answer, is not read.
        if length(s) < 2 || length(s) < 2 + byte(s, 1) {
            return found(s, PART);
        }
        return if length(s) == 2 + byte(s, 1) { found(s, GREETING) } else { found(s, UNREADABLE) };
    }
    if b == 4 {
        return socks4(s);
    }
    if b >= b'A' as u64 && b <= b'Z' as u64 {
        http(s);
    }
}

/// RFC 8446 4.1.2 in a record of RFC 8446 5.1. A hello in several records is not read: no common client sends one.
#[inline(always)]
fn hello(s: *mut Scratch) {
    if length(s) < 9 {
        return found(s, PART);
    }
    if byte(s, 1) != 3 || byte(s, 5) != 1 {
        return;
    }
    let record = word(s, 3);
    let message = byte(s, 6) << 16 | word(s, 7);
    if message + 4 > record {
        return found(s, UNREADABLE);
    }
    if length(s) < 9 + message {
        return found(s, PART);
    }
    server_name(s);
}

/// Walks a whole ClientHello to its server_name; nothing is noted where there is none.
#[inline(always)]
fn server_name(s: *mut Scratch) {
    let mut o = 43;
    o += 1 + byte(s, o); // session id
    o += 2 + word(s, o); // cipher suites
    if o + 4 > length(s) {
        return found(s, UNREADABLE);
    }
    o += 1 + byte(s, o); // compression methods
    o += 2; // length of the extensions
    for _ in 0..EXTENSIONS {
        o = launder(s, o) & MASK;
        if o + 4 > length(s) {
            return;
        }
        let (kind, size) = (word(s, o), word(s, o + 2));
        if kind == 0 {
            let n = word(s, o + 7);
            if o + 9 + n > length(s) || n == 0 || n > 253 || byte(s, o + 6) != 0 || size != n + 5 {
                return found(s, UNREADABLE);
            }
            return named(s, SNI, o + 9, n, 0);
        }
        o += 4 + size;
    }
    found(s, UNREADABLE);
}

/// `CONNECT host:port`, or a method with an absolute `http://` target (RFC 9112 3.2).
#[inline(always)]
fn http(s: *mut Scratch) {
    if word(s, 0) == 0x434f && word(s, 2) == 0x4e4e && word(s, 4) == 0x4543 && word(s, 6) == 0x5420 {
        return authority(s, 8);
    }
    // A method of three to seven letters, a space, then the target.
    let mut o = 0;
    for i in 3..8u64 {
        if o == 0 && byte(s, i) == b' ' as u64 {
            o = i + 1;
        }
    }
    if o == 0 || length(s) < o + 8 {
        return if length(s) < 16 { found(s, PART) } else { found(s, NOTHING) };
    }
    o = launder(s, o) & 15;
    if word(s, o) == 0x6874 && word(s, o + 2) == 0x7470 && word(s, o + 4) == 0x3a2f && byte(s, o + 6) == 0x2f {
        authority(s, o + 7);
    }
}

/// `host`, `host:port` or an IPv4 literal at `o`.
#[inline(always)]
fn authority(s: *mut Scratch, o: u64) {
    named(s, HTTP, o, 253, 1);
}

/// RFC 1928 4, from the client's bytes alone: a request, or first a user/password message (RFC 1929).
#[inline(always)]
fn socks5(s: *mut Scratch) {
    if byte(s, 0) == 1 {
        // Version, length and user, length and password.
        let user = byte(s, 1);
        if length(s) < 2 || length(s) < 3 + user || length(s) < 3 + user + byte(s, 2 + user) {
            return found(s, PART);
        }
        return found(s, GREETING);
    }
    if byte(s, 0) != 5 {
        return found(s, UNREADABLE);
    }
    if length(s) < 5 {
        return found(s, PART);
    }
    // IPv4, or a name with its length; then the port.
    let (kind, size) = (byte(s, 3), byte(s, 4));
    let whole = if kind == 1 { 10 } else { 7 + size };
    if kind != 1 && (kind != 3 || size == 0 || size > 253) {
        return found(s, UNREADABLE);
    }
    if length(s) < whole {
        return found(s, PART);
    }
    if kind == 1 {
        address_at(s, 4);
        set_port(s, word(s, 8));
        return found(s, ADDRESS);
    }
    set_port(s, word(s, 5 + size));
    named(s, SOCKS, 5, size, 0);
}

/// Most letters of a SOCKS4 user id that are read over.
const USER: u32 = 64;

/// SOCKS4 and 4a: version, command, port, address, user, NUL, and for 0.0.0.x a name, NUL.
#[inline(always)]
fn socks4(s: *mut Scratch) {
    if length(s) < 9 {
        return found(s, PART);
    }
    if byte(s, 1) != 1 && byte(s, 1) != 2 {
        return;
    }
    set_port(s, word(s, 2));
    if word(s, 4) != 0 || byte(s, 6) != 0 {
        address_at(s, 4);
        return found(s, ADDRESS);
    }
    let mut o = 8;
    for _ in 0..USER {
        o = launder(s, o) & MASK;
        if o >= length(s) {
            return found(s, PART);
        }
        if byte(s, o) == 0 {
            return named(s, SOCKS, o + 1, 253, 1);
        }
        o += 1;
    }
    found(s, UNREADABLE);
}

/// Reads the name that `classify` found, on one path for all kinds.
#[inline(always)]
fn finish_name(s: *mut Scratch) {
    // SAFETY: fields of this run's slot.
    unsafe {
        let what = load(&raw const (*s).what);
        if what != SNI && what != HTTP && what != SOCKS {
            return;
        }
        let size = names::text(s);
        let end = load(&raw const (*s).offset);
        let what = load(&raw const (*s).what);
        // It must have ended in what is here, and so must the port: the rest might make another name of it.
        if load(&raw const (*s).stops) != 0 && end >= length(s) {
            return if length(s) < 512 { found(s, PART) } else { found(s, UNREADABLE) };
        }
        if size == 0 {
            return found(s, UNREADABLE);
        }
        if what == SOCKS && load(&raw const (*s).stops) != 0 && byte(s, end) != 0 {
            return found(s, UNREADABLE);
        }
        if what != HTTP {
            return;
        }
        let mut port = 80;
        if byte(s, end) == b':' as u64 {
            port = names::port(s, end + 1) as u64;
            if load(&raw const (*s).offset) >= length(s) {
                return found(s, PART);
            }
        }
        set_port(s, port);
        if ipv4(s) {
            found(s, ADDRESS);
        }
    }
}

/// Whether the name is a dotted quad; leaves it in `s.address`.
#[inline(always)]
fn ipv4(s: *mut Scratch) -> bool {
    // SAFETY: fields of this run's slot.
    let mut at = unsafe { load(&raw const (*s).name) };
    // Not an array: LLVM would turn "stack pointer + index" into an `or`, which the verifier refuses on pointers.
    let mut quad = 0u32;
    let mut k = 0u32;
    let mut value = 0u64;
    let mut digits = 0u64;
    for _ in 0..16 {
        at = launder(s, at) & MASK;
        let b = byte(s, at);
        if (b'0' as u64..=b'9' as u64).contains(&b) {
            value = value * 10 + (b - b'0' as u64);
            digits += 1;
            if digits > 3 {
                return false;
            }
        } else {
            if digits == 0 || value > 255 {
                return false;
            }
            quad = quad << 8 | value as u32;
            k += 1;
            value = 0;
            digits = 0;
            if k == 4 {
                // SAFETY: `s` is this run's slot.
                unsafe { (*s).address = decide::mapped(quad.to_be()) }
                return b == b':' as u64 || b == b' ' as u64 || b == b'/' as u64;
            }
            if b != b'.' as u64 {
                return false;
            }
        }
        at += 1;
    }
    false
}

#[inline(always)]
fn address_at(s: *mut Scratch, offset: u64) {
    // SAFETY: constant offset inside `payload`.
    unsafe {
        let q = (&raw const (*s).payload).cast::<u8>().add(offset as usize & 15);
        (*s).address = decide::mapped(q.cast::<u32>().read_unaligned());
    }
}

/// What becomes of the connection; action none where it changes nothing.
#[inline(always)]
fn judge(s: *mut Scratch, st: *mut SocketState, config: &Config) -> Decision {
    // SAFETY: a live map value and this run's slot, in all blocks of this function.
    let (what, flags, port, granted) = unsafe { (load(&raw const (*s).what), (*st).flags, (*st).port, (*st).action) };
    let nothing = Decision::new(ACTION_NONE, reason::DEFAULT);
    if what == ADDRESS {
        // SAFETY: as above.
        let (address, port): (Address, u64) = unsafe { ((*s).address, load(&raw const (*s).port)) };
        return claim(decide::claimed_address(&address, port as u16, config));
    }
    if what < SNI {
        let unread = (what == UNREADABLE || what == PART) && flags & SOCKET_BY_NAME != 0;
        if unread || flags & SOCKET_NEEDS_NAME != 0 {
            return Decision::new(ACTION_BLOCK, reason::UNREADABLE);
        }
        return nothing;
    }
    let set = names::rules(s).map_or(0, |v| v.set);
    // SAFETY: as above.
    let port = if what == SNI { port } else { unsafe { load(&raw const (*s).port) as u16 } };
    let d = decide::name(set, 6, port, config);
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
