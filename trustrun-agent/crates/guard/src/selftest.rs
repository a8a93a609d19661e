//! The canary: before the child starts, a process in the cgroup makes connections that every hook must see.

use std::{
    ffi::CString,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
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
    /// Whether the hook for unix sockets ran too, which not every kernel has.
    pub(crate) unix: bool,
}

/// Makes the canary's connections and checks that each hook ran and that the connection came through the ring. Whether
/// the hook for unix sockets ran too, which not every kernel has.
///
/// # Errors
/// If a hook did not see it.
pub(crate) fn run(loaded: &mut Loaded, ring: &mut Ring, cgroup: &Cgroup) -> Result<bool, GuardError> {
    let Seen { missing, unix, .. } = look(loaded, ring, cgroup, DEADLINE)?;
    if missing.is_empty() { Ok(unix) } else { Err(GuardError::SelfTest { missing }) }
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
    let unix = unix_address();
    // Outside the session, as this process is.
    let _unix = unix.as_ref().and_then(|a| UnixListener::bind_addr(a).ok());
    let to6 = v6.as_ref().map(|(a, _)| *a);
    let (pid, inside) = sys::split_into(cgroup.fd()?.as_fd()).map_err(GuardError::system("forking the canary"))?;
    match pid {
        None => {
            if inside || Cgroup::enter(&cgroup.path).is_ok() {
                canary(cgroup, to, datagrams, to6);
                drop(unix.map(|a| UnixStream::connect_addr(&a)));
            }
            sys::leave(0)
        }
        // Nobody accepts: the kernel completes the connection, and a canary that made none must not keep us waiting.
        Some(pid) => drop(waitpid(pid, None).map_err(GuardError::system("waiting for the canary"))?),
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

/// An abstract name that nobody else has.
fn unix_address() -> Option<UnixAddress> {
    use std::os::linux::net::SocketAddrExt as _;
    UnixAddress::from_abstract_name(format!("trustrun-canary-{}", std::process::id())).ok()
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
    Ok(Seen { missing, ran: (0..hook::COUNT).map(ran).collect(), unix: ran(hook::UNIX_PEER) })
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
