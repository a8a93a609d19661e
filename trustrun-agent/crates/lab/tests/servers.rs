//! The lab's servers, driven from Rust: what cannot be seen through a program's own tools.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::{lab, started};
use trustrun_lab::{
    ALLOWED, ALLOWED_V6, Behaviour, CLIENT, ECHO_PORT, EVIL, Entry, Forger, Forgery, HONEST, Lab, MULTICAST_V4,
    NAMELESS, RESOLVER, Service, wait_until,
};

/// Asks the first resolver for an A record and gives every packet that comes back on the socket within 300 ms.
fn ask(name: &str) -> Vec<(SocketAddr, Vec<u8>)> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, (RESOLVER, 53)).expect("sent");
    let mut packets = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        packets.push((from, buffer[..length].to_vec()));
        if packets.len() == 2 {
            break;
        }
    }
    packets
}

fn holds(packet: &[u8], address: Ipv4Addr) -> bool {
    packet.windows(4).any(|window| window == address.octets())
}

#[test]
fn the_lab_starts_and_ends_quickly() {
    let Some(first) = lab() else { return };
    drop(first);
    let before = Instant::now();
    let lab = lab().expect("once more");
    let started = before.elapsed();
    let before = Instant::now();
    drop(lab);
    eprintln!("start {started:?}, end {:?}", before.elapsed());
    assert!(started < Duration::from_millis(1000), "start {started:?}");
    assert!(before.elapsed() < Duration::from_millis(1000), "end {:?}", before.elapsed());
}

#[test]
fn forged_answers_come_before_the_honest_one() {
    let Some(lab) = lab() else { return };
    for forgery in Forgery::ALL {
        let packets = lab.inside(|| ask(&format!("{}.hostile.test", forgery.label()))).expect("inside");
        assert_eq!(packets.len(), 2, "{forgery:?}");
        let (from, forged) = &packets[0];
        let honest = SocketAddr::from((RESOLVER, 53));
        match forgery {
            Forgery::OtherPort => assert!(from.ip() == RESOLVER && from.port() != 53),
            Forgery::OtherAddress => assert_eq!(*from, SocketAddr::from((EVIL, 53))),
            _ => assert_eq!(*from, honest),
        }
        // Two of them have no room for the whole address.
        let cut = matches!(forgery, Forgery::Cut | Forgery::ShortRdlength);
        assert!(cut || holds(forged, EVIL), "{forgery:?}: {forged:?}");
        assert_eq!(packets[1].0, honest);
        assert!(holds(&packets[1].1, HONEST) && !holds(&packets[1].1, EVIL), "{forgery:?}");
    }
}

#[test]
fn a_test_sends_packets_of_its_own() {
    let raw = Forger::new(|query| vec![query.to_vec()]);
    let entry = Entry::new().a(ALLOWED).behaviour(Behaviour::Raw(raw));
    let Some(lab) = started(Lab::builder().name("raw.test", entry)) else { return };
    let packets = lab.inside(|| ask("raw.test")).expect("inside");
    assert_eq!(packets[0].1[..2], [0x12, 0x34]);
    assert_eq!(packets[0].1[2] & 0x80, 0);
    assert!(holds(&packets[1].1, ALLOWED));
}

#[test]
fn answers_give_back_the_case_that_was_asked() {
    let Some(lab) = lab() else { return };
    let packets = lab.inside(|| ask("aPi.AlLowEd.tEst")).expect("inside");
    assert!(packets[0].1.windows(7).any(|window| window == b"AlLowEd"));
    assert!(holds(&packets[0].1, ALLOWED));
    // The answer's owner is a pointer to the question (compression).
    assert!(packets[0].1.windows(2).any(|window| window == [0xc0, 12]));
    let query = lab.dns().queries().pop().expect("a query");
    assert_eq!((query.name.as_str(), query.asked.as_str()), ("api.allowed.test", "aPi.AlLowEd.tEst"));
    assert_eq!(query.from.ip(), CLIENT);
}

#[test]
fn the_zone_changes_while_the_lab_runs() {
    let Some(lab) = lab() else { return };
    assert!(!holds(&lab.inside(|| ask("new.test")).expect("inside")[0].1, NAMELESS));
    lab.dns().set("new.test", Entry::new().a(NAMELESS));
    assert!(holds(&lab.inside(|| ask("new.test")).expect("inside")[0].1, NAMELESS));
    assert!(lab.inside(|| ask("silent.test")).expect("inside").is_empty());
}

#[test]
fn udp_echoes_from_the_address_that_was_asked() {
    let Some(lab) = lab() else { return };
    let echo = |from: &str, to: SocketAddr| {
        let socket = UdpSocket::bind(from).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        // Connected: the kernel takes an answer from no other address.
        socket.connect(to).expect("connected");
        socket.send(b"hello").expect("sent");
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).expect("an echo");
        assert_eq!(&buffer[..length], b"hello");
    };
    lab.inside(|| {
        echo("0.0.0.0:0", (EVIL, ECHO_PORT).into());
        echo("0.0.0.0:0", (Ipv4Addr::new(100, 70, 1, 2), ECHO_PORT).into());
        echo("[::]:0", (ALLOWED_V6, ECHO_PORT).into());
    })
    .expect("inside");
    let arrived = lab.arrived_at(EVIL);
    assert_eq!((arrived.len(), arrived[0].service, arrived[0].bytes), (1, Service::UdpEcho, 5));
    assert_eq!(arrived[0].peer.ip(), CLIENT);
    assert_eq!(lab.arrived_at(ALLOWED_V6).len(), 1);
}

#[test]
fn multicast_arrives() {
    let Some(lab) = lab() else { return };
    lab.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"to all", (MULTICAST_V4, 9999)).expect("sent");
    })
    .expect("inside");
    assert!(wait_until(Duration::from_secs(5), || !lab.arrived_at(MULTICAST_V4).is_empty()), "{:?}", lab.arrived());
}

#[test]
fn tcp_echoes_and_sinks() {
    let Some(lab) = lab() else { return };
    lab.inside(|| {
        let mut stream = TcpStream::connect((ALLOWED, ECHO_PORT)).expect("connected");
        stream.write_all(b"hello").expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an echo");
        assert_eq!(text, "hello");
        TcpStream::connect((EVIL, 9)).expect("connected").write_all(&[7; 1000]).expect("sent");
    })
    .expect("inside");
    assert!(wait_until(Duration::from_secs(5), || lab.arrived_at(EVIL).iter().any(|a| a.closed && a.bytes == 1000)));
    assert_eq!(lab.arrived_at(EVIL)[0].first, [7; 64]);
}

#[test]
fn thousands_of_connections_are_all_in_the_log() {
    const EACH: usize = 1000;
    let Some(lab) = lab() else { return };
    let before = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..4u8 {
            let lab = &lab;
            scope.spawn(move || {
                lab.inside(|| {
                    for n in 0..EACH {
                        let address = Ipv4Addr::new(100, 64 + part, (n >> 8) as u8, n as u8);
                        let mut stream = TcpStream::connect((address, 80)).expect("connected");
                        stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").expect("sent");
                        let mut text = String::new();
                        stream.read_to_string(&mut text).expect("an answer");
                        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                    }
                })
                .expect("inside");
            });
        }
    });
    eprintln!("{} requests in {:?}", 4 * EACH, before.elapsed());
    assert!(lab.settle(Duration::from_secs(10)));
    assert_eq!(lab.arrived().len(), 4 * EACH);
    assert_eq!(lab.arrivals_lost(), 0);
}
