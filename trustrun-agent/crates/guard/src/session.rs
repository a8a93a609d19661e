//! The guard process: root, single-threaded, never stopped by the terminal.

use std::{
    net::TcpListener,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::Signal,
        socket::MsgFlags,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};
use trustrun_common::{Address, Config, counter};

use crate::{
    CGROUP_GONE, Cgroup, Channel, Engine, EngineLink, FinalFlow, GuardError, Note, Order, Plan, cgroup::Held,
    links::Watch, load::Loaded, sys,
};

/// How long the rest of the cgroup may live on after the first child.
const GRACE: Duration = Duration::from_secs(10);
/// How long it may when somebody asked for the end: a Ctrl-C reaches the rest too, and it may be about to end.
const CUT_SHORT: Duration = Duration::from_secs(1);
/// How long the engine may take for its report.
const REPORT: Duration = Duration::from_secs(60);
/// Open files: maps, programs, the database and connections of the resolver for DNS over TCP.
const MOST_FILES: u64 = 65_536;
/// Milliseconds until it is looked again whether the hooks are there, where nothing else happens.
const ASK: u16 = 1000;
/// How often old bindings are forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// The guard's own state.
pub(crate) struct Session {
    cgroup: Cgroup,
    foreground: Channel,
    engine: Channel,
    binder: Channel,
    engine_pid: Pid,
    wait_all: bool,
    /// The policy's default, when enforcing.
    default: Option<u8>,
    loaded: Loaded,
    watch: Watch,
    dns_grace: Duration,
    /// Inherited by nobody but the engine, which closes it: an explicit unlock would free it for all.
    _held: Held,
}

impl Session {
    pub(crate) fn set_up(
        plan: Plan,
        (cgroup, held): (&Cgroup, Held),
        foreground: Channel,
        engine: Engine<'_>,
    ) -> Result<Self, GuardError> {
        crate::kernel::check()?;
        stand_alone();
        let mut loaded = Loaded::load(plan.tables.as_ref(), plan.ring_bytes)?;
        if let Some(tables) = &plan.tables {
            loaded.fill(tables, &plan.resolvers, &plan.search)?;
        } else {
            loaded.fill(&observe_all(), &plan.resolvers, &plan.search)?;
        }
        let default = plan.tables.as_ref().filter(|_| plan.enforce).map(|t| t.default);
        for (address, name) in &plan.hosts {
            let address = crate::message::address(*address);
            // No room: the name is refused like any that was not answered.
            let _ = loaded.bind(address, name.as_bytes(), default, boot_ns(), u64::MAX);
        }
        let ring = loaded.ring()?;
        let config = first_config(&plan, cgroup, &loaded);
        loaded.configure(&config)?;
        loaded.attach(cgroup)?;
        let attached_ns = wall_ns();
        // From here on links are pinned, and would outlive an error.
        let forked = prepare(&mut loaded, &plan, (cgroup, held.no_scope.clone()), ring, config, attached_ns)
            .and_then(|p| Ok((sys::split().map_err(GuardError::system("forking the engine"))?, p)));
        let (engine_pid, Prepared { watch, ours, binder, link }) = match forked {
            Ok(all) => all,
            Err(e) => {
                loaded.detach();
                return Err(e);
            }
        };
        let Some(engine_pid) = engine_pid else {
            drop((ours, binder, foreground, held));
            loaded.leave();
            sys::leave(engine(link));
        };
        drop(link);
        if ours.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) != Some(Order::Ready) {
            let _ = waitpid(engine_pid, None);
            loaded.detach();
            return Err(GuardError::Guard { reason: "the engine did not start".into() });
        }
        if let Err(source) = foreground.note(Note::Go) {
            // It was ended before there was a child: nothing is to be guarded.
            drop(ours);
            let _ = waitpid(engine_pid, None);
            loaded.detach();
            return Err(GuardError::System { what: "telling the foreground", source });
        }
        let (cgroup, wait_all, dns_grace) = (cgroup.clone(), plan.wait_all, plan.dns_grace);
        Ok(Self {
            cgroup,
            foreground,
            engine: ours,
            binder,
            engine_pid,
            wait_all,
            default,
            loaded,
            watch,
            dns_grace,
            _held: held,
        })
    }

    /// Serves both until the session is over.
    pub(crate) fn run(mut self) -> i32 {
        let status = self.until_ended();
        let empty = self.rest(status.is_none());
        // A word that waited in vain is the last one: each of thousands would wait as long.
        let heard = (empty || self.leftovers()) && self.last_words(status);
        let patience = if heard { REPORT } else { Duration::ZERO };
        let reported = self.engine_ended(patience) == Some(0);
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
            let wait = if foreground { ASK } else { 200 };
            let _ = poll(&mut fds, PollTimeout::from(wait));
            let ready: Vec<bool> = fds.iter().map(|f| f.any() == Some(true)).collect();
            if ready.first() == Some(&true) && !self.serve_engine() {
                // The engine is lost: what is blocked stays blocked; wait for the child all the same.
                return self.without_engine();
            }
            self.check_hooks();
            if ready.get(1) == Some(&true) {
                self.serve_binder();
            }
            if ready.get(2) == Some(&true) {
                match self.foreground.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) {
                    Some(Order::Ended { status }) => return Some(status),
                    Some(Order::Locked { held }) => drop(self.engine.note(Note::Locked { held })),
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
            self.check_hooks();
            let mut fds = [PollFd::new(self.foreground.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::from(ASK)), Ok(n) if n > 0) {
                continue;
            }
            match self.foreground.read(MsgFlags::empty()).and_then(|(b, n)| Order::from_bytes(b.get(..n)?)) {
                Some(Order::Ended { status }) => return Some(status),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Asks from time to time whether every hook is where it was put. When enforcing, nothing may run on without one:
    /// putting it back would be a race with what the target does meanwhile.
    fn check_hooks(&mut self) {
        if !self.watch.due() {
            return;
        }
        let lost = self.watch.lost();
        // Again each time: a child may have been born since.
        if self.watch.broken() && self.default.is_some() {
            self.cgroup.kill();
        }
        self.tell_lost_hooks(lost);
    }

    /// Names the hooks that were lost; whether the engine heard it.
    fn tell_lost_hooks(&mut self, lost: Vec<u32>) -> bool {
        if !lost.is_empty() && !self.cgroup.is_there() {
            // The links go with their cgroup. systemd removes it where somebody stops the scope.
            return self.tell(Note::HookLost { hook: CGROUP_GONE });
        }
        lost.into_iter().all(|hook| self.tell(Note::HookLost { hook }))
    }

    /// Carries out one order of the engine; false when it is gone.
    fn serve_engine(&mut self) -> bool {
        let Some((bytes, n)) = self.engine.read(MsgFlags::MSG_DONTWAIT) else { return false };
        match bytes.get(..n).and_then(Order::from_bytes) {
            Some(Order::Kill) => self.cgroup.kill(),
            // Only what the kernel programs know as the session's own.
            Some(Order::End { tgid }) if self.loaded.knows_task(tgid) => sys::end(tgid),
            Some(Order::Destroy { flow, local, peer }) => {
                // Gone already, or a kernel without it: then the client waits for its own timeout.
                let _ = crate::destroy::destroy(flow.cookie, local, peer);
            }
            // The locks are the foreground process's to tell.
            Some(
                Order::Ready | Order::Bind { .. } | Order::End { .. } | Order::Ended { .. } | Order::Locked { .. },
            )
            | None => {}
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
            let _ = self.loaded.bind(crate::message::address(address), name.as_bytes(), self.default, now, expires);
            let _ = self.binder.note(Note::Go);
        }
    }

    /// Waits for the rest of the cgroup; whether it is empty. A second word of the foreground process cuts it short.
    fn rest(&mut self, lost: bool) -> bool {
        let mut end = if self.wait_all || lost { None } else { Some(Instant::now() + GRACE) };
        loop {
            if self.cgroup.wait_empty(Duration::from_millis(50)) {
                return true;
            }
            self.serve_binder();
            self.check_hooks();
            if !lost && self.foreground.read(MsgFlags::MSG_DONTWAIT).is_some() {
                let soon = Instant::now() + CUT_SHORT;
                end = Some(end.map_or(soon, |e| e.min(soon)));
            }
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

    /// Names what outlived the first child; whether the engine heard it.
    fn leftovers(&mut self) -> bool {
        self.cgroup.processes().into_iter().all(|tgid| self.tell(Note::Leftover { tgid }))
    }

    /// Tells the engine something, and serves it meanwhile: it may wait for us as we wait for it. False if it is gone
    /// or stopped.
    fn tell(&mut self, note: Note) -> bool {
        let end = Instant::now() + REPORT;
        loop {
            match self.engine.try_note(note) {
                Ok(true) => return true,
                Ok(false) if Instant::now() < end => {}
                _ => return false,
            }
            let mut fds = [PollFd::new(self.engine.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
            let _ = poll(&mut fds, PollTimeout::from(100u8));
            let spoke = fds[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLIN | PollFlags::POLLHUP));
            if spoke && !self.serve_engine() {
                return false;
            }
        }
    }

    /// Tells the engine what only the maps know, and that it is over; whether it heard that. A stopped engine does not.
    fn last_words(&mut self, status: Option<i32>) -> bool {
        for (cookie, s) in self.loaded.sockets() {
            let peer = socket(s.peer, s.port);
            if s.protocol == 6 && s.sequence != 0 {
                let flow = trustrun_model::FlowId { cookie, sequence: s.sequence };
                let protocol = trustrun_model::Protocol::Tcp;
                let f = FinalFlow { flow, protocol, peer, sent: s.sent, received: s.received };
                if !self.tell(Note::Final(f)) {
                    return false;
                }
            }
        }
        for (key, d) in self.loaded.datagrams() {
            if key.pad == [0; 3] {
                let flow = trustrun_model::FlowId { cookie: key.cookie, sequence: d.sequence };
                let protocol = trustrun_model::Protocol::Udp;
                let peer = socket(key.peer, key.port);
                let f = FinalFlow { flow, protocol, peer, sent: d.sent, received: d.received };
                if !self.tell(Note::Final(f)) {
                    return false;
                }
            }
        }
        // What cannot be read must not look like zero.
        let counters = self.loaded.counters().unwrap_or_else(|_| {
            let mut unread = [0; counter::COUNT as usize];
            unread[counter::UNREAD as usize] = 1;
            unread
        });
        let lost = self.watch.lost();
        self.tell_lost_hooks(lost) && self.tell(Note::Counters(counters)) && self.tell(Note::Finish { status })
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
            if !self.serve_engine() {
                // It has closed its end, which stays readable from then on, and is about to end.
                let _ = poll(&mut [], PollTimeout::from(1u8));
            }
        }
        let _ = nix::sys::signal::kill(self.engine_pid, Signal::SIGKILL);
        let _ = waitpid(self.engine_pid, None);
        None
    }
}

/// Settings for the canary: everything is seen, counted, and let through.
pub(crate) fn first_config(plan: &Plan, cgroup: &Cgroup, loaded: &Loaded) -> Config {
    Config {
        cgroup: cgroup.id,
        dns_grace: u64::try_from(plan.dns_grace.as_nanos()).unwrap_or(u64::MAX),
        level: cgroup.level,
        mode: trustrun_common::MODE_OBSERVE,
        default_action: plan.tables.as_ref().map_or(trustrun_common::ACTION_ALLOW, |t| t.default).into(),
        kinds: plan.kinds,
        counting: 1,
        offsets: loaded.offsets,
        ..Config::default()
    }
}

/// What there is before the engine is forked.
struct Prepared {
    watch: Watch,
    ours: Channel,
    binder: Channel,
    link: EngineLink,
}

/// Pins what is attached, proves that it sees, arms it, and opens what the engine needs.
fn prepare(
    loaded: &mut Loaded,
    plan: &Plan,
    (cgroup, no_scope): (&Cgroup, Option<String>),
    mut ring: trustrun_observe::Ring,
    mut config: Config,
    attached_ns: i64,
) -> Result<Prepared, GuardError> {
    loaded.pin(&plan.session, cgroup)?;
    let watch = loaded.watch(cgroup.id)?;
    // Not every kernel has it; whether it sees is for the canary to say.
    let _ = loaded.watch_unix();
    let unix = crate::selftest::run(loaded, &mut ring, cgroup)?;
    // The canary's events are not the session's.
    config.mode = trustrun_common::MODE_OFF;
    config.counting = 0;
    loaded.configure(&config)?;
    ring.drain(usize::MAX, |_| {});
    loaded.reset_counters()?;
    config.mode = if plan.enforce { trustrun_common::MODE_ENFORCE } else { trustrun_common::MODE_OBSERVE };
    // Without a policy nothing is judged, and watching changes nothing: DNS over TCP goes where it went.
    let dns = if plan.tables.is_some() { dns_listeners(&mut config) } else { [None, None] };
    loaded.configure(&config)?;
    let (ours, theirs) = Channel::pair()?;
    let (binder, bind) = Channel::pair()?;
    let raw = [sys::raw_socket(false).ok(), sys::raw_socket(true).ok()];
    let cgroup = cgroup.below.clone();
    let link = EngineLink { ring, dns, binder: Some(bind), guard: theirs, raw, attached_ns, unix, cgroup, no_scope };
    Ok(Prepared { watch, ours, binder, link })
}

/// Takes nothing over from the caller that is meant for its command: terminal, pipes, signals and limits.
fn stand_alone() {
    let _ = setsid();
    sys::release_pipes();
    for signal in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
        Signal::SIGHUP,
        Signal::SIGTERM,
        Signal::SIGPIPE,
        Signal::SIGXCPU,
        Signal::SIGXFSZ,
    ] {
        sys::ignore(signal);
    }
    // Who ignores it cannot wait for its children.
    sys::default_action(Signal::SIGCHLD);
    lift_limits();
}

/// Gives the guard the memory, files and processor time that it needs, whatever its caller may have.
pub(crate) fn lift_limits() {
    for limit in [
        Resource::RLIMIT_AS,
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_MEMLOCK,
        Resource::RLIMIT_NPROC,
    ] {
        lift(limit, RLIM_INFINITY);
    }
    lift(Resource::RLIMIT_NOFILE, MOST_FILES);
}

/// Lifts a limit, or where a root may not do that (a container's) as far as it goes.
fn lift(limit: Resource, to: u64) {
    if setrlimit(limit, to, to).is_err()
        && let Ok((_, most)) = getrlimit(limit)
    {
        let _ = setrlimit(limit, most, most);
    }
}

/// Listens for the target's DNS over TCP, and notes the ports.
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

pub(crate) fn observe_all() -> trustrun_policy::Tables {
    trustrun_policy::Tables {
        names: Vec::new(),
        nets: Vec::new(),
        private: Vec::new(),
        ports: Vec::new(),
        default: trustrun_common::ACTION_ALLOW,
        rules: Vec::new(),
    }
}

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

fn wall_ns() -> i64 {
    clock(nix::time::ClockId::CLOCK_REALTIME)
}
