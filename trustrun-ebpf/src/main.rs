//! TrustRun's kernel programs: one file per hook in `hooks/`, and what they share beside it.
//!
//! The kernel decides and tells; it never waits for user space. One loaded object serves one session, attached to
//! one cgroup, so that no map is keyed by session. The patterns that keep the verifier content (per-CPU scratch,
//! volatile reads, masks) are explained where they are used; `docs/kernel.md` has the measured background.
#![no_std]
#![no_main]
// core::sync::atomic has no 64-bit read-modify-write for this target, though every BPF kernel has the plain add. The
// build runs under RUSTC_BOOTSTRAP=1 anyway, for build-std.
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod classify;
mod decide;
mod dns;
mod emit;
mod first;
mod hooks;
mod maps;
mod names;
mod packet;
mod scratch;
mod sockets;
mod unix;

/// Compared by the loader with the agent's own `trustrun_common::ABI_VERSION`.
#[unsafe(no_mangle)]
#[used]
static ABI: u32 = trustrun_common::ABI_VERSION;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
