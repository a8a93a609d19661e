//! What the command is given as standard input, output and error: the only descriptors that it inherits.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, fd::AsRawFd as _, unix::fs::FileTypeExt as _},
};

use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname};

/// What a standard descriptor is, as far as it is a way to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// A file, a terminal, a device, or closed.
    Plain,
    /// A pipe: somebody outside reads or writes its other end.
    Pipe,
    /// A unix socket: as a pipe, and descriptors may be passed on it.
    Unix,
    /// A socket to the network, made outside the session: its traffic is not the session's.
    Network,
    /// A folder: what is reached through it lies outside the command's own view of the files.
    Folder,
}

/// What the three standard descriptors of this process are: input, output, error.
#[must_use]
pub fn stdio() -> [Stdio; 3] {
    [kind(io::stdin().as_fd()), kind(io::stdout().as_fd()), kind(io::stderr().as_fd())]
}

fn kind(fd: std::os::fd::BorrowedFd<'_>) -> Stdio {
    let Ok(file) = fd.try_clone_to_owned().map(File::from) else { return Stdio::Plain };
    let Ok(kind) = file.metadata().map(|m| m.file_type()) else { return Stdio::Plain };
    if kind.is_dir() {
        Stdio::Folder
    } else if kind.is_fifo() {
        Stdio::Pipe
    } else if kind.is_socket() {
        match getsockname::<SockaddrStorage>(file.as_raw_fd()).ok().and_then(|a| a.family()) {
            Some(AddressFamily::Unix) => Stdio::Unix,
            _ => Stdio::Network,
        }
    } else {
        Stdio::Plain
    }
}
