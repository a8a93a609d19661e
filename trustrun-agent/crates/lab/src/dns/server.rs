//! The name server's sockets, and the log of what was asked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::answer::{Plan, plan};
use super::forgery::Via;
use super::zone::{Entry, Zone, canonical};
use crate::arrivals::{Arrivals, Service};
use crate::defaults::{DNS_PORT, EVIL};
use crate::error::LabError;
use crate::net::NetNs;
use crate::service::{Conn, Pool, lock, receive_from, serve_tcp, udp_socket, wake};

/// Beyond this many queries, new ones are only counted.
const MAX_QUERIES: usize = 400_000;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection to port 53.
    Tcp,
    /// DNS over HTTP or HTTPS (`POST /dns-query`).
    Https,
}

/// One query that reached the name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// When it came.
    pub at: Instant,
    /// The name, in lower case, without the final dot.
    pub name: String,
    /// The name as it was written in the query.
    pub asked: String,
    /// The type: `A`, `AAAA`, ...
    pub kind: String,
    /// How it came.
    pub transport: Transport,
    /// Who asked.
    pub from: SocketAddr,
    /// Which resolver was asked.
    pub to: SocketAddr,
}

/// The name server. A clone is the same server.
#[derive(Clone, Debug)]
pub struct Dns {
    zone: Arc<RwLock<Zone>>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    queries: Vec<Query>,
    lost: u64,
}

impl Dns {
    pub(crate) fn new(zone: Zone) -> Self {
        Self { zone: Arc::new(RwLock::new(zone)), log: Arc::default() }
    }

    /// Everything that was asked since the start, or since it was last cleared.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        lock(&self.log).queries.clone()
    }

    /// Whether `name` was asked, in any way.
    #[must_use]
    pub fn was_asked(&self, name: &str) -> bool {
        let name = canonical(name);
        lock(&self.log).queries.iter().any(|query| query.name == name)
    }

    /// Queries that found the log full, and are only counted.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lock(&self.log).lost
    }

    /// Forgets what was asked.
    pub fn clear(&self) {
        lock(&self.log).queries.clear();
    }

    /// Adds or replaces a name while the lab runs.
    pub fn set(&self, name: &str, entry: Entry) {
        self.zone.write().unwrap_or_else(PoisonError::into_inner).set(name, entry);
    }

    /// Takes a name away while the lab runs.
    pub fn remove(&self, name: &str) {
        self.zone.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The addresses of a name, as the zone has them.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).addresses(name)
    }

    /// The honest answer to a query that came by another road (DNS over HTTPS).
    pub(crate) fn answer(
        &self,
        query: &[u8],
        transport: Transport,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<Vec<u8>> {
        self.decide(query, transport, from, to)?.honest
    }

    fn decide(&self, query: &[u8], transport: Transport, from: SocketAddr, to: SocketAddr) -> Option<Plan> {
        let plan = {
            let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
            plan(&zone, query, transport == Transport::Udp)?
        };
        let mut log = lock(&self.log);
        if log.queries.len() < MAX_QUERIES {
            log.queries.push(Query {
                at: Instant::now(),
                name: canonical(&plan.name),
                asked: plan.name.clone(),
                kind: plan.kind.clone(),
                transport,
                from,
                to,
            });
        } else {
            log.lost += 1;
        }
        Some(plan)
    }

    /// Answers on port 53 of `resolver`, over UDP and TCP.
    pub(crate) fn serve(&self, pool: &Arc<Pool>, netns: &NetNs, address: SocketAddr) -> Result<(), LabError> {
        let failed = |source| LabError::Listen { what: "DNS", address, source };
        let socket = Arc::new(udp_socket(pool, netns, "DNS", address)?);
        socket.set_read_timeout(Some(Duration::from_millis(500))).map_err(failed)?;
        let waker = Arc::clone(&socket);
        let (dns, workers) = (self.clone(), Arc::clone(pool));
        pool.dedicate("lab-dns", move || wake(&waker), move || dns.datagrams(&workers, &socket, address))
            .map_err(failed)?;
        // The name server's connections are in the log of queries; they are no arrivals.
        let (dns, unlogged) = (self.clone(), Arrivals::default());
        serve_tcp(pool, netns, ("DNS", address), (Service::TcpSink, &unlogged), move |conn| {
            // A client that goes away in the middle is no failure of the server.
            let _ = dns.connection(conn);
        })
    }

    fn datagrams(&self, pool: &Pool, socket: &Arc<UdpSocket>, address: SocketAddr) {
        let (stop, probes) = (pool.stop(), pool.probes());
        let mut buffer = [0; 4096];
        while !stop.is_set() {
            let Ok((length, from)) = receive_from(socket, &mut buffer) else { continue };
            if probes.saw(from) {
                continue;
            }
            let Some(plan) = self.decide(&buffer[..length], Transport::Udp, from, address) else { continue };
            match plan.delay {
                None => send(socket, address, from, &plan),
                Some(delay) => {
                    let (socket, stop) = (Arc::clone(socket), pool.stop());
                    pool.submit(move || {
                        if stop.sleep(delay) {
                            send(&socket, address, from, &plan);
                        }
                    });
                }
            }
        }
    }

    /// Queries on a connection, each after its length in two octets (RFC 1035 section 4.2.2).
    fn connection(&self, mut conn: Conn) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            conn.read_exact(&mut length)?;
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            conn.read_exact(&mut query)?;
            let Some(plan) = self.decide(&query, Transport::Tcp, conn.peer, conn.local) else { return Ok(()) };
            if plan.delay.is_some_and(|delay| !conn.stop.sleep(delay)) {
                return Ok(());
            }
            let Some(answer) = plan.honest else { return silence(&mut conn) };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            conn.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
        }
    }
}

/// A resolver that never answers leaves the connection open.
fn silence(conn: &mut Conn) -> io::Result<()> {
    let mut ignored = [0; 512];
    while conn.read(&mut ignored)? > 0 {}
    Ok(())
}

fn send(socket: &UdpSocket, address: SocketAddr, to: SocketAddr, plan: &Plan) {
    for (via, packet) in &plan.forged {
        // A forged packet that could not be sent shows in the test that waits for its effect.
        let _ = match via {
            Via::Resolver => socket.send_to(packet, to),
            Via::OtherPort => UdpSocket::bind((address.ip(), 0)).and_then(|other| other.send_to(packet, to)),
            Via::OtherAddress => UdpSocket::bind((EVIL, DNS_PORT)).and_then(|other| other.send_to(packet, to)),
        };
    }
    if let Some(answer) = &plan.honest {
        let _ = socket.send_to(answer, to);
    }
}
