//! Reading a first payload: TLS ClientHello, HTTP proxy request, SOCKS. What it is and whom it names stays in the slot
//! (`Scratch::what` and beside it), so that all paths to the judgement meet in one state.

use trustrun_common::{Address, STAGE_SOCKS};

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

/// Most empty lines before a request, in octets (RFC 9112 2.2).
const BLANK: u64 = 4;
/// Most letters of a method.
const METHOD: u64 = 20;

/// [`read_http`].
#[inline(always)]
fn http(s: *mut Scratch) {
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
fn greeting(s: *mut Scratch) {
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
fn socks5(s: *mut Scratch) {
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
        return found(s, UNREADABLE);
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
fn socks4(s: *mut Scratch) {
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
        store(&raw mut (*s).next, end);
        let (what, stops) = (load(&raw const (*s).what), load(&raw const (*s).stops));
        // It must have ended in what is here, and so must the port: the rest might make another name of it.
        if stops != 0 && end >= length(s) {
            return found(s, if length(s) < 512 { PART } else { OPAQUE });
        }
        if size == 0 || byte(s, load(&raw const (*s).name)) == b'.' as u64 {
            return found(s, if what == SNI { UNREADABLE } else { OPAQUE });
        }
        if what == SNI {
            return;
        }
        if what == SOCKS && stops != 0 && byte(s, end) != 0 {
            return found(s, OPAQUE);
        }
        if what == HTTP {
            end_of_authority(s);
        }
        if load(&raw const (*s).what) > OPAQUE && ipv4(s) {
            found(s, ADDRESS);
        }
    }
}

/// What stands behind the host of an HTTP request: a port perhaps, and then what ends both. Anything else (`@`, `?`)
/// might make another host of it.
#[inline(always)]
fn end_of_authority(s: *mut Scratch) {
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).offset, load(&raw const (*s).next));
        if byte(s, load(&raw const (*s).next)) == b':' as u64 {
            let port = names::port(s, load(&raw const (*s).next) + 1);
            if load(&raw const (*s).offset) >= length(s) {
                return found(s, PART);
            }
            set_port(s, port as u64);
        }
        let after = byte(s, load(&raw const (*s).offset));
        let ends = after == b' ' as u64 || (after == b'/' as u64 && load(&raw const (*s).stops) == 1);
        if !ends || load(&raw const (*s).port) == 0 {
            found(s, OPAQUE);
        }
    }
}

/// [`read_ipv4`].
#[inline(always)]
fn ipv4(s: *mut Scratch) -> bool {
    first_ipv4(slot(s)) != 0
}

/// [`read_ipv4`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_ipv4(slot: u64) -> u64 {
    again(slot).is_some_and(read_ipv4) as u64
}

/// Whether the name is a dotted quad, and nothing behind it; leaves it in `s.address`.
#[inline(always)]
fn read_ipv4(s: *mut Scratch) -> bool {
    // SAFETY: fields of this run's slot.
    let (mut at, end) = unsafe { (load(&raw const (*s).name), &raw const (*s).next) };
    // Not an array: LLVM would turn "stack pointer + index" into an `or`, which the verifier refuses on pointers.
    let mut quad = 0u32;
    let mut k = 0u32;
    let mut value = 0u64;
    let mut digits = 0u64;
    for _ in 0..16 {
        at = launder(s, at) & MASK;
        let b = byte(s, at);
        if (b'0' as u64..=b'9' as u64).contains(&b) && at != load(end) {
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
                return at == load(end);
            }
            if b != b'.' as u64 {
                return false;
            }
        }
        at += 1;
    }
    false
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
