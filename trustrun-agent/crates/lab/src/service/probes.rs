//! How the lab knows that it has seen everything: a probe at the end of every queue.
//!
//! A client may be gone before its connection is accepted, so that an empty log right after its end proves nothing.
//! Queues are first in, first out: once a probe came through, whatever was sent before it is in the log.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::listen::connect_from;
use super::pool::lock;
use crate::defaults::{ALLOWED, ALLOWED_V6};

/// Probes come from here, and nothing else does.
pub(crate) const PROBE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// The same over IPv6.
pub(crate) const PROBE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xffff, 3);

/// A queue of the lab: one listening socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Tcp(SocketAddr),
    Udp(SocketAddr),
}

/// All queues, and the probes that came through.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    doors: Mutex<Vec<Door>>,
    seen: Mutex<u64>,
    changed: Condvar,
    one_at_a_time: Mutex<()>,
}

impl Probes {
    pub(super) fn add(&self, door: Door) {
        lock(&self.doors).push(door);
    }

    /// Whether `peer` is a probe; it is counted then.
    pub(crate) fn saw(&self, peer: SocketAddr) -> bool {
        let probe = peer.ip() == PROBE || peer.ip() == PROBE_V6;
        if probe {
            *lock(&self.seen) += 1;
            self.changed.notify_all();
        }
        probe
    }

    /// Sends a probe through every queue and waits for all of them. Only for threads inside the lab.
    pub(crate) fn run(&self, deadline: Duration) -> io::Result<bool> {
        let _turn = lock(&self.one_at_a_time);
        let end = Instant::now() + deadline;
        let mut wanted = *lock(&self.seen);
        for door in lock(&self.doors).iter() {
            match door {
                Door::Tcp(address) => drop(connect_from(source(address), target(address))?),
                Door::Udp(address) => {
                    UdpSocket::bind((source(address), 0))?.send_to(&[], target(address))?;
                }
            }
            wanted += 1;
        }
        let mut seen = lock(&self.seen);
        while *seen < wanted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(true)
    }
}

fn source(door: &SocketAddr) -> IpAddr {
    if door.is_ipv4() { PROBE.into() } else { PROBE_V6.into() }
}

fn target(door: &SocketAddr) -> SocketAddr {
    match door.ip() {
        IpAddr::V4(address) if address.is_unspecified() => SocketAddr::new(ALLOWED.into(), door.port()),
        IpAddr::V6(address) if address.is_unspecified() => SocketAddr::new(ALLOWED_V6.into(), door.port()),
        _ => *door,
    }
}
