//! Sockets of every kind, and what can be set on them.

use crate::way::{Judge, WAY, Way};

/// One kind of `programs/sockets.c`.
macro_rules! kind {
    ($id:literal, $title:literal) => {
        Way { id: $id, title: $title, line: concat!("{bin}/sockets ", $id, " {to} {to6} {token}"), ..WAY }
    };
}

pub(crate) const ALL: &[Way] = &[
    kind!("tcp", "TCP to an address outside the policy"),
    kind!("tcp6", "the same over IPv6"),
    kind!("mapped", "TCP to an IPv4 address written as IPv6 (::ffff:a.b.c.d)"),
    kind!("mptcp", "multipath TCP"),
    kind!("fastopen", "data in the first packet of TCP (MSG_FASTOPEN)"),
    kind!("fastopen_connect", "the same by TCP_FASTOPEN_CONNECT"),
    kind!("tcp_sendfile", "a file sent by sendfile(2)"),
    kind!("tcp_splice", "a pipe spliced into a connection"),
    kind!("tcp_unspec", "an allowed TCP connection undone by connect(AF_UNSPEC), the socket connected elsewhere"),
    kind!("tcp_source_route", "TCP to an allowed address, its packets led elsewhere by a source route (IP_OPTIONS)"),
    kind!("udp_connect", "a connected UDP socket"),
    kind!("udp_sendto", "sendto on an unconnected UDP socket"),
    kind!("udp_sendmsg", "sendmsg on an unconnected UDP socket"),
    kind!("udp_sendmmsg", "sendmmsg, the first datagram to an allowed address and the second elsewhere"),
    kind!("udp6", "UDP over IPv6"),
    kind!("udp_mapped", "UDP to an IPv4 address written as IPv6"),
    kind!("udp_other_peer", "sendto elsewhere on a UDP socket that is connected to an allowed address"),
    kind!("udp_unspec", "a UDP socket connected to an allowed address, then to none, then elsewhere"),
    kind!("udp_fragments", "a datagram in many IP fragments, of which only the first has ports"),
    kind!("udp_source_route", "UDP to an allowed address with a source route (IP_OPTIONS)"),
    kind!("udp_source_route_connected", "the same on a connected socket"),
    kind!("udp_source_route_message", "the same by a control message of one datagram (IP_RETOPTS)"),
    kind!("udp6_segments", "UDP over IPv6 to an allowed address with a segment routing header (IPV6_RTHDR)"),
    kind!("icmp_raw", "a tunnel in ICMP echo requests of a raw socket"),
    kind!("ping", "the same from a ping socket (SOCK_DGRAM, IPPROTO_ICMP)"),
    kind!("ping6", "the same over IPv6"),
    kind!("raw_other", "a raw socket with a protocol number that nobody has"),
    kind!("raw_header", "a raw socket that writes the IP header itself (IPPROTO_RAW)"),
    kind!("raw_included", "the same by IP_HDRINCL"),
    kind!("raw_fragment", "a lone second fragment, without ports"),
    kind!("raw_tunnel", "a datagram inside a datagram (IP in IP)"),
    kind!("packet_raw", "a frame of a packet socket (AF_PACKET, SOCK_RAW)"),
    kind!("packet_dgram", "the same without its own Ethernet header (SOCK_DGRAM)"),
    kind!("packet_direct", "the same past the queueing discipline (PACKET_QDISC_BYPASS)"),
    kind!("xdp", "a frame in a device's own queue (AF_XDP)"),
    kind!("udplite", "UDP-Lite"),
    kind!("sctp", "SCTP"),
    kind!("dccp", "DCCP"),
    Way { judge: Judge::Token, ..kind!("multicast", "a multicast group") },
    Way { judge: Judge::Token, ..kind!("multicast6", "a multicast group of IPv6") },
    Way { judge: Judge::Token, ..kind!("broadcast", "the broadcast address") },
    kind!("so_mark", "a mark that chooses another routing table or firewall rule (SO_MARK)"),
    kind!("so_device", "a socket bound to a device (SO_BINDTODEVICE)"),
    kind!("transparent", "an address that is somebody else's as the source (IP_TRANSPARENT)"),
    Way {
        outside: "{bin}/outside vsock {key}",
        line: "{bin}/others vsock {key} {to} {token}",
        ..kind!("vsock", "a socket to the hypervisor, or to a program on its side (AF_VSOCK)")
    },
    kind!("uring_connect", "connect and send through io_uring"),
    kind!("uring_sendmsg", "sendmsg through io_uring"),
    kind!("abi32", "the system calls of 32-bit programs (int 0x80)"),
    kind!("abi_x32", "the system calls of the x32 ABI"),
];
