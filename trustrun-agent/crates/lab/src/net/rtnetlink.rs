//! The few rtnetlink messages that the lab needs (rtnetlink(7)), so that no `ip` program has to be installed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `lo` is the first device of every network namespace.
const LOOPBACK: u32 = 1;
/// An infinite lifetime (INFINITY_LIFE_TIME of net/addrconf.h).
const FOREVER: u32 = u32::MAX;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A netlink socket in the calling thread's network namespace.
pub(super) struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Rtnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings `lo` up, able to do multicast, with an MTU like a real network's.
    pub(super) fn loopback_up(&mut self, mtu: u32) -> io::Result<()> {
        let flags = (libc::IFF_UP | libc::IFF_MULTICAST) as u32;
        let mut body = vec![libc::AF_UNSPEC as u8, 0];
        body.extend(0u16.to_ne_bytes()); // ifi_type
        body.extend(LOOPBACK.to_ne_bytes()); // ifi_index
        body.extend(flags.to_ne_bytes()); // ifi_flags
        body.extend(flags.to_ne_bytes()); // ifi_change: only these
        attribute(&mut body, libc::IFLA_MTU, &mtu.to_ne_bytes());
        self.request(libc::RTM_NEWLINK, 0, &body)
    }

    /// Gives `lo` one address, usable at once (no duplicate address detection).
    pub(super) fn add_address(&mut self, address: IpAddr) -> io::Result<()> {
        self.address(address, FOREVER)
    }

    /// The same, but never chosen as a source by itself (RFC 6724 section 5, rule 3).
    pub(super) fn add_deprecated(&mut self, address: Ipv6Addr) -> io::Result<()> {
        self.address(address.into(), 0)
    }

    fn address(&mut self, address: IpAddr, preferred_for: u32) -> io::Result<()> {
        let (family, octets) = parts(address);
        let prefix = octets.len() as u8 * 8;
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let mut body = vec![family, prefix, flags, libc::RT_SCOPE_UNIVERSE];
        body.extend(LOOPBACK.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &octets);
        attribute(&mut body, libc::IFA_ADDRESS, &octets);
        // struct ifa_cacheinfo: preferred and valid lifetimes in seconds, and two times that only the kernel sets.
        let lifetimes = [preferred_for, FOREVER, 0, 0].map(u32::to_ne_bytes).concat();
        attribute(&mut body, libc::IFA_CACHEINFO, &lifetimes);
        self.request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
    }

    /// `ip route add local ADDRESS/PREFIX dev lo src SOURCE`.
    pub(super) fn add_local_route(&mut self, address: Ipv4Addr, prefix: u8, source: Ipv4Addr) -> io::Result<()> {
        self.add_route(address.into(), prefix, libc::RT_TABLE_LOCAL, libc::RTN_LOCAL, Some(source))
    }

    /// `ip route add 224.0.0.0/4 dev lo`: somewhere for multicast to go.
    pub(super) fn add_multicast_v4(&mut self) -> io::Result<()> {
        let group = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0));
        self.add_route(group, 4, libc::RT_TABLE_MAIN, libc::RTN_UNICAST, None)
    }

    /// `ip route add local ff00::/8 dev lo`: an ordinary route finds no neighbour on `lo` (Ip6OutNoRoutes).
    pub(super) fn add_multicast_v6(&mut self) -> io::Result<()> {
        let group = IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0));
        self.add_route(group, 8, libc::RT_TABLE_LOCAL, libc::RTN_LOCAL, None)
    }

    fn add_route(
        &mut self,
        address: IpAddr,
        prefix: u8,
        table: u8,
        kind: u8,
        source: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let (family, octets) = parts(address);
        let scope = if kind == libc::RTN_LOCAL { libc::RT_SCOPE_HOST } else { libc::RT_SCOPE_LINK };
        let mut body = vec![family, prefix, 0, 0, table, libc::RTPROT_STATIC, scope, kind];
        body.extend(0u32.to_ne_bytes()); // rtm_flags
        attribute(&mut body, libc::RTA_DST, &octets);
        attribute(&mut body, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
        if let Some(source) = source {
            attribute(&mut body, libc::RTA_PREFSRC, &source.octets());
        }
        self.request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
    }

    /// Sends one request and waits for the kernel's acknowledgement.
    fn request(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(((flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes()); // nlmsg_pid: the kernel
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut reply = [0u8; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        acknowledged(&reply[..length])
    }
}

/// Reads an NLMSG_ERROR message: an error number of zero is the acknowledgement.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let number = reply.get(HEADER..HEADER + 4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (kind, number) {
        (Some(kind), Some(0)) if i32::from(kind) == libc::NLMSG_ERROR => Ok(()),
        (Some(kind), Some(number)) if i32::from(kind) == libc::NLMSG_ERROR => {
            Err(io::Error::from_raw_os_error(number.saturating_neg()))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answered with something other than an ack")),
    }
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(a) => (libc::AF_INET as u8, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6 as u8, a.octets().to_vec()),
    }
}

/// Appends one `struct rtattr`, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
