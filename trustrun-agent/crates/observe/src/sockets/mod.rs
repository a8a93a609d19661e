//! The `sockets` sensor: the system's socket table, read again and again, joined with the processes that hold the sockets.
//!
//! It needs no privilege for one's own processes, and it runs wherever a socket table can be read: `/proc` on Linux
//! (`linux`), `lsof` elsewhere (`lsof`). What lives and dies between two looks is never seen, so a session of this sensor is
//! `sampled` and cannot pass. `changes` turns two looks into observations; what a look holds is plain data, so that both
//! are tested without a system.

mod changes;
#[cfg(target_os = "linux")]
pub mod diag;
#[cfg(target_os = "linux")]
mod linux;
pub mod lsof;
pub mod proc_net;
pub mod targets;

use std::{collections::BTreeMap, net::SocketAddr};

use trustrun_model::Protocol;

pub use changes::Changes;
#[cfg(target_os = "linux")]
pub use linux::Linux;

/// Where a socket is in its life, as far as it matters to who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It waits for others to connect.
    Listening,
    /// It has sent its first packet and waits.
    Opening,
    /// Both ends have said yes (for UDP: it is connected to a peer).
    Open,
    /// One end has said that it is done.
    Closing,
    /// UDP without a peer: whom it sends to cannot be seen.
    Unconnected,
}

/// One socket of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What tells it from others while it lives: the inode number on Linux, the address of the control block elsewhere.
    pub key: u64,
    /// Who holds it; the lowest thread group id where several do.
    pub tgid: u32,
    /// TCP, UDP, or what a raw socket says.
    pub protocol: Protocol,
    /// Where it is in its life.
    pub state: State,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end, where there is one.
    pub peer: Option<SocketAddr>,
    /// Octets sent and received so far, where the table has them.
    pub bytes: Option<(u64, u64)>,
}

/// One process of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its parent at that moment.
    pub parent: u32,
    /// When it began, in ticks since boot (or seconds since 1970): with the id, what makes it this process and no other.
    pub started: u64,
    /// Effective user id.
    pub uid: u32,
    /// The executable's path; none where it may not be read.
    pub exe: Option<String>,
    /// Its arguments, not yet redacted.
    pub argv: Vec<String>,
}

/// One look at the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Processes of the target, by thread group id.
    pub processes: BTreeMap<u32, Process>,
    /// Their sockets.
    pub sockets: Vec<Socket>,
    /// Processes of the target whose sockets may not be read, and why.
    pub blind: BTreeMap<u32, String>,
}
