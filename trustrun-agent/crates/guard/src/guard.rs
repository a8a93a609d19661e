//! The guard process: root, single-threaded, never stopped by the terminal.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid, setsid},
};
use trustrun_common::{Address, Config, counter};

use crate::{Cgroup, GuardError, Hierarchy, Note, Order, message::SIZE, sys};
#[cfg(feature = "ebpf")]
use crate::{FinalFlow, load::Loaded};

/// How long the rest of the cgroup may live on after the first child.
const GRACE: Duration = Duration::from_secs(10);
/// How long the engine may take for its report.
const REPORT: Duration = Duration::from_secs(60);
/// How often old bindings are forgotten and links looked after.
const SWEEP: Duration = Duration::from_secs(30);

/// A message socket between two of our processes.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    fn pair() -> Result<(Self, Self), GuardError> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(GuardError::system("socketpair"))?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the other side is gone.
    pub fn order(&self, order: Order) -> io::Result<()> {
        self.send(&order.to_bytes())
    }

    fn note(&self, note: Note) -> io::Result<()> {
        self.send(&note.to_bytes())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR) => self.send(bytes),
            Err(e) => Err(e.into()),
        }
    }

    /// Receives a note; `None` when the guard is gone.
    #[must_use]
    pub fn receive(&self) -> Option<Note> {
        let (bytes, n) = self.read(MsgFlags::empty())?;
        Note::from_bytes(bytes.get(..n)?)
    }

    /// Receives a note if one is there. `Err` when the guard is gone.
    ///
    /// # Errors
    /// When the guard is gone.
    pub fn try_receive(&self) -> Result<Option<Note>, Errno> {
        let mut bytes = [0; SIZE];
        match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(Errno::EPIPE),
            Ok(n) => Ok(Note::from_bytes(&bytes[..n])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read(&self, flags: MsgFlags) -> Option<([u8; SIZE], usize)> {
        let mut bytes = [0; SIZE];
        loop {
            match recv(self.0.as_raw_fd(), &mut bytes, flags) {
                Ok(0) => return None,
                Ok(n) => return Some((bytes, n)),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the guard is to set up.
#[derive(Debug)]
pub struct Plan {
    /// The session's id, also the name of its cgroup.
    pub session: String,
    /// The policy as kernel tables; `None` to observe without one.
    pub tables: Option<trustrun_policy::Tables>,
    /// Whether refusals are carried out.
    pub enforce: bool,
    /// Resolvers of the target.
    pub resolvers: Vec<Address>,
    /// Its DNS search list.
    pub search: Vec<String>,
    /// Shortest life of a name's binding.
    pub dns_grace: Duration,
    /// Bytes of the ring buffer, a power of two.
    pub ring_bytes: u32,
    /// Unusual sockets that a rule lets be made (`common::KIND_*`).
    pub kinds: u32,
    /// Whether to wait for every process, not only the first.
    pub wait_all: bool,
}

/// What the engine gets.
pub struct EngineLink {
    /// The kernel's events.
    #[cfg(feature = "ebpf")]
    pub ring: trustrun_observe::Ring,
    /// To and from the guard.
    pub guard: Channel,
    /// Raw sockets for negative answers: IPv4, IPv6; none where they cannot be made.
    pub raw: [Option<OwnedFd>; 2],
    /// Where the target's DNS over TCP arrives: IPv4, IPv6; none without a policy.
    pub dns: [Option<TcpListener>; 2],
    /// For [`Order::Bind`] and its answer, so that the resolver waits for nothing else.
    pub binder: Option<Channel>,
    /// When the hooks were attached, nanoseconds since the epoch.
    pub attached_ns: i64,
}

impl std::fmt::Debug for EngineLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineLink").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl EngineLink {
    /// Becomes an unprivileged user for good. Call it when everything that needs root is open.
    ///
    /// # Errors
    /// If the kernel refuses; the engine must not go on then.
    pub fn drop_privileges() -> Result<(), GuardError> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let user = nix::unistd::User::from_name("trustrun").ok().flatten();
        let (uid, gid) = user.map_or((Uid::from_raw(65534), Gid::from_raw(65534)), |u| (u.uid, u.gid));
        setgroups(&[])
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .and_then(|()| nix::sys::prctl::set_no_new_privs())
            .map_err(GuardError::system("dropping privileges"))
    }
}

/// What runs as the engine: returns its exit code, 0 if it made its report.
pub type Engine<'a> = Box<dyn FnOnce(EngineLink) -> i32 + 'a>;

/// The foreground process's hold of a guard.
#[derive(Debug)]
pub struct Guard {
    /// Messages.
    pub channel: Channel,
    pid: Pid,
    /// The session's cgroup.
    pub cgroup: Cgroup,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The engine made its report.
    Reported,
    /// The engine was lost.
    NoEngine,
    /// The guard was lost.
    NoGuard,
}

impl Guard {
    /// Tells the guard that the child ended, and waits for the session's end.
    #[must_use]
    pub fn finish(self, status: i32) -> Outcome {
        if self.channel.order(Order::Ended { status }).is_err() {
            return Outcome::NoGuard;
        }
        let outcome = match self.channel.receive() {
            Some(Note::Done { reported: true }) => Outcome::Reported,
            Some(Note::Done { reported: false }) => Outcome::NoEngine,
            _ => Outcome::NoGuard,
        };
        let _ = waitpid(self.pid, None);
        outcome
    }
}

/// Sets a session up: forks the guard and waits until everything is attached, proved and armed.
///
/// # Errors
/// If anything is missing; nothing is left behind then.
pub fn start(plan: Plan, engine: Engine<'_>) -> Result<Guard, GuardError> {
    if !Uid::effective().is_root() {
        return Err(GuardError::NotRoot { uid: Uid::effective().as_raw() });
    }
    if !crate::has_kernel_programs() {
        return Err(GuardError::NoKernelPrograms);
    }
    let hierarchy = Hierarchy::find()?;
    reap(&hierarchy);
    let cgroup = Cgroup::create(&hierarchy, &plan.session)?;
    let (ours, theirs) = Channel::pair()?;
    let (failed, why) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(GuardError::system("pipe"))?;
    match sys::split().map_err(GuardError::system("fork"))? {
        None => {
            drop((ours, failed));
            let code = match Session::set_up(plan, &cgroup, theirs, engine) {
                Ok(session) => {
                    drop(why);
                    session.run()
                }
                Err(e) => {
                    let _ = io::Write::write_all(&mut File::from(why), e.to_string().as_bytes());
                    let _ = cgroup.remove();
                    125
                }
            };
            sys::leave(code)
        }
        Some(pid) => {
            drop((theirs, why));
            if ours.receive() == Some(Note::Go) {
                return Ok(Guard { channel: ours, pid, cgroup });
            }
            let mut reason = String::new();
            let _ = io::Read::read_to_string(&mut File::from(failed), &mut reason);
            let _ = waitpid(pid, None);
            let _ = cgroup.remove();
            if reason.is_empty() {
                reason = "it ended without a word".into();
            }
            Err(GuardError::Guard { reason })
        }
    }
}

/// Removes what earlier sessions left whose guard and processes are gone. A live guard holds a lock on its cgroup.
fn reap(hierarchy: &Hierarchy) {
    let folder = hierarchy.mount.join("trustrun");
    let alive = |name: &str| {
        let path = folder.join(name);
        let Ok(dir) = File::open(&path) else { return false };
        let populated = fs::read_to_string(path.join("cgroup.events")).is_ok_and(|t| t.contains("populated 1"));
        populated || Flock::lock(dir, FlockArg::LockExclusiveNonblock).is_err()
    };
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        if entry.file_name().to_str().is_some_and(|n| !alive(n)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    #[cfg(feature = "ebpf")]
    crate::load::reap_pins(alive);
}

/// The guard's own state.
struct Session {
    cgroup: Cgroup,
    foreground: Channel,
    engine: Channel,
    binder: Channel,
    engine_pid: Pid,
    wait_all: bool,
    #[cfg(feature = "ebpf")]
    loaded: Loaded,
    dns_grace: Duration,
    _lock: Option<Flock<File>>,
}

impl Session {
    #[cfg(not(feature = "ebpf"))]
    fn set_up(_: Plan, _: &Cgroup, _: Channel, _: Engine<'_>) -> Result<Self, GuardError> {
        Err(GuardError::NoKernelPrograms)
    }

    #[cfg(feature = "ebpf")]
    fn set_up(plan: Plan, cgroup: &Cgroup, foreground: Channel, engine: Engine<'_>) -> Result<Self, GuardError> {
        let _ = setsid();
        for signal in
            [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGPIPE]
        {
            sys::ignore(signal);
        }
        let lock = cgroup.fd().ok().and_then(|d| Flock::lock(d, FlockArg::LockExclusiveNonblock).ok());
        let mut loaded = Loaded::load(plan.tables.as_ref(), plan.ring_bytes)?;
        if let Some(tables) = &plan.tables {
            loaded.fill(tables, &plan.resolvers, &plan.search)?;
        } else {
            loaded.fill(&observe_all(), &plan.resolvers, &plan.search)?;
        }
        let mut ring = loaded.ring()?;
        let mut config = Config {
            cgroup: cgroup.id,
            dns_grace: u64::try_from(plan.dns_grace.as_nanos()).unwrap_or(u64::MAX),
            level: cgroup.level,
            mode: trustrun_common::MODE_OBSERVE,
            default_action: plan.tables.as_ref().map_or(trustrun_common::ACTION_ALLOW, |t| t.default).into(),
            kinds: plan.kinds,
            offsets: crate::btf::offsets()?,
            ..Config::default()
        };
        loaded.configure(&config)?;
        loaded.attach(cgroup)?;
        loaded.pin(&plan.session)?;
        let attached_ns = wall_ns();
        crate::selftest::run(&mut loaded, &mut ring, cgroup)?;
        // The canary's events are not the session's.
        config.mode = trustrun_common::MODE_OFF;
        loaded.configure(&config)?;
        ring.drain(usize::MAX, |_| {});
        loaded.reset_counters()?;
        if plan.enforce {
            config.mode = trustrun_common::MODE_ENFORCE;
        } else {
            config.mode = trustrun_common::MODE_OBSERVE;
        }
        // Without a policy nothing is judged, and watching changes nothing: DNS over TCP goes where it went.
        let dns = if plan.tables.is_some() { dns_listeners(&mut config) } else { [None, None] };
        loaded.configure(&config)?;
        let (ours, theirs) = Channel::pair()?;
        let (binder, bind) = Channel::pair()?;
        let link = EngineLink {
            ring,
            dns,
            binder: Some(bind),
            guard: theirs,
            raw: [sys::raw_socket(false).ok(), sys::raw_socket(true).ok()],
            attached_ns,
        };
        let Some(engine_pid) = sys::split().map_err(GuardError::system("forking the engine"))? else {
            drop((ours, binder, foreground, lock));
            loaded.leave();
            sys::leave(engine(link));
        };
        drop(link);
        if ours.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) != Some(Order::Ready) {
            let _ = waitpid(engine_pid, None);
            loaded.detach();
            return Err(GuardError::Guard { reason: "the engine did not start".into() });
        }
        foreground.note(Note::Go).map_err(|source| GuardError::System { what: "telling the foreground", source })?;
        let (cgroup, wait_all, dns_grace) = (cgroup.clone(), plan.wait_all, plan.dns_grace);
        Ok(Self { cgroup, foreground, engine: ours, binder, engine_pid, wait_all, loaded, dns_grace, _lock: lock })
    }

    #[cfg(not(feature = "ebpf"))]
    fn run(self) -> i32 {
        125
    }

    /// Serves both until the session is over.
    #[cfg(feature = "ebpf")]
    fn run(mut self) -> i32 {
        let status = self.until_ended();
        let empty = self.rest(status.is_none());
        if !empty {
            for tgid in self.cgroup.processes() {
                let _ = self.engine.note(Note::Leftover { tgid });
            }
        }
        self.last_words(status);
        let reported = self.engine_ended(REPORT) == Some(0);
        let _ = self.foreground.note(Note::Done { reported });
        if empty {
            self.loaded.detach();
            // A zombie that nobody reaped yet may hold it for an instant; the next session reaps it.
            let _ = self.cgroup.remove();
        } else {
            self.loaded.leave();
        }
        0
    }

    /// Answers orders until the child ended; its status, `None` if the foreground process was lost.
    fn until_ended(&mut self) -> Option<i32> {
        let mut foreground = true;
        let mut swept = Instant::now();
        loop {
            let mut fds = vec![
                PollFd::new(self.engine.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.binder.as_fd(), PollFlags::POLLIN),
            ];
            if foreground {
                fds.push(PollFd::new(self.foreground.as_fd(), PollFlags::POLLIN));
            }
            let wait = if foreground { 10_000u16 } else { 200 };
            let _ = poll(&mut fds, PollTimeout::from(wait));
            let ready: Vec<bool> = fds.iter().map(|f| f.any() == Some(true)).collect();
            if ready.first() == Some(&true) && !self.serve_engine() {
                // The engine is lost: what is blocked stays blocked; wait for the child all the same.
                return self.without_engine();
            }
            if ready.get(1) == Some(&true) {
                self.serve_binder();
            }
            if ready.get(2) == Some(&true) {
                match self.foreground.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) {
                    Some(Order::Ended { status }) => return Some(status),
                    _ => foreground = false,
                }
            }
            if !foreground && !self.cgroup.populated() {
                return None;
            }
            if swept.elapsed() > SWEEP {
                swept = Instant::now();
                self.loaded.sweep(boot_ns());
            }
        }
    }

    fn without_engine(&mut self) -> Option<i32> {
        loop {
            match self.foreground.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) {
                Some(Order::Ended { status }) => return Some(status),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Carries out one order of the engine; false when it is gone.
    fn serve_engine(&mut self) -> bool {
        let Some((bytes, n)) = self.engine.read(MsgFlags::MSG_DONTWAIT) else { return false };
        match bytes.get(..n).and_then(Order::from_bytes) {
            Some(Order::Kill) => self.cgroup.kill(),
            Some(Order::Destroy { flow, local, peer }) => {
                // Gone already, or a kernel without it: then the client waits for its own timeout.
                let _ = crate::destroy::destroy(flow.cookie, local, peer);
            }
            Some(Order::Ready | Order::Bind { .. } | Order::Ended { .. }) | None => {}
        }
        true
    }

    /// Binds what the agent's own resolver was told, before it answers.
    fn serve_binder(&mut self) {
        let Some((bytes, n)) = self.binder.read(MsgFlags::MSG_DONTWAIT) else { return };
        if let Some(Order::Bind { address, name, ttl }) = bytes.get(..n).and_then(Order::from_bytes) {
            let now = boot_ns();
            let life = Duration::from_secs(ttl.into()).max(self.dns_grace);
            let expires = now.saturating_add(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX));
            // Full: the connection is refused as any unbound one.
            let _ = self.loaded.bind(crate::message::address(address), name.as_bytes(), now, expires);
            let _ = self.binder.note(Note::Go);
        }
    }

    /// Waits for the rest of the cgroup; whether it is empty.
    fn rest(&mut self, lost: bool) -> bool {
        let end = if self.wait_all || lost { None } else { Some(Instant::now() + GRACE) };
        loop {
            if self.cgroup.wait_empty(Duration::from_millis(50)) {
                return true;
            }
            self.serve_binder();
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            while matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
                if !self.serve_engine() {
                    break;
                }
                fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            }
            if end.is_some_and(|e| Instant::now() > e) {
                return false;
            }
        }
    }

    /// Tells the engine what only the maps know, and that it is over.
    fn last_words(&mut self, status: Option<i32>) {
        for name in self.loaded.lost_links() {
            eprintln!("trustrun: the hook {name} was lost");
        }
        for (cookie, s) in self.loaded.sockets() {
            let peer = socket(s.peer, s.port);
            if s.protocol == 6 && s.sequence != 0 {
                let flow = trustrun_model::FlowId { cookie, sequence: s.sequence };
                let protocol = trustrun_model::Protocol::Tcp;
                let f = FinalFlow { flow, protocol, peer, sent: s.sent, received: s.received };
                let _ = self.engine.note(Note::Final(f));
            }
        }
        for (key, d) in self.loaded.datagrams() {
            if key.pad == [0; 3] {
                let flow = trustrun_model::FlowId { cookie: key.cookie, sequence: d.sequence };
                let protocol = trustrun_model::Protocol::Udp;
                let peer = socket(key.peer, key.port);
                let f = FinalFlow { flow, protocol, peer, sent: d.sent, received: d.received };
                let _ = self.engine.note(Note::Final(f));
            }
        }
        let mut counters = [0; counter::COUNT as usize];
        if let Ok(c) = self.loaded.counters() {
            counters = c;
        }
        let _ = self.engine.note(Note::Counters(counters));
        let _ = self.engine.note(Note::Finish { status });
    }

    /// Waits for the engine; its exit code.
    fn engine_ended(&mut self, most: Duration) -> Option<i32> {
        let end = Instant::now() + most;
        while Instant::now() < end {
            match waitpid(self.engine_pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(WaitStatus::Exited(_, code)) => return Some(code),
                _ => return None,
            }
            // Readable when the engine speaks or is gone.
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(20u8));
            self.serve_engine();
        }
        let _ = nix::sys::signal::kill(self.engine_pid, Signal::SIGKILL);
        let _ = waitpid(self.engine_pid, None);
        None
    }
}

/// Listens for the target's DNS over TCP, and notes the ports.
#[cfg(feature = "ebpf")]
fn dns_listeners(config: &mut Config) -> [Option<TcpListener>; 2] {
    let listen = |at: &str| {
        let listener = TcpListener::bind(at).ok()?;
        let port = listener.local_addr().ok()?.port();
        Some((listener, u32::from(port)))
    };
    let (v4, v6) = (listen("127.0.0.1:0"), listen("[::1]:0"));
    config.dns_tcp_v4 = u32::from_ne_bytes([127, 0, 0, 1]);
    config.dns_tcp_port = v4.as_ref().map_or(0, |(_, port)| *port);
    config.dns_tcp6_port = v6.as_ref().map_or(0, |(_, port)| *port);
    [v4.map(|(l, _)| l), v6.map(|(l, _)| l)]
}

#[cfg(feature = "ebpf")]
fn observe_all() -> trustrun_policy::Tables {
    trustrun_policy::Tables {
        names: Vec::new(),
        nets: Vec::new(),
        ports: Vec::new(),
        default: trustrun_common::ACTION_ALLOW,
        rules: Vec::new(),
    }
}

#[cfg(feature = "ebpf")]
fn socket(address: Address, port: u16) -> std::net::SocketAddr {
    let v6 = std::net::Ipv6Addr::from(address);
    let ip = v6.to_ipv4_mapped().map_or(std::net::IpAddr::V6(v6), std::net::IpAddr::V4);
    std::net::SocketAddr::new(ip, port)
}

fn clock(id: nix::time::ClockId) -> i64 {
    nix::time::clock_gettime(id).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

fn boot_ns() -> u64 {
    clock(nix::time::ClockId::CLOCK_BOOTTIME).unsigned_abs()
}

#[cfg(feature = "ebpf")]
fn wall_ns() -> i64 {
    clock(nix::time::ClockId::CLOCK_REALTIME)
}
