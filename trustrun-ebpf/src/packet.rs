//! Reading packets.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_skb_load_bytes, generated},
    programs::SkBuffContext,
};
use trustrun_common::Address;

use crate::{
    decide::{address, mapped},
    scratch::{MASK, Scratch, launder, store},
};

/// What the headers of a packet say.
#[repr(C)]
pub struct Packet {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Ports in host order; 0 for protocols without.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// IPPROTO (for IPv6 the first next header).
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// Where the payload begins.
    pub offset: u32,
    /// Bytes of payload.
    pub length: u32,
}

/// TCP flag SYN.
pub const SYN: u8 = 2;
/// TCP flag RST.
pub const RST: u8 = 4;
/// TCP flag ACK.
pub const ACK: u8 = 16;

/// What most packets are judged and counted by, read without a slot.
pub struct Peek {
    /// The other end: where an incoming packet comes from, and an outgoing one goes.
    pub peer: Address,
    /// As `Packet::source_port`.
    pub source_port: u16,
    /// As `Packet::destination_port`.
    pub destination_port: u16,
    /// IPPROTO (for IPv6 the first next header).
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// Bytes of payload.
    pub length: u32,
}

/// Bytes of an IPv4 header without options.
const V4: usize = 20;
/// Bytes of an IPv6 header.
const V6: usize = 40;
/// Bytes of a UDP header, and of what is read of any transport header at first.
const UDP: usize = 8;
/// Bytes of a TCP header without options.
const TCP: usize = 20;

/// Reads the headers of a packet where it lies, with no copy; as `read`, but for less. `OUT` says which end is the other
/// one.
#[inline(always)]
pub fn peek<const OUT: bool>(ctx: &SkBuffContext) -> Option<Peek> {
    // SAFETY: fields of the program's own context.
    let (start, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    let whole = |size: usize| start + size <= end;
    if !whole(V4 + UDP) {
        return peek_copy::<OUT>(ctx);
    }
    let p = start as *const u8;
    // SAFETY: each offset is below a size that `whole` has tested before; the verifier holds us to it.
    unsafe {
        if *p == 0x45 {
            if u16::from_be_bytes([*p.add(6), *p.add(7)]) & 0x3fff != 0 {
                return None;
            }
            let peer = mapped(p.add(if OUT { 16 } else { 12 }).cast::<u32>().read_unaligned());
            if *p.add(9) == 6 {
                return if whole(V4 + TCP) { Some(peeked(ctx, 6, peer, p, V4)) } else { peek_copy::<OUT>(ctx) };
            }
            return Some(peeked(ctx, *p.add(9), peer, p, V4));
        }
        if *p >> 4 == 6 && whole(V6 + UDP) {
            let peer = address(p.add(if OUT { 24 } else { 8 }).cast::<[u32; 4]>().read_unaligned());
            if *p.add(6) == 6 {
                return if whole(V6 + TCP) { Some(peeked(ctx, 6, peer, p, V6)) } else { peek_copy::<OUT>(ctx) };
            }
            return Some(peeked(ctx, *p.add(6), peer, p, V6));
        }
    }
    peek_copy::<OUT>(ctx)
}

/// What is to be known of a packet whose transport header lies at `at`.
///
/// # Safety
/// Behind `at`, 8 bytes are there, and 20 for TCP.
#[inline(always)]
unsafe fn peeked(ctx: &SkBuffContext, protocol: u8, peer: Address, p: *const u8, at: usize) -> Peek {
    let mut k = Peek { peer, source_port: 0, destination_port: 0, protocol, flags: 0, length: 0 };
    let mut offset = at as u32;
    // SAFETY: by contract.
    unsafe {
        let t = p.add(at);
        if protocol == 6 || protocol == 17 {
            k.source_port = u16::from_be_bytes([*t, *t.add(1)]);
            k.destination_port = u16::from_be_bytes([*t.add(2), *t.add(3)]);
        }
        if protocol == 6 {
            k.flags = *t.add(13);
            offset += ((*t.add(12) >> 4) as u32) * 4;
        } else if protocol == 17 {
            offset += UDP as u32;
        }
    }
    k.length = ctx.len().saturating_sub(offset);
    k
}

/// IPPROTO_ROUTING; also said of IPv4 packets that may have a source route.
pub const ROUTING: u8 = 43;
/// Extension headers of IPv6 that a routing header may stand behind: hop-by-hop and destination options.
const BEFORE_ROUTING: [u8; 2] = [0, 60];
/// Options of IPv4 (RFC 791 3.1): the end, a filler, a loose and a strict source route.
const END: u8 = 0;
const FILLER: u8 = 1;
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

/// Whether what was peeked at is to be asked with [`source_routed`].
#[inline(always)]
pub fn maybe_routed(protocol: u8) -> bool {
    protocol == ROUTING || protocol == BEFORE_ROUTING[0] || protocol == BEFORE_ROUTING[1]
}

/// Whether a packet goes to others before it goes where the program said: a source route of IPv4, a routing header of IPv6
/// of any type.
#[inline(always)]
pub fn source_routed(ctx: &SkBuffContext) -> bool {
    let Ok(first) = ctx.load::<u8>(0) else { return false };
    if first >> 4 == 4 {
        return first & 15 > 5 && source_route(ctx, ((first & 15) as usize) * 4);
    }
    let Ok(mut next) = ctx.load::<u8>(6) else { return false };
    let mut at = V6;
    for _ in 0..3 {
        if next == ROUTING {
            return true;
        }
        if !maybe_routed(next) {
            return false;
        }
        let Ok([following, size]) = ctx.load::<[u8; 2]>(at) else { return false };
        next = following;
        at += (size as usize + 1) * 8;
    }
    // So many headers say nothing of where it goes.
    true
}

/// Whether there may be a source route among the options of an IPv4 header: not where there is one option, and that is none.
#[inline(always)]
fn more_than_one_option(ctx: &SkBuffContext, end: usize) -> bool {
    let Ok([option, size]) = ctx.load::<[u8; 2]>(V4) else { return true };
    let alone = (size as usize + 3) & !3 == end - V4;
    option <= FILLER || option == LOOSE || option == STRICT || !alone
}

/// Most options that are walked: fillers are some, and nobody has as many.
const OPTIONS: u32 = 12;

/// Walks the options of an IPv4 header, which ends at `end`.
#[inline(always)]
fn source_route(ctx: &SkBuffContext, end: usize) -> bool {
    let mut at = V4;
    for _ in 0..OPTIONS {
        if at >= end {
            return false;
        }
        let Ok(option) = ctx.load::<u8>(at) else { return false };
        if option == LOOSE || option == STRICT {
            return true;
        }
        if option == END {
            return false;
        }
        at += 1;
        if option != FILLER {
            let Ok(size) = ctx.load::<u8>(at) else { return false };
            at += (size as usize).saturating_sub(1);
        }
    }
    // So many say nothing of where it goes.
    true
}

/// The same for a packet whose headers do not lie in one piece, or which has IP options.
#[inline(always)]
fn peek_copy<const OUT: bool>(ctx: &SkBuffContext) -> Option<Peek> {
    let h: [u8; V4] = ctx.load(0).ok()?;
    let (protocol, at, peer) = if h[0] >> 4 == 4 {
        if u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0 {
            return None;
        }
        let ip = if OUT { [h[16], h[17], h[18], h[19]] } else { [h[12], h[13], h[14], h[15]] };
        // With a source route its transport header says nothing of where it goes first.
        let routed = OUT && h[0] & 15 > 5 && more_than_one_option(ctx, ((h[0] & 15) as usize) * 4);
        (if routed { ROUTING } else { h[9] }, ((h[0] & 15) as usize) * 4, mapped(u32::from_ne_bytes(ip)))
    } else {
        let peer: [u32; 4] = ctx.load(if OUT { 24 } else { 8 }).ok()?;
        (h[6], V6, address(peer))
    };
    if protocol == 6 {
        let t: [u8; TCP] = ctx.load(at).ok()?;
        // SAFETY: the whole header is there.
        return Some(unsafe { counted(peeked(ctx, 6, peer, t.as_ptr(), 0), at) });
    }
    if protocol == 17 {
        let t: [u8; UDP] = ctx.load(at).ok()?;
        // SAFETY: as above.
        return Some(unsafe { counted(peeked(ctx, 17, peer, t.as_ptr(), 0), at) });
    }
    // SAFETY: nothing is read behind the IP header of another protocol.
    Some(unsafe { peeked(ctx, protocol, peer, h.as_ptr(), at) })
}

/// The same, `at` bytes into the packet.
#[inline(always)]
fn counted(mut p: Peek, at: usize) -> Peek {
    p.length = p.length.saturating_sub(at as u32);
    p
}

/// Reads the IP and transport headers into the slot. None if they are not whole; a fragment behind the first counts as
/// such, since locally made packets are not fragmented yet here.
#[inline(always)]
pub fn read(ctx: &SkBuffContext, s: *mut Scratch) -> Option<&'static Packet> {
    let h = load_header(ctx, s, 0, 20)?;
    // SAFETY: `h` points at the 40 bytes of `header`; every offset below is constant and inside. `s` is this run's
    // slot, which lives as long as the program does.
    unsafe {
        let p = &mut (*s).packet;
        if *h >> 4 == 4 {
            if u16::from_be_bytes([*h.add(6), *h.add(7)]) & 0x3fff != 0 {
                return None;
            }
            p.source = mapped(h.add(12).cast::<u32>().read_unaligned());
            p.destination = mapped(h.add(16).cast::<u32>().read_unaligned());
            p.protocol = *h.add(9);
            p.offset = ((*h & 15) as u32) * 4;
        } else {
            let h = load_header(ctx, s, 0, 40)?;
            p.source = address(h.add(8).cast::<[u32; 4]>().read_unaligned());
            p.destination = address(h.add(24).cast::<[u32; 4]>().read_unaligned());
            p.protocol = *h.add(6);
            p.offset = 40;
        }
        p.source_port = 0;
        p.destination_port = 0;
        p.flags = 0;
        if p.protocol == 6 || p.protocol == 17 {
            let t = load_header(ctx, s, p.offset, 8)?;
            p.source_port = u16::from_be_bytes([*t, *t.add(1)]);
            p.destination_port = u16::from_be_bytes([*t.add(2), *t.add(3)]);
            if p.protocol == 6 {
                p.sequence = u32::from_be_bytes([*t.add(4), *t.add(5), *t.add(6), *t.add(7)]);
                let t = load_header(ctx, s, p.offset + 8, 8)?;
                p.flags = *t.add(5);
                p.offset += ((*t.add(4) >> 4) as u32) * 4;
            } else {
                p.offset += 8;
            }
        }
        let total = ctx.len();
        p.length = total.saturating_sub(p.offset);
        Some(p)
    }
}

/// Loads `length` bytes at `offset` into `header` (at most 40).
#[inline(always)]
fn load_header(ctx: &SkBuffContext, s: *mut Scratch, offset: u32, length: u32) -> Option<*const u8> {
    // SAFETY: `header` holds 40 bytes and callers ask for at most that, by constants.
    unsafe {
        let h = (&raw mut (*s).header).cast::<u8>();
        (bpf_skb_load_bytes(ctx.as_ptr(), offset, h.cast(), length) == 0).then_some(h.cast_const())
    }
}

/// Whether the payload begins with a TLS ChangeCipherSpec record.
#[inline(always)]
pub fn starts_with_change_cipher_spec(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet) -> bool {
    if p.length < 6 {
        return false;
    }
    let Some(h) = load_header(ctx, s, p.offset, 6) else { return false };
    // SAFETY: six bytes were loaded.
    unsafe { *h == 0x14 && *h.add(1) == 3 && *h.add(4) == 1 && *h.add(5) == 1 }
}

/// Whether the payload begins with a TLS record that holds exactly one ClientHello: what an encrypted handshake record
/// does by chance once in 2^32.
#[inline(always)]
pub fn starts_with_whole_hello(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet) -> bool {
    if p.length < 9 {
        return false;
    }
    let Some(h) = load_header(ctx, s, p.offset, 9) else { return false };
    // SAFETY: nine bytes were loaded.
    unsafe {
        let record = u16::from_be_bytes([*h.add(3), *h.add(4)]) as u32;
        let message = u32::from_be_bytes([0, *h.add(6), *h.add(7), *h.add(8)]);
        *h == 0x16 && *h.add(5) == 1 && message + 4 == record
    }
}

/// Loads the payload to `payload[at..]`, `at` at most `MASK`; its length there, at most `MASK`.
#[inline(always)]
pub fn payload(ctx: &SkBuffContext, s: *mut Scratch, p: &Packet, at: u64) -> u64 {
    if p.length == 0 {
        return 0;
    }
    let mut n = p.length as u64;
    if n > MASK {
        n = MASK;
    }
    // 1..=MASK + 1 by arithmetic: 6.1 does not learn "not 0" from a test, and calls the read zero-sized.
    let n = (launder(s, n - 1) & MASK) + 1;
    let at = launder(s, at) & MASK;
    // SAFETY: at + n <= 2 * 8192 - 1 < the length of `payload`.
    unsafe {
        let to = (&raw mut (*s).payload).cast::<u8>().add(at as usize);
        if bpf_skb_load_bytes(ctx.as_ptr(), p.offset, to.cast(), n as u32) != 0 {
            return 0;
        }
        store(&raw mut (*s).length, at + n);
    }
    n
}

/// The cookie of the packet's socket; 0 if it has none.
#[inline(always)]
pub fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the context is the program's own.
    unsafe { generated::bpf_get_socket_cookie(ctx.as_ptr()) }
}
