//! The foreground process's view: what a session is planned to be, its start and its end.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, TcpListener},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::{
    sys::wait::waitpid,
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid},
};
use trustrun_common::Address;

use crate::{Cgroup, Channel, Child, GuardError, Hierarchy, Name, Note, Order, cgroup, session::Session, sys};

/// What the guard is to set up.
#[derive(Debug)]
pub struct Plan {
    /// The session's id, also the name of its cgroup.
    pub session: String,
    /// The policy as kernel tables; `None` to observe without one.
    pub tables: Option<trustrun_policy::Tables>,
    /// How processes are told apart; `None` where no rule does.
    pub conditions: Option<crate::Conditions>,
    /// Whether refusals are carried out.
    pub enforce: bool,
    /// Resolvers of the target.
    pub resolvers: Vec<Address>,
    /// Its DNS search list.
    pub search: Vec<String>,
    /// What its `/etc/hosts` answers.
    pub hosts: Vec<(IpAddr, Name)>,
    /// Shortest life of a name's binding.
    pub dns_grace: Duration,
    /// How large the kernel's tables are.
    pub sizes: Sizes,
    /// Unusual sockets that a rule lets be made (`common::KIND_*`).
    pub kinds: u32,
    /// Whether packet sockets are to be told, since the command may make such.
    pub packets: bool,
    /// Unix sockets, or folders with such, that the policy lets in.
    pub doors: Vec<std::path::PathBuf>,
    /// Whether to wait for every process, not only the first.
    pub wait_all: bool,
    /// Whether the target is root.
    pub as_root: bool,
}

/// How large what the kernel keeps for a session may become.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Bytes of the ring buffer, a power of two.
    pub ring_bytes: u32,
    /// Entries of tables that are to have others than usual, each of [`TABLES`].
    pub tables: Vec<(&'static str, u32)>,
}

/// Tables that fill with what a session does (`docs/kernel.md`).
pub const TABLES: [&str; 6] = ["SOCKETS", "DATAGRAMS", "LISTENERS", "TASKS", "BINDINGS", "GATHER"];

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
    /// The session's cgroup, its path below the root of the hierarchy.
    pub cgroup: String,
    /// Why the session is in no scope of the caller's slice, where systemd should have made one.
    pub no_scope: Option<String>,
    /// Whether what crosses the session's border over unix sockets is seen.
    pub unix: bool,
    /// Whether it is refused, but for what the policy lets in (`locks::BORDER`).
    pub border: bool,
    /// Whether packet sockets that are used are told.
    pub packets: bool,
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
        // It mostly sleeps; when it has work, the work is evidence that would be lost.
        sys::prefer();
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
    /// Tells the engine which locks the child holds.
    pub fn locked(&self, child: &Child) {
        // A guard that is gone is told of at the end.
        let _ = self.channel.order(Order::Locked { held: child.held().0 });
    }

    /// Tells the guard that the child ended, and waits for the session's end: until then a signal to this process
    /// ends the wait for what outlives the child.
    #[must_use]
    pub fn finish(self, status: i32, child: Option<&Child>) -> Outcome {
        if let Some(child) = child {
            // What came until now was meant for the child.
            let _ = child.asked_to_end();
        }
        if self.channel.order(Order::Ended { status }).is_err() {
            return Outcome::NoGuard;
        }
        if let Some(child) = child {
            while !child.readable_before_signal(&self.channel) {
                if child.asked_to_end() {
                    let _ = self.channel.order(Order::Ended { status });
                }
            }
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
    let (cgroup, held) = Cgroup::create(&hierarchy, &plan.session)?;
    let (ours, theirs) = Channel::pair()?;
    let (failed, why) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(GuardError::system("pipe"))?;
    match sys::split().map_err(GuardError::system("fork"))? {
        None => {
            drop((ours, failed));
            let code = match Session::set_up(plan, (&cgroup, held), theirs, engine) {
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
            drop((theirs, why, held));
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
pub(crate) fn reap(hierarchy: &Hierarchy) {
    let folder = hierarchy.mount.join("trustrun");
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        // Held until it is gone, so that a session which just made it knows.
        if let Some(_held) = cgroup::abandoned(&entry.path()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    #[cfg(feature = "ebpf")]
    crate::load::reap_pins(|name, cgroup| {
        let path = cgroup.unwrap_or_else(|| folder.join(name));
        path.exists() && cgroup::abandoned(&path).is_none()
    });
}
