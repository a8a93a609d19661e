//! The far end: everything that is on the lab's only wire, and everything that its servers understood.
//!
//! A packet socket in the lab's network sees each packet that got past the session's hooks, whatever its protocol, so
//! that a way out needs no server that speaks it. A program that says "sent" or "refused" is not asked.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use trustrun_lab::{CLIENT, Lab, RESOLVER, RESOLVER_TWO, wait_until};

use crate::session::shared;
use crate::way::{Judge, address, address6, token};

/// Bytes of a packet that are kept: more than a token needs.
const KEPT: usize = 2048;
/// More packets than any family makes.
const MOST: usize = 400_000;
/// The lab's, and the one that nobody serves.
const RESOLVERS: [IpAddr; 3] =
    [IpAddr::V4(RESOLVER), IpAddr::V4(RESOLVER_TWO), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 55))];
/// A protocol number.
const ICMP: u8 = 1;
const MARK: &[u8] = b"end-of-what-was-sent";

type Packets = Arc<Mutex<Vec<Vec<u8>>>>;

/// What is on the wire, from its making on.
pub(crate) struct Wire<'a> {
    lab: &'a Lab,
    packets: Packets,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Wire<'a> {
    pub(crate) fn tapped(lab: &'a Lab) -> Self {
        let socket = lab.inside(tap).expect("a thread in the lab");
        let (packets, stop) = (Packets::default(), Arc::new(AtomicBool::new(false)));
        let (list, end) = (Arc::clone(&packets), Arc::clone(&stop));
        let thread = std::thread::spawn(move || listen(&socket, &list, &end));
        Self { lab, packets, stop, thread: Some(thread) }
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        self.settle();
        self.lab.clear();
        self.list().clear();
        for entry in fs::read_dir(shared(self.lab)).expect("our own folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with("door-") {
                fs::remove_file(entry.path()).expect("a file of a way's");
            }
        }
    }

    /// Waits until everything that was sent before is known: the wire keeps the order.
    pub(crate) fn settle(&self) {
        assert!(self.lab.settle(Duration::from_secs(60)), "the lab did not settle: {:?}", self.lab.arrived());
        let before = self.marks();
        let send = || UdpSocket::bind((CLIENT, 0)).and_then(|socket| socket.send_to(MARK, (CLIENT, 9)));
        self.lab.inside(send).expect("a thread in the lab").expect("a datagram to ourselves");
        // Once as it goes out, once as it comes in.
        let seen = wait_until(Duration::from_secs(30), || self.marks() >= before + 2);
        assert!(seen, "the tap does not see what is sent");
        assert!(self.list().len() < MOST, "more packets than the tap keeps");
    }

    /// What shows that a way was open; nothing if it was not.
    pub(crate) fn seen(&self, number: usize, judge: Judge) -> Option<String> {
        if judge == Judge::Door {
            let door = shared(self.lab).join(format!("door-{}", token(number)));
            return door.exists().then(|| "the door was open".to_owned());
        }
        let (token, own) = (token(number), [IpAddr::from(address(number)), address6(number).into()]);
        let packets = self.list();
        let by_address = packets.iter().filter(|p| destination(p).is_some_and(|to| own.contains(&to))).count();
        let by_token = packets.iter().filter(|p| contains(p, token.as_bytes())).count();
        let to_resolver = |p: &[u8]| destination(p).is_some_and(|to| RESOLVERS.contains(&to));
        let quoted = packets.iter().filter(|p| contains(p, token.as_bytes()) && to_resolver(p)).count();
        let said = |p: &&Vec<u8>| contains(p, token.as_bytes()) && to_resolver(p) && p.get(23) != Some(&ICMP);
        let queries = packets.iter().filter(said).count();
        drop(packets);
        let has = |text: &Option<String>| text.as_ref().is_some_and(|t| t.contains(&token));
        let read = self.lab.arrived().iter().filter(|a| has(&a.host) || has(&a.sni) || has(&a.request)).count();
        let asked = self.lab.dns().queries().iter().filter(|q| q.name.contains(&token)).count();
        let open = match judge {
            Judge::Asked => queries + asked > 0,
            Judge::Quoted => quoted + asked > 0,
            Judge::Packet => by_address + by_token + read + asked > 0,
            Judge::Token | Judge::Door => by_token + read + asked > 0,
        };
        open.then(|| format!("{by_address} packets to its address, token in {by_token}, read {read}, asked {asked}"))
    }

    fn marks(&self) -> usize {
        self.list().iter().filter(|p| contains(p, MARK)).count()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tap() -> OwnedFd {
    let socket =
        nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
    let socket = socket.expect("a packet socket in the lab");
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("room for what is sent");
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000)).expect("a timeout");
    socket
}

fn listen(socket: &OwnedFd, packets: &Packets, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) else { continue };
        let mut list = packets.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < MOST {
            list.push(buffer[..length.min(KEPT)].to_vec());
        }
    }
}

/// The destination of an IP packet in an Ethernet frame.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?)),
        _ => None,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
