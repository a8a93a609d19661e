//! The foreground process's half: starts the child in the session's cgroup and waits for it as a shell would.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, initgroups, pipe2, setresgid, setresuid},
};
use seccompiler::BpfProgram;

use crate::{Cgroup, Channel, GuardError, locks, sys};

/// Who the child runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
}

impl Identity {
    /// Looks a user up by name or number.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(name: &str) -> Result<Self, GuardError> {
        let by_name = nix::unistd::User::from_name(name).ok().flatten();
        let user = by_name.or_else(|| nix::unistd::User::from_uid(Uid::from_raw(name.parse().ok()?)).ok().flatten());
        let u = user.ok_or_else(|| GuardError::NoUser { name: name.into() })?;
        Ok(Self { name: u.name, uid: u.uid.as_raw(), gid: u.gid.as_raw(), home: u.dir })
    }
}

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Whom to become; `None` to stay who we are.
    pub identity: Option<Identity>,
    /// Whether to apply the locks of an enforcing policy.
    pub locked: bool,
}

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ended {
    /// As wait(2) encodes it.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Exited(code) => (code & 0xff) << 8,
            Self::Signaled(signal) => signal & 0x7f,
        }
    }
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Set if the program could not be executed: the code that a shell would exit with.
    failed: Option<(i32, String)>,
    signals: SignalFd,
}

/// A step that failed in the child before the program ran.
const STEP_LOCKS: u8 = 1;
const STEP_EXEC: u8 = 2;

fn c_string(s: &OsString) -> Result<CString, GuardError> {
    CString::new(s.clone().into_vec())
        .map_err(|_| GuardError::Guard { reason: "an argument or variable holds a NUL byte".into() })
}

impl Child {
    /// Starts the child inside the cgroup: it never runs an instruction of the program outside.
    ///
    /// # Errors
    /// If it cannot be forked; a program that cannot be executed is not an error here (see [`Child::wait`]).
    pub fn start(launch: &Launch, cgroup: &Cgroup) -> Result<Self, GuardError> {
        let arguments = launch.command.iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let environment = environment(launch)?;
        let filter = if launch.locked { Some(locks::filter()?) } else { None };
        // Blocked before the fork, so that none is lost between.
        let mut set = SigSet::all();
        set.remove(Signal::SIGSEGV);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(GuardError::system("blocking signals"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(GuardError::system("signalfd"))?;
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(GuardError::system("pipe"))?;
        match sys::split().map_err(GuardError::system("fork"))? {
            None => {
                drop(read);
                let (step, why) = run(launch, cgroup, filter.as_ref(), &arguments, &environment, &write);
                let mut pipe = File::from(write);
                let _ = pipe.write_all(&[&[step], why.as_bytes()].concat());
                sys::leave(if step == STEP_EXEC && why == errno_text(Errno::ENOENT) { 127 } else { 126 })
            }
            Some(pid) => {
                drop(write);
                let mut said = Vec::new();
                // Ends when the program runs (close on exec) or the child is gone.
                let _ = File::from(read).read_to_end(&mut said);
                let name = launch.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
                Ok(Self { pid, failed: failure(&said, &name), signals })
            }
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Why the program was not executed, if it was not: the code that a shell exits with, and the reason.
    #[must_use]
    pub fn failure(&self) -> Option<(i32, &str)> {
        self.failed.as_ref().map(|(code, why)| (*code, why.as_str()))
    }

    /// Waits for the child: passes signals on, and stops and continues with it, so that job control works.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(&mut self, guard: &Channel) -> Result<Ended, GuardError> {
        let mut guarded = true;
        loop {
            if let Some(ended) = self.reap()? {
                return Ok(ended);
            }
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            if guarded {
                fds.push(PollFd::new(guard.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(GuardError::system("poll")(e)),
            }
            // The guard says nothing before the child ended: readable means that it is gone. Its links stay.
            if guarded && fds.get(1).and_then(PollFd::any) == Some(true) {
                guarded = false;
            }
            while let Ok(Some(info)) = self.signals.read_signal() {
                self.pass_on(info.ssi_signo as i32, info.ssi_code);
            }
        }
    }

    fn pass_on(&self, number: i32, code: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        match signal {
            Signal::SIGCHLD | Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGWINCH | Signal::SIGPIPE => {}
            // The terminal sent these to the whole foreground group, the child among it.
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP | Signal::SIGHUP if sys::from_kernel(code) => {}
            _ => {
                let _ = kill(self.pid, signal);
            }
        }
    }

    fn reap(&self) -> Result<Option<Ended>, GuardError> {
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(Some(Ended::Exited(code))),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(Ended::Signaled(signal as i32))),
                Ok(WaitStatus::Stopped(_, signal)) => self.stop_with_it(signal),
                Ok(WaitStatus::StillAlive) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(GuardError::system("waiting for the child")(e)),
            }
        }
    }

    /// The shell that started us waits for us: it must see us stop when the child does. Only under job control,
    /// where somebody will continue us.
    fn stop_with_it(&self, signal: Signal) {
        if signal == Signal::SIGSTOP && !has_terminal() || !has_terminal() {
            return;
        }
        let _ = raise(Signal::SIGSTOP);
        // Continued: the shell continues the whole group, but a child in a group of its own needs to be told.
        let _ = kill(self.pid, Signal::SIGCONT);
    }
}

fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

fn environment(launch: &Launch) -> Result<Vec<CString>, GuardError> {
    let mut out = Vec::new();
    let replaced: Vec<(OsString, OsString)> = launch.identity.as_ref().map_or_else(Vec::new, |i| {
        vec![
            ("HOME".into(), i.home.clone().into_os_string()),
            ("USER".into(), i.name.clone().into()),
            ("LOGNAME".into(), i.name.clone().into()),
        ]
    });
    let kept = launch.environment.iter().filter(|(k, _)| !replaced.iter().any(|(r, _)| r == k));
    for (key, value) in kept.chain(&replaced) {
        let mut pair = key.clone();
        pair.push("=");
        pair.push(value);
        out.push(c_string(&pair)?);
    }
    Ok(out)
}

/// In the child: becomes who and what it shall be, then the program. Returns only if that failed.
fn run(
    launch: &Launch,
    cgroup: &Cgroup,
    filter: Option<&BpfProgram>,
    arguments: &[CString],
    environment: &[CString],
    report: &OwnedFd,
) -> (u8, String) {
    let prepared = Cgroup::enter(&cgroup.path)
        .map_err(|e| format!("entering the session's cgroup: {e}"))
        .and_then(|()| if filter.is_some() { locks::drop_capabilities() } else { Ok(()) })
        .and_then(|()| become_user(launch.identity.as_ref()))
        .and_then(|()| filter.map_or(Ok(()), locks::apply));
    if let Err(why) = prepared {
        return (STEP_LOCKS, why);
    }
    if launch.locked {
        sys::close_from(3, report);
    }
    sys::default_signals();
    let Some(program) = arguments.first() else { return (STEP_EXEC, "no command".into()) };
    (STEP_EXEC, errno_text(sys::execute(program, arguments, environment)))
}

fn become_user(identity: Option<&Identity>) -> Result<(), String> {
    let Some(i) = identity else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(i.uid), Gid::from_raw(i.gid));
    let name = CString::new(i.name.as_str()).map_err(|e| e.to_string())?;
    initgroups(&name, gid)
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| format!("becoming {}: {e}", i.name))
}

fn errno_text(e: Errno) -> String {
    e.desc().into()
}

/// What the child wrote before it ended, as a shell would put it.
fn failure(said: &[u8], name: &str) -> Option<(i32, String)> {
    let (step, why) = said.split_first()?;
    let why = String::from_utf8_lossy(why);
    let name = trustrun_model::Untrusted::new(name);
    Some(match *step {
        STEP_EXEC if why == errno_text(Errno::ENOENT) => (127, format!("{name}: command not found")),
        STEP_EXEC => (126, format!("{name}: {why}")),
        _ => (125, format!("preparing the child: {why}")),
    })
}
