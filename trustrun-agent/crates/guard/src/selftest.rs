//! The canary: before the child starts, a process in the cgroup makes connections that every hook must see.

use std::{
    ffi::CString,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use nix::sys::wait::waitpid;
use trustrun_common::{HOOK_NAMES, counter, hook};
use trustrun_model::Fact;
use trustrun_observe::{Clock, Ring, decode};

use crate::{Cgroup, GuardError, load::Loaded, sys};

/// How long the canary's events may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// How long to let them come: asking costs a system call for each hook.
const PAUSE: Duration = Duration::from_micros(200);

/// What came of the canary.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Hooks that should have seen it and did not.
    pub(crate) missing: Vec<String>,
    /// Which hooks ran, by number; those for IPv6 do not on a host without.
    pub(crate) ran: Vec<bool>,
    /// Whether the hook for unix sockets, which not every kernel has, told of what came over the border and of what went.
    pub(crate) unix: bool,
    /// Whether those that guard the border judged both ways, which few kernels have.
    pub(crate) border: bool,
}

/// Makes the canary's connections and checks that each hook ran and that the connection came through the ring; what
/// of the hooks ran that not every kernel has.
///
/// # Errors
/// If a hook did not see it.
pub(crate) fn run(loaded: &mut Loaded, ring: &mut Ring, cgroup: &Cgroup) -> Result<Seen, GuardError> {
    let seen = look(loaded, ring, cgroup, DEADLINE)?;
    if seen.missing.is_empty() { Ok(seen) } else { Err(GuardError::SelfTest { missing: seen.missing }) }
}

/// Makes the canary's connections; what was seen of them within `patience`.
///
/// # Errors
/// If there is no canary, or the kernel cannot be asked.
pub(crate) fn look(
    loaded: &mut Loaded,
    ring: &mut Ring,
    cgroup: &Cgroup,
    patience: Duration,
) -> Result<Seen, GuardError> {
    let failed = |what| move |source| GuardError::System { what, source };
    let tcp = TcpListener::bind("127.0.0.1:0").map_err(failed("the canary's listener"))?;
    let udp = UdpSocket::bind("127.0.0.1:0").map_err(failed("the canary's socket"))?;
    let (to, datagrams) = (
        tcp.local_addr().map_err(failed("the canary's address"))?,
        udp.local_addr().map_err(failed("the canary's address"))?,
    );
    let v6 = TcpListener::bind("[::1]:0").ok().and_then(|l| Some((l.local_addr().ok()?, l)));
    let border = Border::new();
    let to6 = v6.as_ref().map(|(a, _)| *a);
    let (pid, inside) = sys::split_into(cgroup.fd()?.as_fd()).map_err(GuardError::system("forking the canary"))?;
    match pid {
        None => {
            if inside || Cgroup::enter(&cgroup.path).is_ok() {
                canary(cgroup, to, datagrams, to6);
                if let Some(border) = border {
                    border.go();
                }
            }
            sys::leave(0)
        }
        // Nobody accepts: the kernel completes the connection, and a canary that made none must not keep us waiting.
        Some(pid) => {
            if let Some(border) = border {
                border.visit();
            }
            let _ = waitpid(pid, None).map_err(GuardError::system("waiting for the canary"))?;
        }
    }
    let end = Instant::now() + patience;
    let (clock, mut came) = (Clock::new(), false);
    loop {
        ring.drain(usize::MAX, |record| {
            came |= matches!(decode(record, &clock), Ok(o)
                if matches!(&o.fact, Fact::Opened { flow, .. } if flow.peer == to));
        });
        let seen = seen(loaded, v6.is_some(), came)?;
        if seen.missing.is_empty() || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What crosses the session's border over unix sockets: the canary goes out, and this process, which is outside, comes in.
struct Border {
    /// Where this process listens, for streams and for datagrams.
    outside: [UnixAddress; 2],
    _listeners: (UnixListener, UnixDatagram),
    /// Where the canary does.
    inside: [UnixAddress; 2],
    /// By which it says so, and waits for the visit to be over.
    ours: UnixStream,
    theirs: UnixStream,
}

impl Border {
    /// None where such sockets cannot be made; then nothing is seen of them.
    fn new() -> Option<Self> {
        let (outside, inside) = (addresses("out")?, addresses("in")?);
        let listeners = listen(&outside)?;
        let (ours, theirs) = UnixStream::pair().ok()?;
        ours.set_read_timeout(Some(DEADLINE)).and_then(|()| theirs.set_read_timeout(Some(DEADLINE))).ok()?;
        Some(Self { outside, _listeners: listeners, inside, ours, theirs })
    }

    /// In the canary.
    fn go(self) {
        let Self { outside, inside, ours, theirs, .. } = self;
        drop(ours);
        knock(&outside);
        let Some(_listeners) = listen(&inside) else { return };
        let _ = (&theirs).write_all(b"!");
        // Until the other end is closed.
        let _ = (&theirs).read(&mut [0]);
    }

    /// Outside: waits until the canary listens or is gone.
    fn visit(self) {
        drop(self.theirs);
        if (&self.ours).read(&mut [0]).is_ok_and(|n| n > 0) {
            knock(&self.inside);
        }
    }
}

fn listen([stream, datagram]: &[UnixAddress; 2]) -> Option<(UnixListener, UnixDatagram)> {
    Some((UnixListener::bind_addr(stream).ok()?, UnixDatagram::bind_addr(datagram).ok()?))
}

/// Connects, and sends a datagram, once each.
fn knock([stream, datagram]: &[UnixAddress; 2]) {
    drop(UnixStream::connect_addr(stream));
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to_addr(b"canary", datagram);
    }
}

fn addresses(end: &str) -> Option<[UnixAddress; 2]> {
    Some([abstract_address(end, "stream")?, abstract_address(end, "datagram")?])
}

/// An abstract name that nobody else has.
fn abstract_address(end: &str, kind: &str) -> Option<UnixAddress> {
    use std::os::linux::net::SocketAddrExt as _;
    UnixAddress::from_abstract_name(format!("trustrun-canary-{end}-{kind}-{}", std::process::id())).ok()
}

/// Which hooks ran, and which of them should have.
fn seen(loaded: &mut Loaded, v6: bool, came: bool) -> Result<Seen, GuardError> {
    let counters = loaded.counters()?;
    let only6 = [hook::CONNECT6, hook::SENDMSG6, hook::POST_BIND6];
    let ran = |i: u32| counters.get((counter::HOOK + i) as usize).is_some_and(|n| *n > 0);
    let mut missing: Vec<String> = (0..hook::COUNT)
        .filter(|i| !ran(*i) && (v6 || !only6.contains(i)))
        .filter_map(|i| HOOK_NAMES.get(i as usize).map(|n| (*n).to_owned()))
        .collect();
    if !came {
        missing.push("ring buffer".into());
    }
    let both = |i: u32| counters.get((counter::HOOK + i) as usize).is_some_and(|n| *n > 1);
    Ok(Seen {
        missing,
        ran: (0..hook::COUNT).map(ran).collect(),
        unix: ran(hook::UNIX_PEER) && ran(hook::UNIX_VISIT),
        border: both(hook::UNIX_CONNECT) && both(hook::UNIX_SEND),
    })
}

/// In the canary: uses every hook once.
fn canary(cgroup: &Cgroup, tcp: SocketAddr, udp: SocketAddr, tcp6: Option<SocketAddr>) {
    // A fork, a move (into the cgroup where it is already: that waits some milliseconds, so it goes on beside the
    // connections) and an exec; the program does nothing with that argument.
    if let Ok(None) = sys::split() {
        let _ = Cgroup::enter(&cgroup.path);
        let arguments: Vec<CString> =
            ["trustrun", "--canary"].into_iter().filter_map(|a| CString::new(a).ok()).collect();
        if let Ok(program) = CString::new("/proc/self/exe") {
            sys::execute(&program, &arguments, &[]);
        }
        sys::leave(0);
    }
    drop(TcpStream::connect(tcp));
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
        let _ = socket.send_to(b"canary", udp);
    }
    if let Some(to) = tcp6 {
        drop(TcpStream::connect(to));
        if let Ok(socket) = UdpSocket::bind("[::1]:0") {
            let _ = socket.send_to(b"canary", to);
        }
    }
    let _ = nix::sys::wait::wait();
}
