//! The kernel's own list of TCP sockets with their byte counts, sock_diag(7), inet_diag: for the network namespace that this
//! process is in, without privilege.
//!
//! `/proc/net/tcp` has no byte counts. The counts are those of `struct tcp_info`, octets that the other end has
//! acknowledged and octets received, so that what is still under way is not in them.

use std::{collections::HashMap, io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// SOCK_DIAG_BY_FAMILY, include/uapi/linux/sock_diag.h
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 1 | 0x300;
/// NLMSG_ERROR, NLMSG_DONE
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// INET_DIAG_INFO, include/uapi/linux/inet_diag.h; asked for by its bit, from 0 for the first.
const INFO: u16 = 2;
/// sizeof(struct nlmsghdr), of the request with struct inet_diag_req_v2, and of struct inet_diag_msg.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const MESSAGE: usize = 72;
/// tcpi_bytes_acked and tcpi_bytes_received, include/uapi/linux/tcp.h
const ACKED: usize = 120;
const RECEIVED: usize = 128;

/// Octets of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// That the other end acknowledged; where this end began the connection, its first packet counts as one more.
    pub sent: u64,
    /// That came.
    pub received: u64,
}

/// Octets of each TCP connection of this network namespace, by the socket's inode number.
///
/// # Errors
/// If the kernel has no inet_diag.
pub fn tcp_bytes() -> io::Result<HashMap<u64, Bytes>> {
    let mut found = HashMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(family as u8, &mut found)?;
    }
    Ok(found)
}

fn dump(family: u8, found: &mut HashMap<u64, Bytes>) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let mut request = Vec::with_capacity(REQUEST);
    request.extend((REQUEST as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]); // sequence, port id
    request.extend([family, libc::IPPROTO_TCP as u8, 1 << (INFO - 1), 0]);
    request.extend(STATES.to_ne_bytes());
    request.extend([0; 48]); // any address, port, interface and cookie
    sendto(fd.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut part = vec![0; 1 << 16];
    loop {
        let n = recv(fd.as_raw_fd(), &mut part, MsgFlags::empty())?;
        if gather(part.get(..n).unwrap_or_default(), found)? {
            return Ok(());
        }
    }
}

/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING, include/net/tcp_states.h
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Reads one part of the answer; whether it was the last.
fn gather(mut part: &[u8], found: &mut HashMap<u64, Bytes>) -> io::Result<bool> {
    while let Some(length) = number(part, 0).filter(|n| *n as usize >= HEADER) {
        let Some(message) = part.get(..length as usize) else { return Err(io::ErrorKind::InvalidData.into()) };
        match (number(message, 4).unwrap_or_default() & 0xffff) as u16 {
            DONE => return Ok(true),
            ERROR => {
                let code = number(message, HEADER).map_or(libc::EPROTO, |code| -code.cast_signed());
                return Err(io::Error::from_raw_os_error(code));
            }
            _ => found.extend(connection(message.get(HEADER..).unwrap_or_default())),
        }
        part = part.get(aligned(length as usize)..).unwrap_or_default();
    }
    if part.is_empty() { Ok(false) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// One socket, if somebody holds it.
fn connection(message: &[u8]) -> Option<(u64, Bytes)> {
    let inode = u64::from(number(message, 68)?);
    let mut rest = message.get(MESSAGE..)?;
    while let Some(kind) = number(rest, 0) {
        let length = (kind & 0xffff) as usize;
        let value = rest.get(4..length)?;
        if (kind >> 16) as u16 == INFO {
            let sent = long(value, ACKED)?;
            return (inode != 0).then_some((inode, Bytes { sent, received: long(value, RECEIVED)? }));
        }
        rest = rest.get(aligned(length)..)?;
    }
    None
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use proptest::prelude::*;

    use super::*;

    fn inode(socket: &TcpStream) -> u64 {
        nix::sys::stat::fstat(socket.as_fd()).unwrap().st_ino
    }

    #[test]
    fn counts_what_both_ends_sent() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(&[1; 5000]).unwrap();
            server.read_exact(&mut [0; 5000]).unwrap();
            server.write_all(&[2; 70_000]).unwrap();
            client.read_exact(&mut vec![0; 70_000]).unwrap();
            // The last acknowledgement may be on its way.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
            loop {
                let all = tcp_bytes().unwrap();
                let (ours, theirs) = (all[&inode(&client)], all[&inode(&server)]);
                if theirs.sent == 70_000 || std::time::Instant::now() > deadline {
                    assert_eq!(ours, Bytes { sent: 5001, received: 70_000 });
                    assert_eq!(theirs, Bytes { sent: 70_000, received: 5000 });
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(part in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut found = HashMap::new();
            let _ = gather(&part, &mut found);
            prop_assert!(found.len() <= part.len() / HEADER);
        }
    }
}
