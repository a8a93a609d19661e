//! What every server of the lab is made of: threads that live in the lab's network namespace, listeners, and an end.
//!
//! `pool` owns the threads, `listen` binds and accepts, `plain` holds the echoes and sinks, `probes` tells
//! when all has been seen. Protocols live elsewhere
//! (`http`, `dns`, `proxy`) and are given accepted connections.

mod listen;
mod plain;
mod pool;
mod probes;

pub(crate) use listen::{Conn, IDLE, connect_from, serve_tcp, udp_socket};
pub(crate) use plain::{echo, receive_from, serve_udp, sink, wake};
pub(crate) use pool::{EndOfPool, Pool, Stop, lock};
pub(crate) use probes::{PROBE, PROBE_V6};
