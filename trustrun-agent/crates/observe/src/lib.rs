//! Sensors: sources of observations. They see; they never decide.
//!
//! `ebpf` reads what the kernel programs put on the ring buffer. Bytes from the kernel are checked by length and
//! discriminant before a value is built from them (`decode`). `sockets` polls the system's socket table.

mod clock;
mod decode;
#[cfg(feature = "ebpf")]
mod ring;
pub mod sockets;

pub use clock::Clock;
pub use decode::{DecodeError, decode};
#[cfg(feature = "ebpf")]
pub use ring::Ring;
