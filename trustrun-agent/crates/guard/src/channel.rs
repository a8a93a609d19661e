//! Messages between two of our processes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{GuardError, Note, Order, message::SIZE};

/// How long a message may wait for a process that was stopped: whoever sends goes on without it then.
const SEND_SECONDS: i64 = 60;

/// A message socket between two of our processes.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self), GuardError> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(GuardError::system("socketpair"))?;
        for end in [&a, &b] {
            setsockopt(end, sockopt::SendTimeout, &TimeVal::seconds(SEND_SECONDS))
                .map_err(GuardError::system("socketpair"))?;
        }
        Ok((Self(a), Self(b)))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the other side is gone.
    pub fn order(&self, order: Order) -> io::Result<()> {
        self.send(&order.to_bytes())
    }

    pub(crate) fn note(&self, note: Note) -> io::Result<()> {
        self.send(&note.to_bytes())
    }

    /// Sends a note if there is room for it; whether there was.
    pub(crate) fn try_note(&self, note: Note) -> io::Result<bool> {
        match send(self.0.as_raw_fd(), &note.to_bytes(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR) => self.send(bytes),
            Err(e) => Err(e.into()),
        }
    }

    /// Receives a note; `None` when the guard is gone.
    #[must_use]
    pub fn receive(&self) -> Option<Note> {
        let (bytes, n) = self.read(MsgFlags::empty())?;
        Note::from_bytes(bytes.get(..n)?)
    }

    /// Receives a note if one is there. `Err` when the guard is gone.
    ///
    /// # Errors
    /// When the guard is gone.
    pub fn try_receive(&self) -> Result<Option<Note>, Errno> {
        let mut bytes = [0; SIZE];
        match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(Errno::EPIPE),
            Ok(n) => Ok(Note::from_bytes(&bytes[..n])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Receives whatever comes, with its length; `None` when nothing does or the other side is gone.
    pub(crate) fn read(&self, flags: MsgFlags) -> Option<([u8; SIZE], usize)> {
        let mut bytes = [0; SIZE];
        loop {
            match recv(self.0.as_raw_fd(), &mut bytes, flags) {
                Ok(0) => return None,
                Ok(n) => return Some((bytes, n)),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
