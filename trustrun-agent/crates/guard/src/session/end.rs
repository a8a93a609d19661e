//! The end of a session: the rest of the cgroup, the last words to the engine, and its report.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        socket::MsgFlags,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};
use trustrun_common::{Address, counter};

use super::{REPORT, Session};
use crate::{FinalFlow, Note, places};

/// How long the rest of the cgroup may live on after the first child.
const GRACE: Duration = Duration::from_secs(10);
/// How long it may when somebody asked for the end: a Ctrl-C reaches the rest too, and it may be about to end.
const CUT_SHORT: Duration = Duration::from_secs(1);

impl Session {
    /// Waits for the rest of the cgroup; whether it is empty. A second word of the foreground process cuts it short.
    pub(super) fn rest(&mut self, lost: bool) -> bool {
        let mut end = if self.wait_all || lost { None } else { Some(Instant::now() + GRACE) };
        loop {
            if self.cgroup.wait_empty(Duration::from_millis(50)) {
                return true;
            }
            self.serve_binder();
            self.check_hooks();
            if !lost && self.foreground.read(MsgFlags::MSG_DONTWAIT).is_some() {
                let soon = Instant::now() + CUT_SHORT;
                end = Some(end.map_or(soon, |e| e.min(soon)));
            }
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            while matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
                if !self.serve_engine() {
                    break;
                }
                fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            }
            if end.is_some_and(|e| Instant::now() > e) {
                return false;
            }
        }
    }

    /// Names what outlived the first child; whether the engine heard it.
    pub(super) fn leftovers(&mut self) -> bool {
        self.cgroup.processes().into_iter().all(|tgid| self.tell(Note::Leftover { tgid }))
    }

    /// Tells the engine something, and serves it meanwhile: it may wait for us as we wait for it. False if it is gone
    /// or stopped.
    pub(super) fn tell(&mut self, note: Note) -> bool {
        let end = Instant::now() + REPORT;
        loop {
            match self.engine.try_note(note) {
                Ok(true) => return true,
                Ok(false) if Instant::now() < end => {}
                _ => return false,
            }
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
            let _ = poll(&mut fds, PollTimeout::from(100u8));
            let spoke = fds[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLIN | PollFlags::POLLHUP));
            if spoke && !self.serve_engine() {
                return false;
            }
        }
    }

    /// What the kernel counted so far. What cannot be read must not look like zero.
    pub(super) fn counters(&mut self) -> [u64; counter::COUNT as usize] {
        self.loaded.counters().unwrap_or_else(|_| {
            let mut unread = [0; counter::COUNT as usize];
            unread[counter::UNREAD as usize] = 1;
            unread
        })
    }

    /// Tells the engine what only the maps know, and that it is over; whether it heard that. A stopped engine does not.
    pub(super) fn last_words(&mut self, status: Option<i32>) -> bool {
        for (cookie, s) in self.loaded.sockets() {
            let peer = socket(s.peer, s.port);
            if s.protocol == 6 && s.sequence != 0 {
                let flow = trustrun_model::FlowId { cookie, sequence: s.sequence };
                let protocol = trustrun_model::Protocol::Tcp;
                let f = FinalFlow { flow, protocol, peer, sent: s.sent, received: s.received };
                if !self.tell(Note::Final(f)) {
                    return false;
                }
            }
        }
        for (key, d) in self.loaded.datagrams() {
            if key.pad == [0; 3] {
                let flow = trustrun_model::FlowId { cookie: key.cookie, sequence: d.sequence };
                let protocol = trustrun_model::Protocol::Udp;
                let peer = socket(key.peer, key.port);
                let f = FinalFlow { flow, protocol, peer, sent: d.sent, received: d.received };
                if !self.tell(Note::Final(f)) {
                    return false;
                }
            }
        }
        // Before the counters are read: what outlived the command goes on, and is not to be seen uncounted.
        let changed = places::changed(self.since.0, self.since.1);
        let counters = self.counters();
        let lost = self.watch.lost();
        changed.into_iter().all(|c| self.tell(Note::Changed(c)))
            && self.tell_lost_hooks(lost)
            && self.tell(Note::Counters(counters))
            && self.tell(Note::Finish { status })
    }

    /// Waits for the engine; its exit code.
    pub(super) fn engine_ended(&mut self, most: Duration) -> Option<i32> {
        let end = Instant::now() + most;
        while Instant::now() < end {
            match waitpid(self.engine_pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(WaitStatus::Exited(_, code)) => return Some(code),
                _ => return None,
            }
            // Readable when the engine speaks or is gone.
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(20u8));
            if !self.serve_engine() {
                // It has closed its end, which stays readable from then on, and is about to end.
                let _ = poll(&mut [], PollTimeout::from(1u8));
            }
        }
        let _ = nix::sys::signal::kill(self.engine_pid, Signal::SIGKILL);
        let _ = waitpid(self.engine_pid, None);
        None
    }
}

fn socket(address: Address, port: u16) -> std::net::SocketAddr {
    let v6 = std::net::Ipv6Addr::from(address);
    let ip = v6.to_ipv4_mapped().map_or(std::net::IpAddr::V6(v6), std::net::IpAddr::V4);
    std::net::SocketAddr::new(ip, port)
}
