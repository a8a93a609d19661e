//! Names: lower case, reversed, and looked up in the policy.

use core::ptr::write_volatile;

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, maps::lpm_trie::Key};
use trustrun_common::{ACTION_BLOCK, ACTION_NONE, Address, FNV_OFFSET, FNV_PRIME, NAME_KEY, SEARCH_MOST, ask_key};

use crate::{
    decide,
    maps::{NAMES, PORTS, PRIVATE, SEARCH, SEARCH_LIST},
    scratch::{MASK, Scratch, again, byte, load, slot, store},
};

/// ASCII lower case without a branch.
#[inline(always)]
pub fn lower(b: u8) -> u8 {
    let d = (b as u32).wrapping_sub(b'A' as u32);
    let upper = (d.wrapping_sub(26) >> 31) & (!d >> 31);
    b | ((upper as u8) << 5)
}

/// The name in `reversed` as a key; `s.at` says where it begins. None if that is out of bounds, which callers
/// exclude.
#[inline(always)]
fn key(s: *mut Scratch) -> Option<&'static Key<[u8; NAME_KEY]>> {
    // SAFETY: `at` is tested against 256, and reversed is 528 bytes long: 256 + 4 + 256 fits.
    unsafe {
        (*s).reversed[260] = 0;
        // `at` is 256 - length, stored and read back, so that (a) the verifier forgets the loop's constant and (b)
        // LLVM cannot turn reversed + (256 - n) into (reversed - n) + 256, which the verifier calls unbounded.
        let at = load(&raw const (*s).at) as usize;
        if at > 256 {
            return None;
        }
        let p = (&raw mut (*s).reversed).cast::<u8>().add(at);
        let bits = (257 - at as u32) * 8;
        write_volatile(p, bits as u8);
        write_volatile(p.add(1), (bits >> 8) as u8);
        write_volatile(p.add(2), 0);
        write_volatile(p.add(3), 0);
        Some(&*p.cast())
    }
}

/// The policy's rules for a name.
#[derive(Clone, Copy)]
pub struct Rules {
    /// As in `NameValue`.
    pub set: u32,
    /// As in `NameValue`.
    pub private: u32,
    /// As in `NameValue`.
    pub skip: u32,
    /// What becomes of a lookup: `ACTION_*`, never none.
    pub ask: u8,
}

/// The policy's rules for the name in `reversed`, for a process of a class.
#[inline(always)]
pub fn rules(s: *mut Scratch, class: u8) -> Option<Rules> {
    let ask = names_rules(slot(s), class as u64) as u8;
    if ask == ACTION_NONE {
        return None;
    }
    // SAFETY: fields of this run's slot.
    let (sets, skip) = unsafe { (load(&raw const (*s).sets), load(&raw const (*s).skip)) };
    Some(Rules { set: sets as u32, private: (sets >> 32) as u32, skip: skip as u32, ask })
}

/// [`rules`]: leaves the sets in `sets` (that at a private address in the high half) and `skip`, and gives what becomes of
/// a lookup; none where no rule matches.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn names_rules(slot: u64, class: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    let Some(v) = key(s).and_then(|key| NAMES.get(key)) else { return 0 };
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).sets, (v.private as u64) << 32 | v.set as u64);
        store(&raw mut (*s).skip, v.skip as u64);
    }
    if v.ask != ACTION_NONE {
        return v.ask as u64;
    }
    let key = ask_key(decide::place(v.set, class as u32 & 255));
    // What the loader did not fill in is refused.
    PORTS.get(&Key::new(64, key)).map_or(ACTION_BLOCK, |v| v.action) as u64
}

/// Whether an address is private, so that a name's other set counts.
#[inline(always)]
pub fn private(address: &Address) -> bool {
    PRIVATE.get(&Key::new(128, *address)).is_some()
}

/// If the name in `reversed` ends with an entry of the search list, shortens it to what came before it: byte k stays
/// at 260 - k whatever the length, so only `at` changes. True if it was shortened.
#[inline(always)]
pub fn strip_search(s: *mut Scratch) -> bool {
    let Some(key) = key(s) else { return false };
    let Some(suffix) = SEARCH.get(key) else { return false };
    // SAFETY: `s` is a slot.
    unsafe {
        let at = load(&raw const (*s).at) + *suffix as u64 + 1;
        if at >= 256 {
            return false;
        }
        store(&raw mut (*s).at, at);
    }
    true
}

/// After `strip_search`: whether what is left may be asked for with some domain of the search list behind it. Who asks
/// for `db.other` with the list `ns.svc.cluster.local svc.cluster.local` looks it up below the first one first.
#[inline(always)]
pub fn sibling(s: *mut Scratch, class: u8) -> bool {
    // SAFETY: fields of this run's slot; `at` is tested, and `reversed` is longer than 256 + 4 + 255.
    unsafe {
        store(&raw mut (*s).start, load(&raw const (*s).at));
        for i in 0..SEARCH_MOST {
            let Some(domain) = SEARCH_LIST.get(i) else { return false };
            let size = domain.length as u64;
            let at = load(&raw const (*s).start).wrapping_sub(size);
            if size == 0 || size > 255 || at > 256 {
                continue; // none, or longer than a name can be
            }
            let to = (&raw mut (*s).reversed).cast::<u8>().add(at as usize + 4);
            if bpf_probe_read_kernel(to.cast(), (size & 255) as u32, (&raw const domain.name).cast()) != 0 {
                return false;
            }
            store(&raw mut (*s).at, at);
            if let Some(v) = rules(s, class)
                && v.ask < ACTION_BLOCK
            {
                return true;
            }
        }
    }
    false
}

/// Reads the QNAME at byte 12 of the payload: leaves it in `reversed` with `at` and `hash`, and the offset after it
/// in `offset`. False for compression (never in a question we believe), an empty name, a dot or NUL inside a label.
#[inline(always)]
pub fn question(s: *mut Scratch) -> bool {
    names_question(slot(s)) != 0
}

/// [`question`], looked at by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn names_question(slot: u64) -> u64 {
    again(slot).is_some_and(read_question) as u64
}

#[inline(always)]
fn read_question(s: *mut Scratch) -> bool {
    let mut left: u32 = 0;
    let mut hash = FNV_OFFSET;
    for k in 0..256usize {
        // SAFETY: constant indices inside the arrays.
        unsafe {
            if (12 + k) as u64 >= load(&raw const (*s).length) {
                return false;
            }
            let b = (*s).payload[12 + k];
            let c;
            if left == 0 {
                if b == 0 {
                    store(&raw mut (*s).at, (257 - k) as u64);
                    store(&raw mut (*s).offset, (12 + k + 1) as u64);
                    store(&raw mut (*s).hash, hash);
                    return k != 0;
                }
                if b > 63 {
                    return false;
                }
                left = b as u32;
                c = b'.';
            } else {
                left -= 1;
                if b == b'.' || b == 0 {
                    return false;
                }
                c = lower(b);
            }
            (*s).reversed[260 - k] = c;
            if k != 0 {
                hash = (hash ^ c as u64).wrapping_mul(FNV_PRIME);
            }
        }
    }
    false
}

/// Reads the name at `s.name` of the payload: `s.limit` bytes, or with `s.stops` up to a `:`, `/`, space or control
/// character before that. Leaves it in `reversed` with `at` and `hash`, without a dot at its end, and the offset after it in `offset`. Gives its
/// length, 0 if there is none that could be a host name.
#[inline(always)]
pub fn text(s: *mut Scratch) -> u64 {
    let size = names_text(slot(s));
    if size == 0 || names_plain(slot(s), size) == 0 {
        return 0;
    }
    if letter_at_end(s) != b'.' {
        return size;
    }
    // The root's dot makes no other name of it; a second one, or one alone, is no name.
    // SAFETY: fields of this run's slot.
    unsafe {
        store(&raw mut (*s).at, load(&raw const (*s).at) + 1);
        store(&raw mut (*s).hash, load(&raw const (*s).hash).wrapping_mul(FNV_INVERSE) ^ b'.' as u64);
    }
    if size == 1 || letter_at_end(s) == b'.' { 0 } else { size }
}

/// The letters of [`text`], looked at by themselves.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn names_text(slot: u64) -> u64 {
    again(slot).map_or(0, read_text)
}

/// Undoes a multiplication by `FNV_PRIME` (modulo 2^64).
const FNV_INVERSE: u64 = 0xce96_5057_aff6_957b;
const _: () = assert!(FNV_PRIME.wrapping_mul(FNV_INVERSE) == 1);

/// The last letter of the name in `reversed`.
#[inline(always)]
fn letter_at_end(s: *mut Scratch) -> u8 {
    // SAFETY: masked to less than the array's 528 bytes.
    unsafe {
        let at = (load(&raw const (*s).at) + 4) & 511;
        *(&raw const (*s).reversed).cast::<u8>().add(at as usize)
    }
}

/// Whether the name in `reversed` has host names' letters only: digits, `-`, `.`, letters, `_`. One that has others
/// (`evil.test?.good.test`, `user@`) is read in different ways by different programs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn names_plain(slot: u64, size: u64) -> u64 {
    again(slot).is_some_and(|s| read_plain(s, size)) as u64
}

#[inline(always)]
fn read_plain(s: *mut Scratch, size: u64) -> bool {
    // SAFETY: `at` is masked, so that 255 bytes behind it are in `reversed`; one of the pair is 256 bytes long.
    unsafe {
        for i in 0..32 {
            store(&raw mut (*s).pair[0][i], 0);
        }
        let from = (&raw const (*s).reversed).cast::<u8>().add((load(&raw const (*s).at) & 255) as usize + 4);
        let to = (&raw mut (*s).pair[0]).cast();
        if bpf_probe_read_kernel(to, (size & 255) as u32, from.cast()) != 0 {
            return false;
        }
        let mut all = EACH << 7;
        for i in 0..32 {
            all &= plain(load(&raw const (*s).pair[0][i]));
        }
        all == EACH << 7
    }
}

/// One in each of eight octets.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each of eight octets that is a host name's letter in lower case, or 0. `/` is none, but ends names
/// before.
#[inline(always)]
fn plain(x: u64) -> u64 {
    let low = x & (0x7f * EACH);
    let from = |b: u64| low + (0x80 - b) * EACH;
    let within = |first: u8, last: u8| from(first as u64) & !from(last as u64 + 1);
    let none = !from(1);
    (none | within(b'-', b'9') | within(b'_', b'_') | within(b'a', b'z')) & !x & (EACH << 7)
}

#[inline(always)]
fn read_text(s: *mut Scratch) -> u64 {
    // SAFETY: the base is masked and the index below 254, and payload is longer than MASK + 256.
    unsafe {
        let base = (load(&raw const (*s).name) & MASK) as usize;
        let mut hash = FNV_OFFSET;
        for i in 0..254usize {
            let b = *(&raw const (*s).payload).cast::<u8>().add(base + i);
            let stop = b <= b' ' || b == b':' || b == b'/';
            if i as u64 >= load(&raw const (*s).limit) || (stop && load(&raw const (*s).stops) != 0) {
                store(&raw mut (*s).at, (256 - i) as u64);
                store(&raw mut (*s).hash, hash);
                store(&raw mut (*s).offset, (base + i) as u64);
                return i as u64;
            }
            if stop {
                return 0;
            }
            let c = lower(b);
            (*s).reversed[259 - i] = c;
            hash = (hash ^ c as u64).wrapping_mul(FNV_PRIME);
        }
    }
    0
}

/// Reads up to five decimal digits at `offset`; 0 where there are none or it is no port. Leaves the offset of what
/// ended them in `offset`.
#[inline(always)]
pub fn port(s: *mut Scratch, offset: u64) -> u16 {
    let mut port = 0u64;
    for i in 0..6u64 {
        let b = byte(s, offset + i);
        // SAFETY: a field of this run's slot.
        unsafe { store(&raw mut (*s).offset, offset + i) }
        if !(b'0' as u64..=b'9' as u64).contains(&b) {
            break;
        }
        port = port * 10 + (b - b'0' as u64);
    }
    if port > 65535 { 0 } else { port as u16 }
}
