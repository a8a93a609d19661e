//! What this host lets a session do, tried for real and taken back again: for `trustrun doctor`.
//!
//! It goes the way that a session goes (the same loader, limits, pins, canary and locks), so that both agree, but on
//! where a session would stop at the first refusal. Nothing of it lasts: what a probe that was killed leaves, the next
//! session reaps.

#[cfg(feature = "ebpf")]
use std::time::Duration;
use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use nix::{sys::wait::waitpid, unistd::pipe2};
use trustrun_common::HOOK_NAMES;

use crate::{
    GuardError, Identity, Plan,
    child::become_user,
    locks::{Applying, Held, Locks, Subject, Wanted},
    sys,
};

/// The hook that not every kernel has, and those that few have on.
const OPTIONAL: [&str; 3] = [UNIX_PEER, "unix_connect", "unix_send"];
const UNIX_PEER: &str = "unix_peer";
/// How long to wait for the canary where something is known to be missing.
#[cfg(feature = "ebpf")]
const BRIEFLY: Duration = Duration::from_millis(500);

/// How what the process says begins that took the locks on.
const HELD: u8 = b'=';
const FAILED: u8 = b'!';

/// What became of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Its program's name.
    pub name: &'static str,
    /// Whether a session can do without.
    pub optional: bool,
    /// Whether it was attached.
    pub attached: bool,
    /// Whether it saw the canary.
    pub seen: bool,
    /// Why not, where it was tried.
    pub refused: Option<String>,
}

/// What became of all of them.
#[derive(Debug)]
pub struct Probe {
    /// Each hook, the optional ones last.
    pub hooks: Vec<HookState>,
    /// Whether a refusal was one, for a process that connected to a closed port and to one outside the policy. None where
    /// that could not be tried.
    pub refusal: Option<Result<(), String>>,
    /// What would keep a session from starting, the first thing of it.
    pub failed: Option<GuardError>,
    /// Why systemd made no scope, where it should have.
    pub no_scope: Option<String>,
}

/// Tries every hook in a cgroup of its own, with a canary that connects to loopback ports where nobody accepts. Changes
/// the calling process's mounts and limits, which should do nothing else afterwards.
#[must_use]
pub fn hooks(plan: &Plan) -> Probe {
    let hook =
        |name| HookState { name, optional: OPTIONAL.contains(&name), attached: false, seen: false, refused: None };
    let hooks = HOOK_NAMES.into_iter().chain(OPTIONAL).map(hook).collect();
    let mut probe = Probe { hooks, refusal: None, failed: None, no_scope: None };
    probe.failed = probe.go(plan).err();
    probe
}

#[cfg(not(feature = "ebpf"))]
impl Probe {
    #[allow(clippy::unused_self, reason = "as the one that does something")]
    fn go(&mut self, _: &Plan) -> Result<(), GuardError> {
        Err(GuardError::NoKernelPrograms)
    }
}

#[cfg(feature = "ebpf")]
impl Probe {
    fn go(&mut self, plan: &Plan) -> Result<(), GuardError> {
        use crate::{Cgroup, Hierarchy};
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Err(GuardError::NotRoot { uid: uid.as_raw() });
        }
        crate::kernel::check()?;
        let hierarchy = Hierarchy::find()?;
        crate::guard::reap(&hierarchy);
        // Where there is no bpffs, the one that is mounted goes with this process. Who may not do this may not mount.
        let _ = crate::locks::leave_the_machines();
        crate::session::lift_limits();
        let (cgroup, held) = Cgroup::create(&hierarchy, &plan.session)?;
        self.no_scope.clone_from(&held.no_scope);
        let outcome = self.try_in(plan, &cgroup);
        // The canary's own child may still be about to end.
        let _ = cgroup.wait_empty(Duration::from_secs(1));
        let _ = cgroup.remove();
        drop(held);
        outcome
    }

    fn try_in(&mut self, plan: &Plan, cgroup: &crate::Cgroup) -> Result<(), GuardError> {
        use crate::load::{Loaded, refused};
        let mut loaded = match Loaded::load(None, &plan.sizes) {
            Ok(loaded) => loaded,
            Err(why) => {
                for (name, e) in refused().unwrap_or_default() {
                    self.refuse(name, &e);
                }
                return Err(why);
            }
        };
        loaded.fill(&crate::session::observe_all(), &plan.resolvers, &plan.search)?;
        let ring = loaded.ring()?;
        loaded.configure(&crate::session::first_config(plan, cgroup, &loaded))?;
        let mut first = None;
        for (name, outcome) in HOOK_NAMES.into_iter().zip(loaded.attach_each(cgroup)?) {
            match outcome {
                Ok(()) => self.hook(name).attached = true,
                Err(e) => {
                    self.refuse(name, &e);
                    first = first.or(Some(e));
                }
            }
        }
        let pinned = loaded.pin(&plan.session, cgroup);
        match loaded.watch_unix() {
            Ok(()) => self.hook(UNIX_PEER).attached = true,
            Err(e) => self.refuse(UNIX_PEER, &e),
        }
        let border = loaded.guard_border(&[]);
        for (name, _) in crate::load::BORDER {
            match &border {
                Ok(()) => self.hook(name).attached = true,
                Err(e) => self.refuse(name, e),
            }
        }
        let patience = if first.is_some() { BRIEFLY } else { crate::selftest::DEADLINE };
        let seen = self.canary(&mut loaded, ring, cgroup, patience);
        if seen.is_ok() && first.is_none() {
            self.refusal = Some(refusal(&mut loaded, plan, cgroup));
        }
        loaded.detach();
        first.map_or(Ok(()), Err).and(pinned).and(seen)
    }

    fn canary(
        &mut self,
        loaded: &mut crate::load::Loaded,
        mut ring: trustrun_observe::Ring,
        cgroup: &crate::Cgroup,
        patience: Duration,
    ) -> Result<(), GuardError> {
        let seen = crate::selftest::look(loaded, &mut ring, cgroup, patience)?;
        for (hook, ran) in self.hooks.iter_mut().zip(seen.ran.iter().chain([&seen.unix, &seen.border, &seen.border])) {
            hook.seen = *ran;
            if hook.attached && !ran {
                let expected = seen.missing.iter().any(|m| m == hook.name);
                let why = if expected || hook.optional { "it did not see the canary" } else { "no IPv6 here to see" };
                hook.refused = Some(why.into());
            }
        }
        let missing = seen.missing;
        if missing.is_empty() { Ok(()) } else { Err(GuardError::SelfTest { missing }) }
    }

    fn hook(&mut self, name: &str) -> &mut HookState {
        let place = self.hooks.iter().position(|h| h.name == name).unwrap_or_default();
        &mut self.hooks[place]
    }

    /// Programs that hooks go on in are told as the session's failure alone.
    fn refuse(&mut self, name: &str, why: &GuardError) {
        if let Some(hook) = self.hooks.iter_mut().find(|h| h.name == name) {
            hook.refused = Some(why.to_string());
        }
    }
}

/// What a process found that connected under a policy that allows nothing.
#[cfg(feature = "ebpf")]
const FOUND: [&str; 4] = [
    "",
    "a connection to a closed loopback port did not get its own answer",
    "a connection outside the policy was not refused",
    "neither a closed loopback port answered nor was a connection outside the policy refused",
];

/// Refuses everything, and has a process of the session connect to a loopback port that is closed, which gets the port's own
/// answer, and to one where this process listens, which is outside.
#[cfg(feature = "ebpf")]
fn refusal(loaded: &mut crate::load::Loaded, plan: &Plan, cgroup: &crate::Cgroup) -> Result<(), String> {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    let listen = || TcpListener::bind("127.0.0.1:0").and_then(|l| Ok((l.local_addr()?, l)));
    let (open, listener) = listen().map_err(|e| format!("a listener on loopback: {e}"))?;
    let (closed, other) = listen().map_err(|e| format!("a listener on loopback: {e}"))?;
    drop(other);
    let config = trustrun_common::Config {
        mode: trustrun_common::MODE_ENFORCE,
        default_action: trustrun_common::ACTION_BLOCK.into(),
        ..crate::session::first_config(plan, cgroup, loaded)
    };
    loaded.configure(&config).map_err(|e| e.to_string())?;
    let fd = cgroup.fd().map_err(|e| e.to_string())?;
    let (pid, inside) = sys::split_into(fd.as_fd()).map_err(|e| format!("fork: {e}"))?;
    let Some(pid) = pid else {
        if !inside && crate::Cgroup::enter(&cgroup.path).is_err() {
            sys::leave(3);
        }
        let kind = |to| TcpStream::connect(to).err().map(|e| e.kind());
        let closed = kind(closed) != Some(std::io::ErrorKind::ConnectionRefused);
        let open = kind(open) != Some(std::io::ErrorKind::PermissionDenied);
        sys::leave(i32::from(closed) | i32::from(open) << 1);
    };
    let ended = waitpid(pid, None);
    drop(listener);
    match ended {
        Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => {
            Err(usize::try_from(code).ok().and_then(|c| FOUND.get(c)).copied().unwrap_or("it failed").into())
        }
        _ => Err("the process that was to be refused was lost".into()),
    }
}

/// Takes the locks of an enforcing session on, in a process that does nothing else: which of them it held.
///
/// # Errors
/// Why an enforced command could not be started, for a person.
pub fn locks(identity: &Identity) -> Result<Held, String> {
    let subject = Subject { uid: identity.uid, gid: identity.gid, allowed: Vec::new() };
    let locks = Locks::prepare(subject, Wanted::Possible).map_err(|e| e.to_string())?;
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let Some(pid) = sys::split().map_err(|e| format!("fork: {e}"))? else {
        drop(read);
        let held = locks
            .as_root()
            .and_then(|applying| become_user(Some(identity)).map(|()| applying))
            .and_then(Applying::into_user);
        let said = match held {
            Ok(held) => [&[HELD][..], &held.0.to_ne_bytes()].concat(),
            Err(why) => [&[FAILED][..], why.as_bytes()].concat(),
        };
        let _ = File::from(write).write_all(&said);
        sys::leave(0);
    };
    drop(write);
    let mut said = Vec::new();
    let read = File::from(read).read_to_end(&mut said);
    let _ = waitpid(pid, None);
    read.map_err(|e| e.to_string())?;
    match said.split_first() {
        Some((&HELD, bits)) if let Some(bits) = bits.first_chunk() => Ok(Held::known(u64::from_ne_bytes(*bits))),
        Some((&FAILED, why)) => Err(String::from_utf8_lossy(why).into_owned()),
        _ => Err("the process that took the locks on ended without a word".into()),
    }
}
