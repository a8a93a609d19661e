//! Working memory that does not fit on the 512-byte stack.
//!
//! A cgroup_skb program runs with preemption on: a softirq, or another task on the same CPU, may run the same program
//! in the middle of this run. So each run takes the next of eight slots, writes its own start time into it, and asks
//! at the end whether the slot is still its own. A run that lost its slot must not trust what it read from it: it
//! counts `CLOBBERED` and refuses when enforcing.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, macros::map, maps::PerCpuArray};
use trustrun_common::{Address, BoundName, DatagramKey, PATH_MAX, PayloadEvent, PendingKey};

use crate::{maps::GATHER_MAX, packet::Packet};

/// Payload bytes that are read at once, less one; a mask.
pub const MASK: u64 = 8191;

/// One run's working memory.
#[repr(C)]
pub struct Scratch {
    /// When the run began, which no two runs on one CPU share.
    pub token: u64,
    /// Which slot it is.
    pub slot: u64,
    /// 256 minus the length of the name in `reversed`.
    pub at: u64,
    /// Where a parser stands. Parser state lives in map memory and is read anew at each test: a register that was
    /// once compared with a precise one becomes precise itself, and then no two paths are ever equal to the verifier.
    pub offset: u64,
    /// Bytes of `payload`.
    pub length: u64,
    /// Records that an answer claims to hold.
    pub records: u64,
    /// [`trustrun_common::name_hash`] of the name in `reversed`.
    pub hash: u64,
    /// What a first payload is (`first::WHAT_*`), kept in memory so that all paths to the name meet in one state.
    pub what: u64,
    /// Where its name begins.
    pub name: u64,
    /// How long it is, or may be.
    pub limit: u64,
    /// Not 0 if it ends where text ends; 2 if a port and a space must follow (CONNECT).
    pub stops: u64,
    /// The port that it names.
    pub port: u64,
    /// How far the reading was before this payload (`STAGE_*`).
    pub stage: u64,
    /// 1 if the payload begins where its message begins.
    pub whole: u64,
    /// Where the name begins that an answer's next address must be about.
    pub owner: u64,
    /// Where the record or the request begins that is read.
    pub start: u64,
    /// Where the next record begins, or what follows a method or a name.
    pub next: u64,
    /// How many addresses an answer bound.
    pub bindings: u64,
    /// Sets of rules of a name: that at a private address in the high half.
    pub sets: u64,
    /// `NameValue::skip` of that name.
    pub skip: u64,
    /// Two names, to be compared.
    pub pair: [[u64; 32]; 2],
    /// For lookups.
    pub pending: PendingKey,
    /// For lookups.
    pub bound: BoundName,
    /// For lookups.
    pub peer: DatagramKey,
    /// The address judged.
    pub address: Address,
    /// What the packet's headers say.
    pub packet: Packet,
    /// The IP header.
    pub header: [u8; 40],
    /// A name, reversed: byte k of the name (from 1) is at 260 - k, so that loop indices stay constant. The four
    /// bytes before it become the LPM key's prefix length.
    pub reversed: [u8; 528],
    /// Directly before `payload`, so that both go out as one record.
    pub event: PayloadEvent,
    /// Gathered bytes and one read after them.
    pub payload: [u8; 2 * GATHER_MAX + PATH_MAX],
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SLOTS, 0);
#[map]
static TURN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
const SLOTS: u32 = 8;

/// Takes the next slot of this CPU.
#[inline(always)]
pub fn take() -> Option<*mut Scratch> {
    let turn = TURN.get_ptr_mut(0)?;
    // SAFETY: valid per-CPU pointers. Two runs may read the same turn; the token tells them apart.
    unsafe {
        let slot = *turn;
        *turn = slot.wrapping_add(1);
        let s = again(slot)?;
        write_volatile(&raw mut (*s).slot, slot);
        write_volatile(&raw mut (*s).token, bpf_ktime_get_boot_ns());
        Some(s)
    }
}

/// The slot that a caller took, in a function that the verifier looks at by itself: it is given numbers only.
#[inline(always)]
pub fn again(slot: u64) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(slot as u32 & (SLOTS - 1))
}

/// What [`again`] wants.
#[inline(always)]
pub fn slot(s: *mut Scratch) -> u64 {
    // SAFETY: `s` came from `take`.
    unsafe { read_volatile(&raw const (*s).slot) }
}

/// The run's start, nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub fn token(s: *mut Scratch) -> u64 {
    // SAFETY: `s` came from `take`.
    unsafe { read_volatile(&raw const (*s).token) }
}

/// Reads a field anew (see `Scratch::offset`).
#[inline(always)]
pub fn load(p: *const u64) -> u64 {
    // SAFETY: callers pass a field of a slot from `take`.
    unsafe { read_volatile(p) }
}

/// Writes a field that `load` reads.
#[inline(always)]
pub fn store(p: *mut u64, value: u64) {
    // SAFETY: as `load`.
    unsafe { write_volatile(p, value) }
}

/// Makes a value opaque to LLVM and to the verifier.
#[inline(always)]
pub fn launder(s: *mut Scratch, value: u64) -> u64 {
    // SAFETY: as `load`.
    unsafe {
        store(&raw mut (*s).offset, value);
        load(&raw const (*s).offset)
    }
}

/// Byte `offset` of the payload, masked into it.
#[inline(always)]
pub fn byte(s: *mut Scratch, offset: u64) -> u64 {
    // SAFETY: the mask keeps it inside `payload`.
    unsafe { *(&raw const (*s).payload).cast::<u8>().add((offset & MASK) as usize) as u64 }
}

/// Two bytes at `offset`, big endian.
#[inline(always)]
pub fn word(s: *mut Scratch, offset: u64) -> u64 {
    byte(s, offset) << 8 | byte(s, offset + 1)
}
