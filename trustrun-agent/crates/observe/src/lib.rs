//! Sensors: sources of observations. They see; they never decide.
//!
//! `ebpf` reads what the kernel programs put on the ring buffer. Bytes from the kernel are checked by length and
//! discriminant before a value is built from them (`decode`).

mod clock;
mod decode;
#[cfg(feature = "ebpf")]
mod ring;

pub use clock::Clock;
pub use decode::{DecodeError, decode};
#[cfg(feature = "ebpf")]
pub use ring::Ring;
