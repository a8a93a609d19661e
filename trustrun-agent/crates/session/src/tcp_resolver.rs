//! The agent's own resolver for DNS over TCP.
//!
//! The kernel reads DNS only in datagrams. So the target's TCP connections to its resolvers are redirected here: each
//! question is judged as the kernel would, asked at the real resolver, and its addresses are bound *before* the
//! answer goes back, so that the connect that follows finds them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use trustrun_guard::{Channel, Name, Order};
use trustrun_model::Instants;
use trustrun_observe::Clock;
use trustrun_policy::{Class, Matcher};
use trustrun_wire::dns::{self, Message, TcpFrames};

use crate::Judge;

/// How long a client or a resolver may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at once.
const MOST: usize = 64;
/// Most lookups that wait to be recorded.
const BACKLOG: usize = 4096;

/// One lookup that was made over TCP, for the record.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// When, before the answer went back.
    pub(crate) at: Instants,
    /// The client's own end, which finds its connection.
    pub(crate) client: SocketAddr,
    /// The question as it was asked.
    pub(crate) query: Vec<u8>,
    /// The answer, where one was had.
    pub(crate) answer: Option<Vec<u8>>,
}

/// What the resolver works with.
#[derive(Debug)]
pub(crate) struct Resolver {
    policy: Arc<Matcher>,
    enforce: bool,
    search: Vec<String>,
    upstream: Vec<IpAddr>,
    binder: Mutex<Channel>,
    record: SyncSender<Lookup>,
    busy: AtomicUsize,
    clock: Clock,
}

/// Serves the listeners in threads of their own until the process ends.
pub(crate) fn serve(
    listeners: [Option<TcpListener>; 2],
    policy: Arc<Matcher>,
    judge: &Judge,
    binder: Channel,
    clock: Clock,
) -> Receiver<Lookup> {
    let (record, lookups) = mpsc::sync_channel(BACKLOG);
    let resolver = Arc::new(Resolver {
        policy,
        enforce: judge.enforce,
        search: judge.search.clone(),
        upstream: judge.resolvers.clone(),
        binder: Mutex::new(binder),
        record,
        busy: AtomicUsize::new(0),
        clock,
    });
    for listener in listeners.into_iter().flatten() {
        let resolver = Arc::clone(&resolver);
        thread::spawn(move || resolver.accept(&listener));
    }
    lookups
}

impl Resolver {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST {
                self.busy.fetch_sub(1, Ordering::Relaxed);
                continue; // closed: the client asks again
            }
            let resolver = Arc::clone(&self);
            thread::spawn(move || {
                let _ = resolver.answer_all(client);
                resolver.busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    fn answer_all(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let peer = client.peer_addr()?;
        let mut frames = TcpFrames::new();
        let mut buffer = [0; 4096];
        loop {
            let n = client.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            let mut bytes = buffer.get(..n).unwrap_or_default();
            while let Some(query) = frames.next(&mut bytes) {
                let Some(answer) = self.resolve(peer, &query) else { return Ok(()) };
                client.write_all(&framed(&answer))?;
            }
        }
    }

    /// The answer to one question; `None` for what is no question, which ends the connection.
    fn resolve(&self, client: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
        let asked = Message::decode(query).ok()?;
        let name = asked.question.name.as_str();
        let expansion = || self.policy.is_search_expansion(Class::default(), name, &self.search).is_some();
        let refuses = self.enforce && self.policy.decide_query(name).action.refuses();
        if refuses && !expansion() {
            let answer = dns::negative_answer(query, dns::NXDOMAIN);
            self.tell(client, query, answer.as_deref());
            return answer;
        }
        let real = self.ask(query, &asked);
        if let (Some(message), false) = (&real, refuses) {
            self.bind(name, message);
        }
        self.tell(client, query, real.as_deref());
        real.or_else(|| dns::negative_answer(query, dns::SERVFAIL))
    }

    fn tell(&self, client: SocketAddr, query: &[u8], answer: Option<&[u8]>) {
        let lookup = Lookup { at: self.clock.now(), client, query: query.into(), answer: answer.map(Into::into) };
        // Waits while the engine is behind: a lookup that is not recorded would be a name that is not known.
        let _ = self.record.send(lookup);
    }

    /// Binds every address of the answer and waits until the guard did.
    fn bind(&self, name: &str, answer: &[u8]) {
        let (Ok(message), Some(name)) = (Message::decode(answer), Name::new(name)) else { return };
        if message.flags.rcode != dns::NOERROR {
            return;
        }
        let Ok(binder) = self.binder.lock() else { return };
        for (address, ttl) in message.addresses() {
            if binder.order(Order::Bind { address, name, ttl }).is_err() || binder.receive().is_none() {
                return;
            }
        }
    }

    /// Asks the target's resolvers in turn.
    fn ask(&self, query: &[u8], asked: &Message) -> Option<Vec<u8>> {
        self.upstream.iter().find_map(|resolver| {
            let answer = exchange(SocketAddr::new(*resolver, 53), query).ok()?;
            Message::decode(&answer).is_ok_and(|m| dns::matches(asked, &m)).then_some(answer)
        })
    }
}

fn exchange(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&resolver, PATIENCE / 2)?;
    stream.set_read_timeout(Some(PATIENCE / 2))?;
    stream.set_write_timeout(Some(PATIENCE / 2))?;
    stream.write_all(&framed(query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// RFC 1035 4.2.2: two bytes of length first.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message.get(..usize::from(length)).unwrap_or_default()].concat()
}
