//! Echoes and sinks, over TCP and UDP.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, IpMembershipRequest, Ipv6MembershipRequest, MsgFlags, SockaddrStorage,
    setsockopt, sockopt,
};

use super::listen::{Conn, end_of_output, udp_socket};
use super::pool::Pool;
use crate::arrivals::{Arrivals, Service};
use crate::defaults::{MULTICAST_V4, MULTICAST_V6};
use crate::error::LabError;
use crate::net::NetNs;

/// A multicast program may send whatever a datagram holds.
const LARGEST: usize = 65_536;

/// Gives back what comes, until the client ends its output.
pub(crate) fn echo(mut conn: Conn) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = conn.read(&mut buffer) {
        if length == 0 || conn.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    end_of_output(&conn.stream);
}

/// Reads until the client ends its output, and never answers.
pub(crate) fn sink(mut conn: Conn) {
    let mut buffer = vec![0; 64 * 1024];
    while matches!(conn.read(&mut buffer), Ok(length) if length > 0) {}
}

/// A UDP echo or sink on every local address of one family.
pub(crate) fn serve_udp(
    pool: &Pool,
    netns: &NetNs,
    address: SocketAddr,
    (service, log): (Service, &Arrivals),
) -> Result<(), LabError> {
    let what = "UDP";
    let failed = |source| LabError::Listen { what, address, source };
    let socket = Arc::new(udp_socket(pool, netns, what, address)?);
    prepare(&socket, address, service).map_err(failed)?;
    let waker = Arc::clone(&socket);
    let (log, stop, probes) = (log.clone(), pool.stop(), pool.probes());
    pool.dedicate(
        "lab-udp",
        move || wake(&waker),
        move || {
            let mut buffer = vec![0; LARGEST];
            while !stop.is_set() {
                let Ok((length, peer, to)) = receive(&socket, &mut buffer) else { continue };
                let (Some(peer), Some(to)) = (peer, to) else { continue };
                if probes.saw(peer) {
                    continue;
                }
                log.datagram(service, SocketAddr::new(to, address.port()), peer, &buffer[..length]);
                if service == Service::UdpEcho {
                    let _ = answer(&socket, &buffer[..length], peer, to);
                }
            }
        },
    )
    .map_err(failed)
}

/// One datagram and its sender. (`UdpSocket::recv_from` panics where there is none, as after a shutdown.)
pub(crate) fn receive_from(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (length, from) = socket::recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    let from = from.as_ref().and_then(address).ok_or(io::ErrorKind::NotConnected)?;
    Ok((length, from))
}

/// Ends a thread that waits for datagrams. The kernel calls an unconnected socket's shutdown an error (ENOTCONN), but
/// wakes its readers all the same (net/ipv4/af_inet.c, inet_shutdown); the read timeout is there should it not.
pub(crate) fn wake(socket: &UdpSocket) {
    let _ = socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Both);
}

fn prepare(socket: &UdpSocket, address: SocketAddr, service: Service) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    if address.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    if service == Service::UdpSink {
        if address.is_ipv4() {
            setsockopt(socket, sockopt::IpAddMembership, &IpMembershipRequest::new(MULTICAST_V4, None))?;
        } else {
            // A kernel without IPv6 multicast on `lo` still has the rest.
            let _ = setsockopt(socket, sockopt::Ipv6AddMembership, &Ipv6MembershipRequest::new(MULTICAST_V6));
        }
    }
    Ok(())
}

/// One datagram: its length, its sender, and the address it was sent to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>, Option<IpAddr>)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        socket::recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let to = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    Ok((message.bytes, message.address.as_ref().and_then(address), to))
}

/// Answers from the very address that was asked; a connected client takes no other.
fn answer(socket: &UdpSocket, bytes: &[u8], peer: SocketAddr, from: IpAddr) -> io::Result<usize> {
    let parts = [io::IoSlice::new(bytes)];
    let send = |control: ControlMessage<'_>| {
        let to = SockaddrStorage::from(peer);
        socket::sendmsg(socket.as_raw_fd(), &parts, &[control], MsgFlags::empty(), Some(&to)).map_err(io::Error::from)
    };
    match from {
        IpAddr::V4(from) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        })),
        IpAddr::V6(from) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: 0,
        })),
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddrV6::new(v6.ip(), v6.port(), 0, 0).into())
}
