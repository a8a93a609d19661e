//! The kernel's tables `/proc/PID/net/{tcp,tcp6,udp,udp6,udplite,udplite6,raw,raw6}`, proc(5).
//!
//! One socket a line: `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`. Addresses
//! are hexadecimal words in the machine's byte order, ports hexadecimal numbers. A line that is not like this is skipped and
//! counted: the kernel may say more some day, and a session is better off with the other lines and a word about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use trustrun_model::Protocol;

use super::State;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The socket's inode number; 0 for one that nobody holds any more (TIME_WAIT), or not yet (SYN_RECV).
    pub inode: u64,
    /// Where it is in its life; none for what nobody holds.
    pub state: Option<State>,
    /// Its own end. The port of a raw socket is its protocol.
    pub local: SocketAddr,
    /// The other end, where there is one.
    pub peer: Option<SocketAddr>,
}

/// Reads a whole table. The second number is how many lines could not be read.
#[must_use]
pub fn read(text: &str, protocol: Protocol) -> (Vec<Entry>, usize) {
    let mut entries = Vec::new();
    let mut unreadable = 0;
    // The first line names the columns.
    for line in text.lines().skip(1) {
        match entry(line, protocol) {
            Some(entry) => entries.push(entry),
            None => unreadable += 1,
        }
    }
    (entries, unreadable)
}

fn entry(line: &str, protocol: Protocol) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let _slot = words.next()?;
    let local = address(words.next()?)?;
    let peer = address(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    // tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout
    let inode = words.nth(5)?.parse().ok()?;
    let peer = (!peer.ip().is_unspecified() || peer.port() != 0).then_some(peer);
    Some(Entry { inode, state: life(state, protocol), local, peer })
}

/// include/net/tcp_states.h; UDP and raw sockets use two of them.
fn life(state: u8, protocol: Protocol) -> Option<State> {
    Some(match (protocol, state) {
        (Protocol::Tcp, 1) => State::Open,
        (Protocol::Tcp, 2) => State::Opening,
        // FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: somebody may still send.
        (Protocol::Tcp, 4 | 5 | 8 | 9 | 11) => State::Closing,
        (Protocol::Tcp, 10) => State::Listening,
        // SYN_RECV, TIME_WAIT, CLOSE, NEW_SYN_RECV
        (Protocol::Tcp, _) => return None,
        (_, 1) => State::Open,
        (_, _) => State::Unconnected,
    })
}

fn address(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !address.is_ascii() {
        return None;
    }
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()).into(),
        32 => {
            let mut octets = [0; 16];
            for (i, slot) in octets.chunks_exact_mut(4).enumerate() {
                let word = u32::from_str_radix(&address[i * 8..i * 8 + 8], 16).ok()?;
                slot.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_lines_as_the_kernel_writes_them() {
        let text = format!(
            "{HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n\
             \u{20}  1: 0A00020F:C350 22D8B85D:01BB 01 00000000:00000000 02:00000A1B 00000000  1000        0 99 2 0 20 4 30 10 -1\n\
             \u{20}  2: 0A00020F:C352 22D8B85D:01BB 06 00000000:00000000 03:00000A1B 00000000     0        0 0 3 0\n"
        );
        let (entries, unreadable) = read(&text, Protocol::Tcp);
        assert_eq!(unreadable, 0);
        assert_eq!(entries[0].state, Some(State::Listening));
        assert_eq!((entries[0].local, entries[0].peer), ("127.0.0.1:8080".parse().unwrap(), None));
        assert_eq!(entries[1].inode, 99);
        assert_eq!(entries[1].peer, Some("93.184.216.34:443".parse().unwrap()));
        assert_eq!(entries[1].state, Some(State::Open));
        assert_eq!((entries[2].state, entries[2].inode), (None, 0));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_both_families() {
        let v6 = "00000000000000000000000001000000:0016";
        assert_eq!(address(v6), Some("[::1]:22".parse().unwrap()));
        // An IPv4 peer of an IPv6 socket is that IPv4 address.
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(address(mapped), Some("127.0.0.1:80".parse().unwrap()));
        for bad in ["", ":", "0100007F", "0100007F:", "0100007G:0016", "01:0016", "ää00007F:0016", "0100007F:10000"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_that_are_none_are_counted() {
        let (entries, unreadable) = read(&format!("{HEAD}nonsense\n\n  1: 0100007F:1F90\n"), Protocol::Udp);
        assert_eq!((entries.len(), unreadable), (0, 3));
    }

    #[test]
    fn the_tables_of_this_machine_are_read_whole() {
        for (file, protocol) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("tcp6", Protocol::Tcp)] {
            let Ok(text) = std::fs::read_to_string(format!("/proc/self/net/{file}")) else { continue };
            let (entries, unreadable) = read(&text, protocol);
            assert_eq!((entries.len(), unreadable), (text.lines().count() - 1, 0), "{file}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let (entries, unreadable) = read(&text, Protocol::Tcp);
            prop_assert_eq!(entries.len() + unreadable, text.lines().count().saturating_sub(1));
        }
    }
}
