//! Requests to a proxy: HTTP's (CONNECT, absolute form) and those of SOCKS 4 and 5.

use trustrun_common::Address;

use super::read::{ADDRESS, GREETING, HTTP, NOTHING, OPAQUE, PART, SOCKS, UNREADABLE, found, length, named, set_port};
use crate::{
    decide,
    scratch::{MASK, Scratch, again, byte, launder, load, slot, store, word},
};

/// Most empty lines before a request, in octets (RFC 9112 2.2).
const BLANK: u64 = 4;
/// Most letters of a method.
const METHOD: u64 = 20;

/// [`read_http`].
#[inline(always)]
pub fn http(s: *mut Scratch) {
    first_http(slot(s));
}

/// [`read_http`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_http(slot: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    read_http(s);
    1
}

/// `CONNECT host:port`, or a method with an absolute `http://` or `https://` target (RFC 9112 3.2).
#[inline(always)]
fn read_http(s: *mut Scratch) {
    let mut o = 0;
    for _ in 0..BLANK {
        o = launder(s, o) & MASK;
        if byte(s, o) == b'\r' as u64 || byte(s, o) == b'\n' as u64 {
            o += 1;
        }
    }
    // SAFETY: a field of this run's slot.
    unsafe { store(&raw mut (*s).start, o) }
    o = launder(s, o) & MASK;
    if folded(s, o) == 0x636f && folded(s, o + 2) == 0x6e6e && folded(s, o + 4) == 0x6563 && folded(s, o + 6) == 0x7420
    {
        set_port(s, 0);
        return named(s, HTTP, o + 8, 253, 2);
    }
    if target(s) {
        absolute(s);
    }
}

/// Finds what follows the method at `s.start`, and leaves it in `s.next`.
#[inline(always)]
fn target(s: *mut Scratch) -> bool {
    // SAFETY: fields of this run's slot.
    unsafe {
        for i in 0..METHOD + 1 {
            let o = load(&raw const (*s).start) + i;
            if o >= length(s) {
                found(s, PART);
                return false;
            }
            let b = byte(s, o);
            if b == b' ' as u64 {
                store(&raw mut (*s).next, o + 1);
                return true;
            }
            if b < b' ' as u64 || b > b'~' as u64 {
                return false;
            }
        }
    }
    false
}

/// `http://host` or `https://host`, with or without a port.
#[inline(always)]
fn absolute(s: *mut Scratch) {
    // SAFETY: a field of this run's slot.
    let mut o = unsafe { load(&raw const (*s).next) } & MASK;
    if length(s) < o + 8 {
        let other = length(s) > o && byte(s, o) | 0x20 != b'h' as u64;
        return found(s, if other { NOTHING } else { PART });
    }
    if folded(s, o) != 0x6874 || folded(s, o + 2) != 0x7470 {
        return;
    }
    o += 4;
    set_port(s, 80);
    if byte(s, o) | 0x20 == b's' as u64 {
        o += 1;
        set_port(s, 443);
    }
    o = launder(s, o) & MASK;
    if word(s, o) == 0x3a2f && byte(s, o + 2) == b'/' as u64 {
        named(s, HTTP, o + 3, 253, 1);
    }
}

/// Two letters in ASCII lower case.
#[inline(always)]
fn folded(s: *mut Scratch, offset: u64) -> u64 {
    word(s, offset) | 0x2020
}

/// RFC 1928 3: version, number of methods, methods. Who does not wait for the answer sends the rest behind it.
#[inline(always)]
pub fn greeting(s: *mut Scratch) {
    let methods = byte(s, 1);
    if length(s) < 2 {
        return found(s, PART);
    }
    if methods == 0 {
        return; // no client offers nothing; other protocols begin so (Cassandra's)
    }
    if length(s) < 2 + methods {
        return found(s, PART);
    }
    if length(s) == 2 + methods {
        return found(s, GREETING);
    }
    // SAFETY: a field of this run's slot.
    unsafe { store(&raw mut (*s).start, 2 + methods) }
    socks5(s);
}

/// RFC 1928 4, from the client's bytes alone, at `s.start`: a request, or first a user/password message (RFC 1929).
#[inline(always)]
pub fn socks5(s: *mut Scratch) {
    first_socks5(slot(s));
}

/// [`socks5`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_socks5(slot: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    read_socks5(s);
    1
}

#[inline(always)]
fn read_socks5(s: *mut Scratch) {
    // SAFETY: a field of this run's slot.
    let start = move || unsafe { load(&raw const (*s).start) };
    if byte(s, start()) == 1 {
        // Version, length and user, length and password.
        let user = byte(s, start() + 1);
        let size = 3 + user + byte(s, start() + 2 + user);
        if length(s) < start() + 2 || length(s) < start() + 3 + user || length(s) < start() + size {
            return found(s, PART);
        }
        if length(s) == start() + size {
            return found(s, GREETING);
        }
        // SAFETY: as above.
        unsafe { store(&raw mut (*s).start, start() + size) }
    }
    request(s);
}

/// The request of RFC 1928 4: version, command, a zero, then IPv4, IPv6, or a name with its length; then the port.
#[inline(always)]
fn request(s: *mut Scratch) {
    // SAFETY: a field of this run's slot.
    let o = unsafe { load(&raw const (*s).start) } & MASK;
    if byte(s, o) != 5 {
        return found(s, UNREADABLE);
    }
    if length(s) < o + 5 {
        return found(s, PART);
    }
    if byte(s, o + 1) == 0 || byte(s, o + 1) > 3 {
        // Some proxies have more commands (Tor's RESOLVE is 0xf0): whom they reach is not known.
        return found(s, OPAQUE);
    }
    let (kind, size) = (byte(s, o + 3), byte(s, o + 4));
    let whole = match kind {
        1 => 10,
        3 => 7 + size,
        4 => 22,
        _ => return found(s, OPAQUE),
    };
    if byte(s, o + 2) != 0 || (kind == 3 && (size == 0 || size > 253)) {
        return found(s, OPAQUE);
    }
    if length(s) < o + whole {
        return found(s, PART);
    }
    set_port(s, word(s, o + whole - 2));
    if kind == 3 {
        return named(s, SOCKS, o + 5, size, 0);
    }
    address_at(s, o + 4, kind == 4);
    found(s, ADDRESS);
}

/// Most letters of a SOCKS4 user id that are read over.
const USER: u32 = 64;

/// SOCKS4 and 4a: version, command, port, address, user, NUL, and for 0.0.0.x a name, NUL.
#[inline(always)]
pub fn socks4(s: *mut Scratch) {
    if length(s) < 9 {
        return found(s, PART);
    }
    if byte(s, 1) != 1 && byte(s, 1) != 2 {
        return;
    }
    set_port(s, word(s, 2));
    if word(s, 4) != 0 || byte(s, 6) != 0 {
        address_at(s, 4, false);
        return found(s, ADDRESS);
    }
    if byte(s, 7) == 0 {
        return found(s, UNREADABLE); // for nobody: rather another protocol that begins so
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
    found(s, OPAQUE);
}

/// The address at an offset of the payload.
#[inline(always)]
fn address_at(s: *mut Scratch, offset: u64, v6: bool) {
    // SAFETY: the offset is masked, and `payload` is longer than MASK + 16.
    unsafe {
        let q = (&raw const (*s).payload).cast::<u8>().add((offset & MASK) as usize);
        (*s).address =
            if v6 { q.cast::<Address>().read_unaligned() } else { decide::mapped(q.cast::<u32>().read_unaligned()) };
    }
}
