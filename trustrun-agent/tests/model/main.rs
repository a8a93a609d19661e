//! The kernel's parsers against a model of them in user space, held to it by the same packets, through real sockets.
//!
//! Packets are made at random from a printed seed (`TRUSTRUN_SEED` repeats it, `TRUSTRUN_PACKETS` makes more) and then
//! damaged. A packet on which the two differ is printed whole.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod dns;
mod random;
mod streams;
