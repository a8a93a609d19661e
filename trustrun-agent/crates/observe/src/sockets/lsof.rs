//! What `lsof -F` prints about network files, lsof(8) "OUTPUT FOR OTHER PROGRAMS": the socket table of macOS, and of Linux too.
//!
//! One field a line, its kind the first letter: `p` begins a process, `f` a descriptor of it, then `t` type, `d` the address of
//! the control block, `i` inode, `P` protocol, `T` TCP's words (`TST=LISTEN`), `n` both ends. Names and ports have to be
//! numbers (`-nP`). A name may hold anything that a program gave itself, but no newline: lsof writes those as `\n`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use trustrun_model::Protocol;

use super::{Socket, State};

/// The options that make lsof print what [`read`] reads. `-w` keeps warnings off.
pub const OPTIONS: [&str; 4] = ["-nPw", "-i", "-Tsf", "-FpftdiPTn"];

/// Reads all of it. The second number is how many network files could not be read.
#[must_use]
pub fn read(text: &str) -> (Vec<Socket>, usize) {
    let mut reader = Reader::default();
    for line in text.lines() {
        let mut characters = line.chars();
        let Some(kind) = characters.next() else { continue };
        reader.field(kind, characters.as_str());
    }
    reader.finish();
    (reader.sockets, reader.unreadable)
}

#[derive(Default)]
struct Reader {
    tgid: Option<u32>,
    file: Option<File>,
    sockets: Vec<Socket>,
    unreadable: usize,
}

#[derive(Default)]
struct File {
    six: bool,
    device: Option<u64>,
    inode: Option<u64>,
    protocol: Option<Protocol>,
    state: Option<String>,
    name: Option<String>,
}

impl Reader {
    fn field(&mut self, kind: char, value: &str) {
        match kind {
            'p' => {
                self.finish();
                self.tgid = value.parse().ok();
            }
            'f' => {
                self.finish();
                self.file = Some(File::default());
            }
            _ => {
                let Some(file) = &mut self.file else { return };
                match kind {
                    't' => file.six = value == "IPv6",
                    'd' => file.device = number(value),
                    'i' => file.inode = value.parse().ok(),
                    'P' => file.protocol = protocol(value),
                    'T' => {
                        if let Some(state) = value.strip_prefix("ST=") {
                            file.state = Some(state.to_owned());
                        }
                    }
                    'n' => file.name = Some(value.to_owned()),
                    _ => {}
                }
            }
        }
    }

    /// A descriptor's fields are all there.
    fn finish(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Without a protocol it is no network file that anybody asked for.
        let Some(protocol) = file.protocol else { return };
        match self.tgid.and_then(|tgid| socket(tgid, protocol, &file)) {
            Some(Some(socket)) => self.sockets.push(socket),
            Some(None) => {}
            None => self.unreadable += 1,
        }
    }
}

/// macOS writes the control block's address (`0x...`), Linux the inode number.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "UDPLITE" => Some(Protocol::Other(136)),
        "ICMP" => Some(Protocol::Other(1)),
        "ICMPV6" => Some(Protocol::Other(58)),
        _ => None,
    }
}

/// None: not readable. Some(None): a socket that talks to nobody.
fn socket(tgid: u32, protocol: Protocol, file: &File) -> Option<Option<Socket>> {
    let name = file.name.as_deref()?;
    let (local, peer) = match name.split_once("->") {
        Some((local, peer)) => (end(local, file.six)?, Some(end(peer, file.six)?)),
        None => (end(name, file.six)?, None),
    };
    let state = match (protocol, file.state.as_deref(), peer.is_some()) {
        (Protocol::Tcp, Some("LISTEN"), _) => State::Listening,
        (Protocol::Tcp, Some("SYN_SENT"), true) => State::Opening,
        (Protocol::Tcp, Some("ESTABLISHED"), true) | (_, None, true) => State::Open,
        (
            Protocol::Tcp,
            Some("FIN_WAIT_1" | "FIN_WAIT1" | "FIN_WAIT_2" | "FIN_WAIT2" | "CLOSE_WAIT" | "LAST_ACK" | "CLOSING"),
            true,
        ) => State::Closing,
        // CLOSED, IDLE, BOUND, SYN_RCVD, TIME_WAIT and whatever has no other end
        (Protocol::Tcp, _, _) => return Some(None),
        (_, _, true) => State::Open,
        (_, _, false) => State::Unconnected,
    };
    let key = file.device.or(file.inode)?;
    Some(Some(Socket { key, tgid, protocol, state, local, peer, bytes: None }))
}

/// `127.0.0.1:80`, `[::1]:80`, `*:80`, `*:*`; macOS writes a scope behind an IPv6 address (`[fe80::1%en0]:80`).
fn end(text: &str, six: bool) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let port = if port == "*" { 0 } else { port.parse().ok()? };
    let ip: IpAddr = match host {
        "*" if six => Ipv6Addr::UNSPECIFIED.into(),
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        host => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host.split('%').next()?.parse::<Ipv6Addr>().ok()?.to_canonical(),
            None => host.parse::<IpAddr>().ok()?.to_canonical(),
        },
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        process::Command,
    };

    use proptest::prelude::*;

    use super::*;

    /// As macOS's lsof 4.91 writes it, to its manual page.
    const MACOS: &str = "p812\nf23\ntIPv4\nd0x9f1c2ab4e5d6f701\nPTCP\nn10.0.0.5:53122->203.0.113.9:443\nTST=ESTABLISHED\n\
                         f24\ntIPv6\nd0x9f1c2ab4e5d6f702\nPTCP\nn*:8888\nTST=LISTEN\n\
                         f25\ntIPv6\nd0x9f1c2ab4e5d6f703\nPUDP\nn[fe80::1%en0]:5353->[2001:db8::5]:53\n\
                         f26\ntIPv4\nd0x9f1c2ab4e5d6f704\nPUDP\nn*:*\n\
                         f27\ntIPv4\nd0x9f1c2ab4e5d6f705\nPTCP\nn*:*\nTST=CLOSED\n\
                         p900\nf3\ntIPv4\nd0x1\nPTCP\nnlocalhost:http->x\nTST=ESTABLISHED\n";

    #[test]
    fn reads_what_macos_prints() {
        let (sockets, unreadable) = read(MACOS);
        let told: Vec<_> = sockets.iter().map(|s| (s.tgid, s.state, s.local.to_string(), s.peer)).collect();
        let at = |a: &str| Some(a.parse::<SocketAddr>().unwrap());
        assert_eq!(
            told,
            [
                (812, State::Open, "10.0.0.5:53122".to_owned(), at("203.0.113.9:443")),
                (812, State::Listening, "[::]:8888".to_owned(), None),
                (812, State::Open, "[fe80::1]:5353".to_owned(), at("[2001:db8::5]:53")),
                (812, State::Unconnected, "0.0.0.0:0".to_owned(), None),
            ]
        );
        assert_eq!(sockets[0].key, 0x9f1c_2ab4_e5d6_f701);
        assert_eq!(unreadable, 1);
    }

    #[test]
    fn reads_what_the_real_one_prints_of_this_process() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect("127.0.0.1:9").unwrap();
        let me = std::process::id();
        let output = Command::new("lsof").args(OPTIONS).args(["-a", "-p", &me.to_string()]).output();
        let output = output.expect("lsof is among the packages that `cargo xtask test` installs");
        let (sockets, unreadable) = read(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(unreadable, 0);
        let find =
            |local: SocketAddr, state| sockets.iter().find(|s| s.local == local && s.state == state && s.tgid == me);
        assert!(find(listener.local_addr().unwrap(), State::Listening).is_some());
        let open = find(client.local_addr().unwrap(), State::Open).unwrap();
        assert_eq!(open.peer, listener.local_addr().ok());
        let udp = find(udp.local_addr().unwrap(), State::Open).unwrap();
        assert_eq!((udp.protocol, udp.peer), (Protocol::Udp, Some("127.0.0.1:9".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([pftdiPTn]?[^\n]{0,40}\n){0,20}") {
            let (sockets, unreadable) = read(&text);
            prop_assert!(sockets.len() + unreadable <= text.lines().count());
        }
    }
}
