//! Whom a payload names, on one path for TLS, HTTP and SOCKS: a name, or an address that is written as text.

use super::read::{ADDRESS, HTTP, OPAQUE, PART, SNI, SOCKS, UNREADABLE, found, length, set_port};
use crate::{
    decide, names,
    scratch::{MASK, Scratch, again, byte, launder, load, slot, store},
};

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
        if load(&raw const (*s).what) <= OPAQUE {
            return;
        }
        if ipv4(s) {
            found(s, ADDRESS);
        } else if number(s) {
            // An address to some programs (inet_aton(3): `127.1`, `0x7f.1`, `010.0.0.1`) and a name to others.
            found(s, OPAQUE);
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
            // With a zero before it, it is octal to some.
            if digits == 3 || (digits != 0 && value == 0) {
                return false;
            }
            value = value * 10 + (b - b'0' as u64);
            digits += 1;
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

/// [`read_number`].
#[inline(always)]
fn number(s: *mut Scratch) -> bool {
    first_number(slot(s)) != 0
}

/// [`read_number`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_number(slot: u64) -> u64 {
    again(slot).is_some_and(read_number) as u64
}

/// How much of a label is read: what is as long, and a number as far as that, is none of a host's names.
const LABEL: u32 = 24;
/// What a label has besides digits: letters of hexadecimal numbers, an `x`, others.
const HEX: u64 = 1;
const X: u64 = 2;
const OTHER: u64 = 4;

/// Whether the last label of the name is a number, also a hexadecimal one (WHATWG URL, "ends in a number"). Read backwards,
/// with its state in memory.
#[inline(always)]
fn read_number(s: *mut Scratch) -> bool {
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).records, 0);
        let mut end = load(&raw const (*s).next);
        if byte(s, end.wrapping_sub(1)) == b'.' as u64 {
            end = end.wrapping_sub(1);
        }
        store(&raw mut (*s).owner, end);
        for _ in 0..LABEL {
            let at = load(&raw const (*s).owner).wrapping_sub(1);
            let b = byte(s, at);
            if b == b'.' as u64 || load(&raw const (*s).owner) <= load(&raw const (*s).name) {
                break;
            }
            let letter = b | 0x20;
            let mut has = OTHER;
            if b >= b'0' as u64 && b <= b'9' as u64 {
                has = 0;
            } else if letter >= b'a' as u64 && letter <= b'f' as u64 {
                has = HEX;
            } else if letter == b'x' as u64 {
                has = X;
            }
            store(&raw mut (*s).records, load(&raw const (*s).records) | has);
            store(&raw mut (*s).owner, at);
        }
        let (begin, has) = (load(&raw const (*s).owner), load(&raw const (*s).records));
        let long = end.wrapping_sub(begin) >= LABEL as u64;
        let hex = byte(s, begin) == b'0' as u64 && byte(s, begin + 1) | 0x20 == b'x' as u64;
        has == 0 || (has & OTHER == 0 && has & X != 0 && (long || hex))
    }
}
