//! The foreground process's half: starts the child in the session's cgroup and waits for it as a shell would.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, getppid, getsid, initgroups, pipe2, setresgid, setresuid},
};

use crate::{
    Cgroup, Channel, GuardError,
    locks::{Applying, Held, Locks, Subject, Wanted},
    sys,
};

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
        match nix::unistd::User::from_name(name).ok().flatten() {
            Some(user) => Ok(Self::from(user)),
            None => name.parse().map_or_else(|_| Err(GuardError::NoUser { name: name.into() }), Self::by_id),
        }
    }

    /// Looks a user up by number alone: a user may be *named* like another's number.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_id(uid: u32) -> Result<Self, GuardError> {
        let user = nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.map(Self::from).ok_or_else(|| GuardError::NoUser { name: uid.to_string() })
    }
}

impl From<nix::unistd::User> for Identity {
    fn from(u: nix::unistd::User) -> Self {
        Self { name: u.name, uid: u.uid.as_raw(), gid: u.gid.as_raw(), home: u.dir }
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
    /// The locks of an enforcing policy; none where nothing is refused.
    pub locks: Option<(Subject, Wanted)>,
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

    /// Ends this process by the signal that ended the child; returns if none did.
    pub fn repeat(self) {
        let Self::Signaled(number) = self else { return };
        let Ok(signal) = Signal::try_from(number) else { return };
        // The child dumped its core if it should; a second one of ours would only confuse.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        sys::default_action(signal);
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        let _ = raise(signal);
    }
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Set if the program could not be executed: the code that a shell would exit with.
    failed: Option<(i32, String)>,
    held: Held,
    signals: SignalFd,
}

/// What the child tells before the program runs: the locks that it holds, in eight bytes.
const STEP_HELD: u8 = 3;
/// A step that failed in the child before the program ran.
const STEP_LOCKS: u8 = 1;
const STEP_EXEC: u8 = 2;

fn c_string(s: &OsString) -> Result<CString, GuardError> {
    CString::new(s.clone().into_vec())
        .map_err(|_| GuardError::Guard { reason: "an argument or variable holds a NUL byte".into() })
}

impl Child {
    /// Starts the child inside the cgroup: it never runs an instruction of the program outside. `None` where nothing
    /// is guarded.
    ///
    /// Afterwards this process holds neither standard input nor output: the child alone decides how long a pipe lives.
    ///
    /// # Errors
    /// If it cannot be forked; a program that cannot be executed is not an error here (see [`Child::failure`]).
    pub fn start(launch: &Launch, cgroup: Option<&Cgroup>) -> Result<Self, GuardError> {
        let arguments = launch.command.iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let environment = environment(launch)?;
        let locks = launch.locks.clone().map(|(subject, wanted)| Locks::prepare(subject, wanted)).transpose()?;
        // Who ignores it cannot wait for its child.
        let ignored_sigchld = sys::default_action(Signal::SIGCHLD);
        // Blocked before the fork, so that none is lost between.
        let (mut set, mut before) = (SigSet::all(), SigSet::empty());
        set.remove(Signal::SIGSEGV);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))
            .map_err(GuardError::system("blocking signals"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(GuardError::system("signalfd"))?;
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(GuardError::system("pipe"))?;
        let folder = cgroup.map(Cgroup::fd).transpose()?;
        let (pid, inside) = match &folder {
            Some(folder) => sys::split_into(folder.as_fd()),
            None => sys::split().map(|pid| (pid, true)),
        }
        .map_err(GuardError::system("fork"))?;
        match pid {
            None => {
                drop(read);
                let words = (&*arguments, &*environment);
                let enter = cgroup.filter(|_| !inside);
                let mut pipe = File::from(write);
                let (step, why) = run(launch, enter, locks.as_ref(), words, (&before, ignored_sigchld), &mut pipe);
                let _ = pipe.write_all(&[&[step], why.as_bytes()].concat());
                sys::leave(if step == STEP_EXEC && why == errno_text(Errno::ENOENT) { 127 } else { 126 })
            }
            Some(pid) => {
                drop(write);
                sys::release_pipes();
                let mut said = Vec::new();
                // Ends when the program runs (close on exec) or the child is gone.
                let _ = File::from(read).read_to_end(&mut said);
                let name = launch.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
                let (held, said) = held(&said);
                Ok(Self { pid, failed: failure(said, &name), held, signals })
            }
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// The locks that it holds; none where it was to have none.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held
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
    pub fn wait(&mut self, mut guard: Option<&Channel>) -> Result<Ended, GuardError> {
        loop {
            if let Some(ended) = self.reap()? {
                return Ok(ended);
            }
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(guard.map(|g| PollFd::new(g.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(GuardError::system("poll")(e)),
            }
            // The guard says nothing before the child ended: readable means that it is gone. Its links stay.
            if fds.get(1).and_then(PollFd::any) == Some(true) {
                guard = None;
            }
            while let Ok(Some(info)) = self.signals.read_signal() {
                self.pass_on(info.ssi_signo as i32, info.ssi_code);
            }
        }
    }

    /// Whether somebody asked this process to end, since it was last asked.
    pub(crate) fn asked_to_end(&self) -> bool {
        let mut asked = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            asked |= matches!(signal, Ok(Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT));
        }
        asked
    }

    /// Waits for a signal or for the channel; whether the channel has something to read or is gone.
    pub(crate) fn readable_before_signal(&self, channel: &Channel) -> bool {
        let mut fds =
            [PollFd::new(channel.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => fds[0].any() == Some(true),
            Err(e) => e != Errno::EINTR,
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
                Ok(WaitStatus::Stopped(..)) => self.stop_with_it(),
                Ok(WaitStatus::StillAlive) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(GuardError::system("waiting for the child")(e)),
            }
        }
    }

    /// The shell that started us waits for us: it must see us stop when the child does. Only under job control,
    /// where somebody will continue us.
    fn stop_with_it(&self) {
        if !under_job_control() {
            return;
        }
        let _ = raise(Signal::SIGSTOP);
        // Continued: the shell continues the whole group, but a child in a group of its own needs to be told.
        let _ = kill(self.pid, Signal::SIGCONT);
    }
}

/// A terminal, and a parent in its session that sees us stop. Else nobody would continue us (an orphaned process
/// group), and what stopped the child can continue it.
fn under_job_control() -> bool {
    File::open("/dev/tty").is_ok() && getsid(Some(getppid())) == getsid(None)
}

fn environment(launch: &Launch) -> Result<Vec<CString>, GuardError> {
    let mut out = Vec::new();
    let mut replaced: Vec<(OsString, OsString)> = launch.identity.as_ref().map_or_else(Vec::new, |i| {
        vec![
            ("HOME".into(), i.home.clone().into_os_string()),
            ("USER".into(), i.name.clone().into()),
            ("LOGNAME".into(), i.name.clone().into()),
        ]
    });
    let runtime = OsString::from("XDG_RUNTIME_DIR");
    if let Some((subject, _)) = launch.locks.as_ref().filter(|_| launch.identity.is_some())
        && launch.environment.iter().any(|(k, _)| *k == runtime)
    {
        // Another's would not be there.
        replaced.push((runtime, format!("/run/user/{}", subject.uid).into()));
    }
    let kept = launch.environment.iter().filter(|(k, _)| !replaced.iter().any(|(r, _)| r == k));
    for (key, value) in kept.chain(&replaced) {
        let mut pair = key.clone();
        pair.push("=");
        pair.push(value);
        out.push(c_string(&pair)?);
    }
    Ok(out)
}

/// In the child: enters the cgroup, where it was not born there, becomes who and what it shall be, then the program.
/// Returns only if that failed.
fn run(
    launch: &Launch,
    cgroup: Option<&Cgroup>,
    locks: Option<&Locks>,
    (arguments, environment): (&[CString], &[CString]),
    (mask, ignored_sigchld): (&SigSet, bool),
    report: &mut File,
) -> (u8, String) {
    let prepared = cgroup
        .map_or(Ok(()), |c| Cgroup::enter(&c.path))
        .map_err(|e| format!("entering the session's cgroup: {e}"))
        .and_then(|()| locks.map(Locks::as_root).transpose())
        .and_then(|applying| become_user(launch.identity.as_ref()).map(|()| applying))
        .and_then(|applying| applying.map(Applying::into_user).transpose());
    match prepared {
        Err(why) => return (STEP_LOCKS, why),
        Ok(Some(held)) => {
            // Unread, there is no lock that anybody may claim.
            let _ = report.write_all(&[&[STEP_HELD][..], &held.0.to_ne_bytes()].concat());
            sys::close_from(3, report);
        }
        Ok(None) => {}
    }
    sys::restore_signals(mask, ignored_sigchld);
    let Some(program) = arguments.first() else { return (STEP_EXEC, "no command".into()) };
    let why = match sys::execute(program, arguments, environment) {
        // A folder of PATH that this user may not look into: for a shell the program is not there.
        Errno::EACCES if !program.as_bytes().contains(&b'/') && !in_path(program) => Errno::ENOENT,
        why => why,
    };
    (STEP_EXEC, errno_text(why))
}

fn in_path(program: &CStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(OsStr::from_bytes(program.to_bytes())).exists())
}

pub(crate) fn become_user(identity: Option<&Identity>) -> Result<(), String> {
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

/// The locks that the child told of, and what it said after that.
fn held(said: &[u8]) -> (Held, &[u8]) {
    match said.split_first().and_then(|(step, rest)| Some((*step, rest.split_first_chunk::<8>()?))) {
        Some((STEP_HELD, (bits, rest))) => (Held::known(u64::from_ne_bytes(*bits)), rest),
        _ => (Held::default(), said),
    }
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
