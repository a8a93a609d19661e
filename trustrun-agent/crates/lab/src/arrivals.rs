//! The far-end log: what really arrived at the lab's servers. It is the judge of the tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::service::lock;

/// Beyond this many arrivals, new ones are only counted.
const MAX_ARRIVALS: usize = 400_000;
/// How many of the first bytes are kept.
const KEPT: usize = 64;

/// Which of the lab's servers it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// HTTP in the clear (port 80).
    Http,
    /// HTTP over TLS (port 443).
    Https,
    /// A TCP echo.
    TcpEcho,
    /// A TCP sink: it reads and never answers.
    TcpSink,
    /// A UDP echo.
    UdpEcho,
    /// A UDP sink, multicast included.
    UdpSink,
    /// The HTTP forward proxy.
    HttpProxy,
    /// The SOCKS proxy.
    SocksProxy,
}

/// One connection (or, over UDP, one pair of addresses) that reached a server of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it was accepted, or its first datagram came.
    pub at: Instant,
    /// Who received it.
    pub service: Service,
    /// The address that the client asked for.
    pub local: SocketAddr,
    /// The client. [`crate::PROXY`]'s address when a proxy of the lab came on behalf of somebody.
    pub peer: SocketAddr,
    /// The server name of the ClientHello, where there was one.
    pub sni: Option<String>,
    /// The `Host` of the first request; at a proxy the authority that was asked for (`name:port`).
    pub host: Option<String>,
    /// Method and path of the first request, such as `GET /`.
    pub request: Option<String>,
    /// HTTP requests on this connection, or datagrams.
    pub requests: u64,
    /// Bytes received from the client on the wire (for HTTPS: of TLS), at this moment.
    pub bytes: u64,
    /// The first bytes of them, at most 64.
    pub first: Vec<u8>,
    /// Whether the connection is over.
    pub closed: bool,
}

/// The log. A clone is the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Arrivals are numbered from the start of the lab; clearing raises `base`.
    base: u64,
    list: Vec<Arrival>,
    datagrams: HashMap<(SocketAddr, SocketAddr), u64>,
    lost: u64,
}

impl State {
    fn add(&mut self, service: Service, local: SocketAddr, peer: SocketAddr) -> u64 {
        if self.list.len() >= MAX_ARRIVALS {
            self.lost += 1;
            return u64::MAX;
        }
        self.list.push(Arrival {
            at: Instant::now(),
            service,
            local,
            peer,
            sni: None,
            host: None,
            request: None,
            requests: 0,
            bytes: 0,
            first: Vec::new(),
            closed: false,
        });
        self.base + self.list.len() as u64 - 1
    }

    fn get(&mut self, number: u64) -> Option<&mut Arrival> {
        let index = number.checked_sub(self.base)?;
        self.list.get_mut(usize::try_from(index).ok()?)
    }
}

impl Arrival {
    fn receive(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = KEPT - self.first.len();
        self.first.extend(bytes.iter().take(room));
    }
}

impl Arrivals {
    pub(crate) fn open(&self, service: Service, local: SocketAddr, peer: SocketAddr) -> Ticket {
        let number = lock(&self.state).add(service, local, peer);
        Ticket { log: self.clone(), number }
    }

    /// One datagram: counted with the earlier ones of the same two addresses.
    pub(crate) fn datagram(&self, service: Service, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let number = match state.datagrams.get(&(local, peer)) {
            Some(number) => *number,
            None => {
                let number = state.add(service, local, peer);
                state.datagrams.insert((local, peer), number);
                number
            }
        };
        if let Some(arrival) = state.get(number) {
            arrival.requests += 1;
            arrival.receive(bytes);
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<Arrival> {
        lock(&self.state).list.clone()
    }

    /// Whether every connection is over. Datagrams have no end.
    pub(crate) fn all_closed(&self) -> bool {
        let datagram = |service| matches!(service, Service::UdpEcho | Service::UdpSink);
        lock(&self.state).list.iter().all(|arrival| arrival.closed || datagram(arrival.service))
    }

    pub(crate) fn lost(&self) -> u64 {
        lock(&self.state).lost
    }

    pub(crate) fn clear(&self) {
        let mut state = lock(&self.state);
        state.base += state.list.len() as u64;
        state.list.clear();
        state.datagrams.clear();
    }
}

/// The log's entry of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    log: Arrivals,
    number: u64,
}

impl Ticket {
    pub(crate) fn received(&self, bytes: &[u8]) {
        self.edit(|arrival| arrival.receive(bytes));
    }

    pub(crate) fn sni(&self, name: Option<&str>) {
        self.edit(|arrival| arrival.sni = name.map(str::to_owned));
    }

    pub(crate) fn requested(&self, host: Option<&str>, request: &str) {
        self.edit(|arrival| {
            arrival.requests += 1;
            if arrival.requests == 1 {
                arrival.host = host.map(str::to_owned);
                arrival.request = Some(request.to_owned());
            }
        });
    }

    pub(crate) fn close(&self) {
        self.edit(|arrival| arrival.closed = true);
    }

    fn edit(&self, change: impl FnOnce(&mut Arrival)) {
        if let Some(arrival) = lock(&self.log.state).get(self.number) {
            change(arrival);
        }
    }
}
