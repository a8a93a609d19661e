//! The ABI between TrustRun's kernel programs and its agent, and nothing else.
//!
//! Every type is `repr(C)` with fixed-width fields and explicit zeroed padding, and has its size and offsets
//! asserted at compile time below. What is read from the kernel is checked by length and discriminant before it is
//! believed (`observe::ebpf::decode`). Changing anything here means raising [`ABI_VERSION`].
//!
//! Addresses are 16 bytes: IPv6, or IPv4 as v4-mapped (`::ffff:a.b.c.d`). Ports are in host byte order. Times are
//! nanoseconds of CLOCK_BOOTTIME.
#![no_std]

pub mod classes;
pub mod config;
pub mod events;
pub mod hooks;
#[cfg(feature = "user")]
mod pod;
pub mod sockets;
pub mod tables;
pub mod unix;

pub use classes::*;
pub use config::*;
pub use events::*;
pub use hooks::*;
pub use sockets::*;
pub use tables::*;
pub use unix::*;

/// Raised whenever a type or a constant of this crate changes. The loader compares it with the `ABI` symbol of the
/// object it loads.
pub const ABI_VERSION: u32 = 3;

/// An IPv6 address, or IPv4 as v4-mapped.
pub type Address = [u8; 16];

/// `::ffff:a.b.c.d`
#[must_use]
pub const fn v4_mapped(o: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, o[0], o[1], o[2], o[3]]
}

/// FNV-1a, 64 bits, over a name in lower case without a trailing dot. It tells names apart on one address; it is no
/// defence against somebody who can choose names that the policy already allows.
#[must_use]
pub fn name_hash(name: &[u8]) -> u64 {
    name.iter().fold(FNV_OFFSET, |hash, b| (hash ^ b.to_ascii_lowercase() as u64).wrapping_mul(FNV_PRIME))
}

/// FNV-1a, 64 bits, over bytes as they are.
#[must_use]
pub fn bytes_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET, |hash, b| (hash ^ *b as u64).wrapping_mul(FNV_PRIME))
}

/// Offset basis of FNV-1a (draft-eastlake-fnv).
pub const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
/// Prime of FNV-1a.
pub const FNV_PRIME: u64 = 0x0100_0000_01b3;
