//! Pure decoders of hostile bytes: DNS messages, and what a client says first on a connection (TLS, HTTP, SOCKS,
//! QUIC).
//!
//! Nothing here touches the system, and nothing panics or allocates without bound whatever the bytes are: every
//! decoder reads through a checked cursor and states its limits as constants. What a client says about itself is a
//! *claim*; it can refute a destination and never grant one (design 1), so a decoder that is unsure answers
//! [`Outcome::Malformed`] rather than guess.

#![forbid(unsafe_code)]

pub mod dns;
pub mod first;
pub mod gather;
pub mod host;
pub mod http;
mod outcome;
pub mod quic;
mod read;
pub mod socks;
pub mod tls;

pub use first::{Claim, First, classify};
pub use gather::Gather;
pub use host::{Authority, Host};
pub use outcome::Outcome;
