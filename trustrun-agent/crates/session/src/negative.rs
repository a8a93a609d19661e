//! Answers to refused lookups, as packets: the kernel dropped the query, so without an answer some resolver libraries
//! (musl) would wait for seconds.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Whether a socket still waits at this address. If none does, an answer must not be sent: the kernel would complain to
/// the resolver (ICMP, port unreachable), and its complaint quotes the very name that was refused.
///
/// Asked by trying to take the address: whoever closes its socket just after this is answered all the same.
pub(crate) fn awaited(client: SocketAddr) -> bool {
    UdpSocket::bind(client).is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
}

/// A UDP datagram from `server` to `client` as a whole IP packet; `None` if the families differ or it is too long.
pub(crate) fn datagram(server: SocketAddr, client: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).ok()?;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend(server.port().to_be_bytes());
    udp.extend(client.port().to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let (mut packet, pseudo) = match (server.ip(), client.ip()) {
        (IpAddr::V4(s), IpAddr::V4(c)) => {
            let total = length.checked_add(20)?.to_be_bytes();
            // Version and length, no fragmentation, TTL 64, UDP; the kernel fills id and checksum (raw(7)).
            let mut h = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
            h.extend(s.octets());
            h.extend(c.octets());
            (h, [&s.octets()[..], &c.octets()[..]].concat())
        }
        (IpAddr::V6(s), IpAddr::V6(c)) => {
            let mut h = vec![0x60, 0, 0, 0];
            h.extend(length.to_be_bytes());
            h.extend([17, 64]);
            h.extend(s.octets());
            h.extend(c.octets());
            (h, [&s.octets()[..], &c.octets()[..]].concat())
        }
        _ => return None,
    };
    let sum = checksum(&[&pseudo, &[0, 17], &length.to_be_bytes(), &udp]);
    udp.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    Some(packet)
}

/// RFC 768 and RFC 1071; zero is sent as all ones. Each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        s => s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_at_the_address_of_a_closed_socket() {
        for any in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = UdpSocket::bind(any).unwrap();
            let client = SocketAddr::new([127, 0, 0, 1].into(), socket.local_addr().unwrap().port());
            assert!(awaited(client), "{any}");
            drop(socket);
            assert!(!awaited(client), "{any}");
        }
    }

    #[test]
    fn the_checksum_of_a_datagram_verifies() {
        let (s, c) = ("203.0.113.53:53".parse().unwrap(), "203.0.113.1:4000".parse().unwrap());
        let packet = datagram(s, c, b"odd").unwrap();
        assert_eq!(packet.len(), 31);
        let sum = checksum(&[&packet[12..20], &[0, 17], &packet[24..26], &packet[20..]]);
        assert_eq!(sum, 0xffff, "a whole datagram sums to zero");
        assert!(datagram(s, "[::1]:1".parse().unwrap(), b"x").is_none());
    }
}
