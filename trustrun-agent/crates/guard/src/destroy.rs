//! Ending a TCP connection whose bytes are refused: without it the client would wait for a timeout.
//!
//! sock_diag(7) SOCK_DESTROY, by both ends and the socket's cookie, so that no bystander is hit.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// SOCK_DESTROY, include/uapi/linux/sock_diag.h
const SOCK_DESTROY: u16 = 21;
/// NLM_F_REQUEST | NLM_F_ACK
const FLAGS: u16 = 1 | 4;
/// sizeof(struct nlmsghdr) + sizeof(struct inet_diag_req_v2)
const LENGTH: usize = 16 + 56;

/// Destroys the connection.
///
/// # Errors
/// `ENOENT` if it is gone already, `EOPNOTSUPP` where the kernel has no CONFIG_INET_DIAG_DESTROY.
pub(crate) fn destroy(cookie: u64, local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    // An IPv6 socket that talks to a v4-mapped address is an AF_INET6 socket to sock_diag with mapped addresses; which
    // one it is is not known here, so both are tried.
    let mut result = Err(io::Error::from_raw_os_error(libc::ENOENT));
    for mapped in [false, true] {
        if mapped && local.is_ipv6() {
            break;
        }
        let message = request(cookie, local, peer, mapped);
        sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 512];
        let n = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        result = error_of(answer.get(..n).unwrap_or_default());
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The code of an NLMSG_ERROR; 0 is success.
fn error_of(answer: &[u8]) -> io::Result<()> {
    let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn request(cookie: u64, local: SocketAddr, peer: SocketAddr, mapped: bool) -> Vec<u8> {
    let family = if local.is_ipv4() && !mapped { libc::AF_INET } else { libc::AF_INET6 };
    let mut m = Vec::with_capacity(LENGTH);
    m.extend((LENGTH as u32).to_ne_bytes());
    m.extend(SOCK_DESTROY.to_ne_bytes());
    m.extend(FLAGS.to_ne_bytes());
    m.extend([0; 8]); // sequence, port id
    m.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    m.extend(u32::MAX.to_ne_bytes()); // every state
    m.extend(local.port().to_be_bytes());
    m.extend(peer.port().to_be_bytes());
    m.extend(octets(local.ip(), mapped));
    m.extend(octets(peer.ip(), mapped));
    m.extend([0; 4]); // any interface
    m.extend((cookie as u32).to_ne_bytes());
    m.extend(((cookie >> 32) as u32).to_ne_bytes());
    m
}

fn octets(ip: IpAddr, mapped: bool) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) if mapped => v4.to_ipv6_mapped().octets(),
        IpAddr::V4(v4) => {
            let mut o = [0; 16];
            o[..4].copy_from_slice(&v4.octets());
            o
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn the_victim_gets_an_error_at_once_and_no_bystander_does() {
        if !nix::unistd::geteuid().is_root() {
            crate::skip::skip("SOCK_DESTROY needs root");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut victim = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _held = listener.accept().unwrap();
        let cookie = crate::sys::cookie(&victim);
        let (local, peer) = (victim.local_addr().unwrap(), victim.peer_addr().unwrap());
        assert!(destroy(cookie + 1, local, peer).is_err(), "another cookie is another socket");
        destroy(cookie, local, peer).unwrap();
        let error = victim.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
    }
}
