//! To the agent. Every record that is made is counted, and every record that the ring had no room for.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns},
};
use trustrun_common::{
    Address, Config, FLAG_CLASS_SHIFT, FLAG_ENFORCED, FlowEvent, Header, PAYLOAD_MAX, PayloadEvent, SocketState, Tuple,
    counter, kind,
};

use crate::{
    maps::{EVENTS, TASKS, count},
    scratch::{Scratch, launder},
};

/// Who runs now.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Thread group.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Real user.
    pub uid: u32,
    /// Its class.
    pub class: u8,
}

/// No process is known.
pub const NOBODY: Owner = Owner { tgid: 0, tid: 0, uid: 0, class: 0 };

/// The current task. Only in hooks that run in its context (6.1 refuses the helper in packet hooks).
#[inline(always)]
pub fn owner() -> Owner {
    let id = bpf_get_current_pid_tgid();
    Owner { tgid: (id >> 32) as u32, tid: id as u32, uid: bpf_get_current_uid_gid() as u32, class: 0 }
}

/// The current task with its class.
#[inline(always)]
pub fn classified(config: &Config) -> Owner {
    let mut owner = owner();
    if config.classes != 0 {
        // SAFETY: the value is read at once.
        owner.class = unsafe { TASKS.get(&owner.tgid) }.map_or(0, |class| *class);
    }
    owner
}

/// Whom a socket belongs to.
#[inline(always)]
pub fn owner_of(st: &SocketState) -> Owner {
    Owner { tgid: st.tgid, tid: st.tid, uid: st.uid, class: st.class }
}

/// A header for now.
#[inline(always)]
pub fn header(kind: u16, flags: u16, owner: Owner, cookie: u64) -> Header {
    // SAFETY: the helper has no preconditions.
    let at = unsafe { bpf_ktime_get_boot_ns() };
    let flags = flags | (owner.class as u16) << FLAG_CLASS_SHIFT;
    Header { kind, flags, tgid: owner.tgid, tid: owner.tid, uid: owner.uid, at, cookie }
}

/// A connection's tuple from what is known of its socket.
#[inline(always)]
pub fn tuple(st: &SocketState) -> Tuple {
    Tuple {
        local: [0; 16],
        peer: st.peer,
        sequence: st.sequence,
        rule: st.rule,
        local_port: st.local_port,
        peer_port: st.port,
        protocol: st.protocol,
        direction: st.direction,
        action: st.action,
        reason: st.reason,
    }
}

/// Whether the agent is to be woken for a record: it acts on refusals and on processes that were moved (`Reaction` in the
/// engine). Everything else it finds when it looks, twenty times a second at least (`Runner::wait`): waking it costs the
/// program that is watched an interrupt, ten microseconds on a virtual machine.
#[inline(always)]
pub fn wake(header: &Header) -> u64 {
    let urgent = header.flags & FLAG_ENFORCED != 0 || header.kind == kind::MOVED;
    // Not left to the kernel, which wakes only who has read everything else.
    (if urgent { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }) as u64
}

/// A fixed-size record, woken for as `wake` said.
#[inline(always)]
pub fn record<T: 'static>(value: T, wake: u64) {
    count(counter::EMITTED);
    match EVENTS.reserve::<T>(0) {
        Some(mut e) => {
            e.write(value);
            e.submit(wake);
        }
        None => count(counter::RING_FULL),
    }
}

/// A connection's record.
#[inline(always)]
pub fn flow(header: Header, tuple: Tuple, sent: u64, received: u64) {
    let wake = wake(&header);
    record(FlowEvent { header, tuple, sent, received }, wake);
}

/// The first `length` bytes of the scratch payload (at most `PAYLOAD_MAX`) with what is in `s.event`.
#[inline(always)]
pub fn payload(s: *mut Scratch, header: Header, tuple: Tuple, offset: u32, length: u64, bound: u32) {
    let mut captured = length;
    if captured > PAYLOAD_MAX as u64 {
        captured = PAYLOAD_MAX as u64;
    }
    let captured = launder(s, captured) & (2 * PAYLOAD_MAX as u64 - 1);
    let wake = wake(&header);
    // SAFETY: event and payload are adjacent in repr(C) without padding, and payload holds more than 8191 bytes.
    unsafe {
        (*s).event = PayloadEvent { header, tuple, offset, length: length as u32, captured: captured as u32, bound };
        output((&raw const (*s).event).cast(), size_of::<PayloadEvent>() as u64 + captured, wake);
    }
}

/// A record of variable size, woken for as `wake` said.
///
/// # Safety
/// `p` points at `n` readable bytes of map memory.
#[inline(always)]
pub unsafe fn output(p: *const u8, n: u64, wake: u64) {
    count(counter::EMITTED);
    // SAFETY: by contract.
    let bytes = unsafe { core::slice::from_raw_parts(p, n as usize) };
    if EVENTS.output::<[u8]>(bytes, wake).is_err() {
        count(counter::RING_FULL);
    }
}

/// A zero address.
pub const NOWHERE: Address = [0; 16];
