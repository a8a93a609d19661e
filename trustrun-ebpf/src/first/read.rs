//! Reading a first payload: TLS ClientHello, HTTP proxy request, SOCKS. What it is and whom it names stays in the slot
//! (`Scratch::what` and beside it), so that all paths to the judgement meet in one state.

use trustrun_common::STAGE_SOCKS;

use crate::{
    decide, names,
    scratch::{MASK, Scratch, again, byte, launder, load, slot, store, word},
};

/// Most TLS extensions that are walked to find server_name.
const EXTENSIONS: u32 = 48;

// What a first payload turned out to be (`Scratch::what`).

/// Nothing that names anybody.
pub const NOTHING: u64 = 0;
/// More bytes are needed.
pub const PART: u64 = 1;
/// A SOCKS5 greeting: the request is in a later payload.
pub const GREETING: u64 = 2;
/// It should name somebody and cannot be read.
pub const UNREADABLE: u64 = 3;
/// A ClientHello with server_name.
pub const SNI: u64 = 4;
/// An HTTP proxy request; the port follows the name as text.
pub const HTTP: u64 = 5;
/// A SOCKS request for a name.
pub const SOCKS: u64 = 6;
/// A proxy request for the IPv4 address in `s.address`.
pub const ADDRESS: u64 = 7;

/// Bytes of the payload, read anew each time: in a register every path would leave it in a range of its own, and no two
/// paths would be equal to the verifier.
#[inline(always)]
pub fn length(s: *mut Scratch) -> u64 {
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
pub fn classify(s: *mut Scratch) {
    first_classify(slot(s));
}

/// [`classify`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_classify(slot: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    read_kind(s);
    1
}

#[inline(always)]
fn read_kind(s: *mut Scratch) {
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
pub fn finish_name(s: *mut Scratch) {
    first_name(slot(s));
}

/// [`finish_name`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_name(slot: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    read_name(s);
    1
}

#[inline(always)]
fn read_name(s: *mut Scratch) {
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
