//! Listening sockets, and what a server is given when somebody connects.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};

use super::pool::{Pool, Stop};
use super::probes::Door;
use crate::arrivals::{Arrivals, Service, Ticket};
use crate::error::LabError;
use crate::net::NetNs;

/// No read and no write of a server waits longer than this for its peer.
pub(crate) const IDLE: Duration = Duration::from_secs(20);

/// An accepted connection. Every byte that it reads is entered into the far-end log.
pub(crate) struct Conn {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) ticket: Ticket,
    pub(crate) stop: Arc<Stop>,
    watched: u64,
}

impl Conn {
    fn new(stream: TcpStream, peer: SocketAddr, service: Service, log: &Arrivals, stop: Arc<Stop>) -> io::Result<Self> {
        let local = plain(stream.local_addr()?);
        let peer = plain(peer);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        let stream = Arc::new(stream);
        let watched = stop.watch(&stream);
        let ticket = log.open(service, local, peer);
        Ok(Self { stream, local, peer, ticket, stop, watched })
    }
}

impl Read for Conn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (&*self.stream).read(buffer)?;
        self.ticket.received(&buffer[..length]);
        Ok(length)
    }
}

impl Write for Conn {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.stop.forget(self.watched);
        self.ticket.close();
    }
}

/// Listens on `address` inside the lab and has `serve` called for each connection, on a worker of the pool.
pub(crate) fn serve_tcp(
    pool: &Arc<Pool>,
    netns: &NetNs,
    (what, address): (&'static str, SocketAddr),
    (service, log): (Service, &Arrivals),
    serve: impl Fn(Conn) + Send + Sync + 'static,
) -> Result<(), LabError> {
    let failed = |source| LabError::Listen { what, address, source };
    let listener = inside(netns, move || tcp_listener(address)).map_err(failed)?;
    let listener = Arc::new(listener);
    let waker = Arc::clone(&listener);
    let wake = move || {
        let _ = socket::shutdown(waker.as_raw_fd(), socket::Shutdown::Both);
    };
    let (serve, log, stop, probes) = (Arc::new(serve), log.clone(), pool.stop(), pool.probes());
    probes.add(Door::Tcp(address));
    let workers = Arc::clone(pool);
    pool.dedicate(what, wake, move || {
        while !stop.is_set() {
            let Ok((stream, peer)) = listener.accept() else {
                // Out of descriptors, a client that already went, or the end.
                stop.sleep(Duration::from_millis(5));
                continue;
            };
            if probes.saw(peer) {
                continue;
            }
            if let Ok(conn) = Conn::new(stream, peer, service, &log, Arc::clone(&stop)) {
                let serve = Arc::clone(&serve);
                workers.submit(move || serve(conn));
            }
        }
    })
    .map_err(failed)
}

/// Runs `make` on a thread inside the lab: a socket belongs to the network in which it was made.
fn inside<T: Send + 'static>(netns: &NetNs, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let netns = netns.clone();
    let thread = std::thread::Builder::new().name("lab-listen".into()).spawn(move || {
        netns.enter()?;
        make()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the listening thread panicked")))
}

/// A UDP socket inside the lab.
pub(crate) fn udp_socket(
    pool: &Pool,
    netns: &NetNs,
    what: &'static str,
    address: SocketAddr,
) -> Result<UdpSocket, LabError> {
    pool.probes().add(Door::Udp(address));
    inside(netns, move || {
        let fd = raw_socket(address, SockType::Datagram)?;
        setsockopt(&fd, sockopt::RcvBuf, &(4 << 20))?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        Ok(UdpSocket::from(fd))
    })
    .map_err(|source| LabError::Listen { what, address, source })
}

/// Connects from a chosen address, so that the far end can tell a proxy from a program. Only for threads of the pool.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = raw_socket(to, SockType::Stream)?;
    if from.is_ipv4() == to.is_ipv4() {
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    // Everything is local: the handshake ends, one way or the other, before connect returns.
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// Half-closes, ignoring a peer that already went.
pub(super) fn end_of_output(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = raw_socket(address, SockType::Stream)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    // As long as the kernel allows: thousands of clients may start at the same moment.
    socket::listen(&fd, socket::Backlog::MAXALLOWABLE)?;
    Ok(TcpListener::from(fd))
}

fn raw_socket(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

/// A v4-mapped address is an IPv4 address to everyone who reads the log.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
