//! The one module with `unsafe`: forking, and what a forked child may call before it executes.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
    unistd::{ForkResult, Pid, fork},
};

/// Forks; `None` in the child.
///
/// The callers are single-threaded at that point (the guard has no runtime, the command line has started no thread),
/// so that the child may do anything.
pub(crate) fn split() -> nix::Result<Option<Pid>> {
    // SAFETY: single-threaded, see above.
    Ok(match unsafe { fork() }? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    })
}

/// Ends a forked process without running what its parent registered to run at exit.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives the signals back as our caller gave them to us: what it ignores (`nohup`) or blocks stays so. Only SIGPIPE
/// is not known, since every Rust program ignores it before its `main`; a new program expects the default.
pub(crate) fn restore_signals(mask: &SigSet) {
    default_action(Signal::SIGPIPE);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Gives a signal its default action.
pub(crate) fn default_action(signal: Signal) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { sigaction(signal, &default) };
}

/// Ignores a signal.
pub(crate) fn ignore(signal: Signal) {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code of ours.
    let _ = unsafe { sigaction(signal, &ignore) };
}

/// Executes a program found as a shell finds it; returns only with the error.
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    match nix::unistd::execvpe(program, arguments, environment) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

/// Lets go of standard input and output, which are the child's: a pipe must end when the child closes it, and not
/// when we do.
pub(crate) fn release_pipes() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    let _ = nix::unistd::dup2_stdin(&null);
    let _ = nix::unistd::dup2_stdout(&null);
}

/// Closes every descriptor from `first` on except `keep`.
pub(crate) fn close_from(first: RawFd, keep: &OwnedFd) {
    let keep = keep.as_raw_fd();
    for (from, to) in [(first, keep - 1), (keep + 1, RawFd::MAX)] {
        if from <= to {
            // SAFETY: in a forked child that executes next; nothing in it uses the descriptors any more.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    }
}

/// Where a signal of a signalfd came from: `true` if the kernel sent it (the terminal), not a process.
pub(crate) fn from_kernel(code: i32) -> bool {
    code == libc::SI_KERNEL
}

/// A raw socket that takes whole IP packets, for answers that make a refused lookup fail at once.
pub(crate) fn raw_socket(v6: bool) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: a plain system call; the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The kernel's cookie of a socket.
#[cfg(test)]
pub(crate) fn cookie(socket: &impl std::os::fd::AsRawFd) -> u64 {
    let (mut cookie, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the value is as long as the size says.
    let r = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut size)
    };
    assert_eq!(r, 0, "SO_COOKIE");
    cookie
}
