//! What is done once, before the engine is forked: the guard stands on its own, proves the hooks and arms them.

use std::net::TcpListener;

use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::setsid,
};
use trustrun_common::Config;

use crate::{Cgroup, Channel, EngineLink, GuardError, Plan, links::Watch, load::Loaded, sys};

/// Open files: maps, programs, the database and connections of the resolver for DNS over TCP.
const MOST_FILES: u64 = 65_536;

/// Settings for the canary: everything is seen, counted, and let through.
pub(crate) fn first_config(plan: &Plan, cgroup: &Cgroup, loaded: &Loaded) -> Config {
    Config {
        cgroup: cgroup.id,
        dns_grace: u64::try_from(plan.dns_grace.as_nanos()).unwrap_or(u64::MAX),
        mode: trustrun_common::MODE_OBSERVE,
        default_action: plan.tables.as_ref().map_or(trustrun_common::ACTION_ALLOW, |t| t.default).into(),
        kinds: plan.kinds,
        listen: plan.tables.as_ref().is_some_and(|t| !t.listen.is_empty()).into(),
        classes: plan.conditions.is_some().into(),
        counting: 1,
        offsets: loaded.offsets,
        ..Config::default()
    }
}

/// What there is before the engine is forked.
pub(super) struct Prepared {
    pub(super) watch: Watch,
    pub(super) ours: Channel,
    pub(super) binder: Channel,
    pub(super) link: EngineLink,
}

/// Pins what is attached, proves that it sees, arms it, and opens what the engine needs.
pub(super) fn prepare(
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
    let packets = plan.packets && loaded.watch_packets().is_ok();
    let tried = plan.enforce && loaded.guard_border(&plan.doors).is_ok();
    let seen = crate::selftest::run(loaded, &mut ring, cgroup)?;
    let border = tried && seen.border && loaded.pin_border().is_ok();
    if !border {
        loaded.leave_border();
    }
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
    let unix = seen.unix;
    let link = EngineLink {
        ring,
        dns,
        binder: Some(bind),
        guard: theirs,
        raw,
        attached_ns,
        unix,
        border,
        packets,
        cgroup,
        no_scope,
    };
    Ok(Prepared { watch, ours, binder, link })
}

/// Takes nothing over from the caller that is meant for its command: terminal, pipes, signals and limits.
pub(super) fn stand_alone() {
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
        listen: Vec::new(),
        private: Vec::new(),
        ports: Vec::new(),
        default: trustrun_common::ACTION_ALLOW,
        rules: Vec::new(),
        classes: trustrun_policy::Classes::default(),
    }
}
