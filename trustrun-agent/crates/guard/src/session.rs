//! The guard process: root, single-threaded, never stopped by the terminal.

mod end;
mod prepare;

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{socket::MsgFlags, wait::waitpid},
    unistd::Pid,
};

use self::prepare::{Prepared, prepare, stand_alone};
pub(crate) use self::prepare::{first_config, lift_limits, observe_all};
use crate::{
    CGROUP_GONE, Cgroup, Channel, Engine, GuardError, Note, Order, Plan, cgroup::Held, links::Watch, load::Loaded,
    places::Since, sys,
};

/// How long the engine may take for its report.
const REPORT: Duration = Duration::from_secs(60);
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
    /// Keeps the executables of conditions from losing their inodes to others.
    _conditions: Option<crate::Conditions>,
    dns_grace: Duration,
    /// When the target could first do something, and whether it is a root that is held.
    since: (Since, bool),
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
        let mut loaded = Loaded::load(plan.tables.as_ref(), &plan.sizes)?;
        if let Some(tables) = &plan.tables {
            loaded.fill(tables, &plan.resolvers, &plan.search)?;
        } else {
            loaded.fill(&observe_all(), &plan.resolvers, &plan.search)?;
        }
        if let Some(conditions) = &plan.conditions {
            loaded.classify(conditions)?;
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
        let since = (Since::now(), plan.as_root && plan.enforce);
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
        let conditions = plan.conditions;
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
            _conditions: conditions,
            dns_grace,
            since,
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
        self.loaded.refresh_doors();
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
            Some(Order::Count) => {
                let counters = self.counters();
                let _ = self.engine.note(Note::Counters(counters));
            }
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
