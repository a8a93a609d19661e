//! DNS over UDP: which lookups may leave, and which answers are believed.
//!
//! An answer is believed only if it answers a query that this target sent (same socket, id, name, server address and
//! port) to a resolver that the target is configured with. What a wrong id, another question, a truncated message or
//! a looping name may do is: bind nothing.

use aya_ebpf::{
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel},
    programs::SkBuffContext,
};
use trustrun_common::{
    ACTION_ALLOW, ACTION_BLOCK, ACTION_NONE, Address, Binding, Config, FLAG_ENFORCED, FLAG_OUTGOING, FLAG_RESOLVER,
    PendingKey, PendingValue, SocketState, Tuple, counter, kind, reason,
};

use crate::{
    decide::{NO_RULE, mapped, resolver},
    emit,
    maps::{BINDINGS, BOUND_NAMES, PENDING, config, count, enforcing},
    names,
    packet::{self, Packet},
    scratch::{MASK, Scratch, again, byte, launder, load, slot, store, word},
};

/// Most records of an answer that are read.
const RECORDS: u64 = 32;
/// Fewest bytes of a record: the root as owner, type, class, TTL and length (RFC 1035 4.1.3).
const RECORD_MIN: u64 = 11;
/// Where the question's name is: behind the header.
const QUESTION: u64 = 12;
/// The type of an alias.
const CNAME: u64 = 5;
/// Most labels of a record's owner.
const LABELS: u32 = 34;
/// Most bytes of a message that matter to us; longer ones are not believed.
const MESSAGE_MAX: u32 = 8000;

/// What a query gets.
struct Asked {
    action: u8,
    reason: u8,
    set: u32,
    private: u32,
    skip: u32,
    bind: bool,
}

/// Judges the question in the scratch payload.
#[inline(always)]
fn judge(s: *mut Scratch, class: u8, config: &Config) -> Asked {
    let default = config.default_action as u8;
    // One question, opcode QUERY, not a response.
    if byte(s, 2) & 0xf8 != 0 || word(s, 4) != 1 || !names::question(s) {
        return Asked { action: ACTION_BLOCK, reason: reason::MALFORMED, set: 0, private: 0, skip: 0, bind: false };
    }
    let (action, set, private, skip) = match names::rules(s, class) {
        Some(v) => (v.ask, v.set, v.private, v.skip),
        None => (default, 0, 0, 0),
    };
    let reason = if set == 0 { reason::DEFAULT } else { reason::RULE };
    if action < ACTION_BLOCK {
        return Asked { action, reason, set, private, skip, bind: true };
    }
    // A search-list expansion of an allowed name may be asked, but is never bound: refusing it would make glibc give
    // up before it asks for the name itself.
    if names::strip_search(s) {
        if let Some(v) = names::rules(s, class)
            && v.ask < ACTION_BLOCK
        {
            return Asked { action: v.ask, reason: reason::RULE, set: 0, private: 0, skip: 0, bind: false };
        }
        if names::sibling(s, class) {
            return Asked { action: ACTION_ALLOW, reason: reason::RULE, set: 0, private: 0, skip: 0, bind: false };
        }
    }
    // Refused; or only watched, and then its addresses are known by its name like any other.
    let bind = !enforcing(config);
    Asked { action, reason, set, private, skip, bind }
}

/// A DNS query on its way to a resolver; whether it may go.
#[inline(always)]
pub fn query(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, st: &SocketState, cookie: u64, config: &Config) -> bool {
    let n = packet::payload(ctx, s, p, 0);
    let mut asked = Asked { action: ACTION_BLOCK, reason: reason::MALFORMED, set: 0, private: 0, skip: 0, bind: false };
    if n > 12 && p.length < MESSAGE_MAX {
        asked = judge(s, st.class, config);
    }
    let refused = asked.action >= ACTION_BLOCK && enforcing(config);
    // The server as the program addressed it, which is what its answers seem to come from; it differs from the packet
    // where the address was rewritten on the way (a container's resolver).
    let rewritten = !resolver(&p.destination, p.destination_port);
    let (server, port) = if rewritten { (st.peer, st.port) } else { (p.destination, p.destination_port) };
    if !refused {
        let id = word(s, 0) as u16;
        // SAFETY: `s` is this run's slot.
        unsafe {
            (*s).pending = PendingKey { cookie, server, port, id, pad: 0 };
            let (name, bind) = (load(&raw const (*s).hash), asked.bind as u32);
            let value = PendingValue { name, set: asked.set, private: asked.private, bind, skip: asked.skip };
            let _ = PENDING.insert(&(*s).pending, &value, 0);
        }
    }
    let flags = FLAG_OUTGOING | FLAG_RESOLVER | if refused { FLAG_ENFORCED } else { 0 };
    let t = tuple(st, server, port, p.source, p.source_port, &asked);
    emit::payload(s, emit::header(kind::QUERY, flags, emit::owner_of(st), cookie), t, 0, n, 0);
    !refused
}

/// The tuple of a DNS record.
#[inline(always)]
fn tuple(st: &SocketState, peer: Address, peer_port: u16, local: Address, local_port: u16, asked: &Asked) -> Tuple {
    Tuple {
        local,
        peer,
        sequence: st.sequence,
        rule: NO_RULE,
        local_port,
        peer_port,
        protocol: 17,
        direction: 0,
        action: asked.action,
        reason: asked.reason,
    }
}

/// A DNS answer on its way in, before the application sees it: binds its addresses if it is believed.
#[inline(always)]
pub fn answer(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, st: &SocketState, cookie: u64) {
    let n = packet::payload(ctx, s, p, 0);
    if n <= 12 || p.length >= MESSAGE_MAX {
        count(counter::UNBELIEVED);
        return;
    }
    let mut flags = 0;
    let mut bound = 0;
    match believed(s, p, cookie) {
        Some(v) => {
            flags |= FLAG_RESOLVER;
            // NOERROR, not truncated.
            if v.bind != 0 && byte(s, 3) & 0x0f == 0 && byte(s, 2) & 2 == 0 {
                bound = records(s, &v);
            }
        }
        None => count(counter::UNBELIEVED),
    }
    let asked = Asked { action: ACTION_NONE, reason: reason::RESOLVER, set: 0, private: 0, skip: 0, bind: false };
    let t = tuple(st, p.source, p.source_port, p.destination, p.destination_port, &asked);
    emit::payload(s, emit::header(kind::ANSWER, flags, emit::owner_of(st), cookie), t, 0, n, bound);
}

/// The query that this answers, taken out of `PENDING`.
#[inline(always)]
fn believed(s: *mut Scratch, p: &Packet, cookie: u64) -> Option<PendingValue> {
    if byte(s, 2) & 0xf8 != 0x80 || word(s, 4) != 1 {
        return None;
    }
    let id = word(s, 0) as u16;
    // SAFETY: `s` is this run's slot; the value is copied before it is removed.
    let v = unsafe {
        (*s).pending = PendingKey { cookie, server: p.source, port: p.source_port, id, pad: 0 };
        *PENDING.get(&(*s).pending)?
    };
    // SAFETY: as above.
    unsafe {
        if !names::question(s) || load(&raw const (*s).hash) != v.name {
            return None;
        }
        let _ = PENDING.remove(&(*s).pending);
    }
    Some(v)
}

/// Walks the answer section from `s.offset` (after the QNAME) and binds every address of the name that was asked, or of
/// what it is an alias of (RFC 1034 3.6.2: aliases come in order); how many.
#[inline(always)]
fn records(s: *mut Scratch, asked: &PendingValue) -> u32 {
    // SAFETY: fields of this run's slot.
    let (length, left) = unsafe { (&raw const (*s).length, &raw const (*s).records) };
    // SAFETY: as above.
    unsafe {
        store(&raw mut (*s).records, word(s, 6));
        store(&raw mut (*s).owner, QUESTION);
        store(&raw mut (*s).bindings, 0);
        let o = load(&raw const (*s).offset) + 4; // past QTYPE and QCLASS
        store(&raw mut (*s).next, o);
        // Of class IN, and not more records than there is room for.
        if word(s, o - 2) != 1 || load(left) * RECORD_MIN > load(length) {
            return 0;
        }
    }
    let slot = slot(s);
    let sets = (asked.private as u64) << 32 | asked.set as u64;
    let skip = asked.skip as u64;
    let mut whole = true;
    for i in 0..RECORDS {
        if i >= load(left) || dns_record(slot, sets, asked.name, skip) == 0 {
            whole = false;
            break;
        }
    }
    if whole && RECORDS < load(left) {
        count(counter::RECORDS_CUT);
    }
    // SAFETY: as above.
    unsafe { load(&raw const (*s).bindings) as u32 }
}

/// Reads the record at `s.next` and binds what it says to a name, whose sets of rules are that at a public address (low
/// half) and at a private one (high half); 0 if it could not be read. The verifier looks at it by itself,
/// once, instead of for each of the records.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_record(slot: u64, sets: u64, name: u64, skip: u64) -> u64 {
    let (Some(s), Some(config)) = (again(slot), config()) else { return 0 };
    record(s, sets, name, skip as u16, config) as u64
}

#[inline(always)]
fn record(s: *mut Scratch, sets: u64, name: u64, skip: u16, config: &Config) -> bool {
    // SAFETY: fields of this run's slot, in all blocks of this function.
    let length = unsafe { &raw const (*s).length };
    // SAFETY: as above.
    let mut o = unsafe { load(&raw const (*s).next) };
    // SAFETY: as above.
    unsafe { store(&raw mut (*s).start, o) }
    let mut owned = false;
    for _ in 0..LABELS {
        o = launder(s, o) & MASK; // the same range on every path, so that states merge
        if o + 12 > load(length) {
            return false;
        }
        let b = byte(s, o);
        if b >= 0xc0 {
            o += 2;
            owned = true;
            break;
        }
        if b == 0 {
            o += 1;
            owned = true;
            break;
        }
        if b > 63 {
            return false;
        }
        o += 1 + b;
    }
    if !owned {
        return false;
    }
    o = launder(s, o) & MASK;
    if o + 10 > load(length) {
        return false;
    }
    let about = is_owner(s, o);
    let (kind, class, size) = (word(s, o), word(s, o + 2), word(s, o + 8));
    let ttl = word(s, o + 4) << 16 | word(s, o + 6);
    o += 10;
    if o + size > load(length) {
        return false;
    }
    if about && class == 1 && kind == CNAME {
        // SAFETY: as above.
        unsafe { store(&raw mut (*s).owner, o) }
    }
    if about && class == 1 && ((kind == 1 && size == 4) || (kind == 28 && size == 16)) {
        read_address(s, o, kind == 1);
        if bind(s, (sets, skip), name, ttl, config) {
            // SAFETY: as above.
            unsafe { store(&raw mut (*s).bindings, load(&raw const (*s).bindings) + 1) }
        }
    }
    // SAFETY: as above.
    unsafe { store(&raw mut (*s).next, o + size) }
    true
}

/// Whether the record's owner, from `s.start` to `end`, is the name at `s.owner`: a pointer to it, or written alike.
#[inline(always)]
fn is_owner(s: *mut Scratch, end: u64) -> bool {
    // SAFETY: fields of this run's slot.
    unsafe {
        let (start, owner) = (load(&raw const (*s).start), load(&raw const (*s).owner));
        if word(s, start) == 0xc000 | owner {
            return true;
        }
        let size = end.wrapping_sub(start);
        if size > 255 {
            return false;
        }
        for i in 0..32 {
            store(&raw mut (*s).pair[0][i], 0);
            store(&raw mut (*s).pair[1][i], 0);
        }
        if !copy(s, 0, start, size) || !copy(s, 1, owner, size) {
            return false;
        }
        let mut difference = 0;
        for i in 0..32 {
            difference |= fold(load(&raw const (*s).pair[0][i])) ^ fold(load(&raw const (*s).pair[1][i]));
        }
        difference == 0
    }
}

/// Copies at most 255 bytes of the payload to one of the pair.
#[inline(always)]
fn copy(s: *mut Scratch, which: usize, offset: u64, size: u64) -> bool {
    // SAFETY: the offset is masked and `payload` longer than MASK + 255; one of the pair is 256 bytes long.
    unsafe {
        let from = (&raw const (*s).payload).cast::<u8>().add((offset & MASK) as usize);
        let to = (&raw mut (*s).pair[which]).cast();
        bpf_probe_read_kernel(to, (size & 255) as u32, from.cast()) == 0
    }
}

/// Eight letters in ASCII lower case.
#[inline(always)]
fn fold(x: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = x & (0x7f * EACH);
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let past_z = low + (0x7f - b'Z' as u64) * EACH;
    let upper = from_a & !past_z & !x & (0x80 * EACH);
    x | upper >> 2
}

/// Copies an address from the payload to `s.address`.
#[inline(always)]
fn read_address(s: *mut Scratch, offset: u64, v4: bool) {
    // SAFETY: the offset is masked, and `payload` is longer than MASK + 16.
    unsafe {
        let q = (&raw const (*s).payload).cast::<u8>().add((offset & MASK) as usize);
        (*s).address = if v4 { mapped(q.cast::<u32>().read_unaligned()) } else { q.cast::<Address>().read_unaligned() };
    }
}

/// Binds `s.address` to a name for its TTL, at least the grace.
#[inline(always)]
fn bind(s: *mut Scratch, (sets, skip): (u64, u16), name: u64, ttl: u64, config: &Config) -> bool {
    // SAFETY: `s` is this run's slot; the helper has no preconditions.
    unsafe {
        let mut life = ttl * 1_000_000_000;
        // Of 2^31 and more counts as none (RFC 2181 8).
        if ttl > i32::MAX as u64 || life < config.dns_grace {
            life = config.dns_grace;
        }
        let now = bpf_ktime_get_boot_ns();
        let expires = now + life;
        (*s).bound.address = (*s).address;
        (*s).bound.name = name;
        let mut set = sets as u32;
        if (sets >> 32) as u32 != set && names::private(&(*s).address) {
            set = (sets >> 32) as u32;
        }
        if !bind_set(&(*s).address, (set, skip), now, expires) || BOUND_NAMES.insert(&(*s).bound, &expires, 0).is_err()
        {
            count(counter::BINDINGS_FULL);
            return false;
        }
    }
    true
}

/// Adds a set of rules to an address, in the slot that holds it already, an empty or an expired one.
#[inline(always)]
fn bind_set(address: &Address, (set, skip): (u32, u16), now: u64, expires: u64) -> bool {
    let Some(b) = BINDINGS.get_ptr_mut(address) else {
        let mut b = Binding { sets: [0; 8], skips: [0; 8], expires: [0; 8] };
        b.sets[0] = set;
        b.skips[0] = skip;
        b.expires[0] = expires;
        return BINDINGS.insert(address, &b, 0).is_ok();
    };
    // SAFETY: a live map value; constant indices. Another CPU may bind the same address now: then one of two
    // believed bindings may be lost, and the program asks again, but none is invented.
    unsafe {
        for i in 0..8usize {
            let e = (*b).expires[i];
            let same = (*b).sets[i] == set && (*b).skips[i] == skip;
            if e == 0 || e < now || same {
                if e < expires || !same {
                    (*b).sets[i] = set;
                    (*b).skips[i] = skip;
                    (*b).expires[i] = expires;
                }
                return true;
            }
        }
    }
    false
}
