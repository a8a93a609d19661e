//! Reading a first payload: what it is. TLS is read here, requests to proxies in `proxy`, the name of all of them in
//! `authority`. What was found stays in the slot (`Scratch::what` and beside it), so that all paths to the judgement meet in
//! one state.

use trustrun_common::STAGE_SOCKS;

use super::proxy::{greeting, http, socks4, socks5};
use crate::scratch::{MASK, Scratch, again, byte, launder, load, slot, store, word};

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
/// A request to a proxy, whose destination cannot be read, or is read in different ways by different programs.
pub const OPAQUE: u64 = 4;
/// A ClientHello with server_name.
pub const SNI: u64 = 5;
/// An HTTP proxy request; the port follows the name as text.
pub const HTTP: u64 = 6;
/// A SOCKS request for a name.
pub const SOCKS: u64 = 7;
/// A proxy request for the address in `s.address`.
pub const ADDRESS: u64 = 8;

/// Bytes of the payload, read anew each time: in a register every path would leave it in a range of its own, and no two
/// paths would be equal to the verifier.
#[inline(always)]
pub fn length(s: *mut Scratch) -> u64 {
    // SAFETY: a field of this run's slot.
    unsafe { load(&raw const (*s).length) }
}

/// Notes what the payload is.
#[inline(always)]
pub fn found(s: *mut Scratch, what: u64) {
    // SAFETY: a field of this run's slot.
    unsafe { store(&raw mut (*s).what, what) }
}

/// Notes where its name is.
#[inline(always)]
pub fn named(s: *mut Scratch, what: u64, at: u64, limit: u64, stops: u64) {
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).name, at);
        store(&raw mut (*s).limit, limit);
        store(&raw mut (*s).stops, stops);
    }
    found(s, what);
}

#[inline(always)]
pub fn set_port(s: *mut Scratch, port: u64) {
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
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).start, 0);
        if load(&raw const (*s).stage) == STAGE_SOCKS as u64 {
            return socks5(s);
        }
    }
    if b == 0x16 {
        return hello(s);
    }
    if b == 5 {
        return greeting(s);
    }
    if b == 4 {
        return socks4(s);
    }
    if (b >= b'A' as u64 && b <= b'Z' as u64) || b == b'\r' as u64 || b == b'\n' as u64 {
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
