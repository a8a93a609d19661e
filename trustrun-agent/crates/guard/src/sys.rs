//! The one module with `unsafe`: forking, and what a forked child may call before it executes.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
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

/// How a process is born in a cgroup: linux/sched.h, since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into the cgroup whose folder is given: `None` in the child, and whether the child is in it already. Where the
/// kernel cannot, it is not, and has to move itself: that waits for every processor to pass through the scheduler, 10
/// to 20 ms on an idle machine, which is why it is the second choice.
pub(crate) fn split_into(cgroup: BorrowedFd<'_>) -> nix::Result<(Option<Pid>, bool)> {
    // SAFETY: plain numbers; all zeroes is what clone3(2) takes for what is not used.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    // SAFETY: as fork: no memory is shared and the stack is copied, since neither is asked for otherwise. What glibc
    // does around fork is for processes with several threads, which this is not (see `split`).
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        0 => Ok((None, true)),
        pid if pid > 0 => Ok((Some(Pid::from_raw(pid as libc::pid_t)), true)),
        _ => split().map(|pid| (pid, false)),
    }
}

/// Ends a forked process without running what its parent registered to run at exit.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives the signals back as our caller gave them to us: what it ignores (`nohup`) or blocks stays so. Only SIGPIPE
/// is not known, since every Rust program ignores it before its `main`; a new program expects the default.
pub(crate) fn restore_signals(mask: &SigSet, ignored_sigchld: bool) {
    default_action(Signal::SIGPIPE);
    if ignored_sigchld {
        ignore(Signal::SIGCHLD);
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Gives a signal its default action; whether it was ignored.
pub(crate) fn default_action(signal: Signal) -> bool {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let before = unsafe { sigaction(signal, &default) };
    before.is_ok_and(|b| matches!(b.handler(), SigHandler::SigIgn))
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
pub(crate) fn close_from(first: RawFd, keep: &impl AsRawFd) {
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

/// Lets this process run before others of usual priority.
pub(crate) fn prefer() {
    // SAFETY: plain numbers; where it is not allowed nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// Ends a process through a pidfd, which cannot come to mean another one.
pub(crate) fn end(tgid: u32) {
    // SAFETY: plain system calls on a descriptor that is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, tgid, 0);
        if fd >= 0 {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0);
            libc::close(fd as i32);
        }
    }
}

/// BPF_OBJ_GET_INFO_BY_FD and BPF_LINK_GET_FD_BY_ID, include/uapi/linux/bpf.h
#[cfg(feature = "ebpf")]
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
#[cfg(feature = "ebpf")]
const BPF_LINK_GET_FD_BY_ID: i32 = 30;

/// What the kernel says of a link of kernel programs (aya reads no cgroup from it).
///
/// # Errors
/// `ENOENT` if there is no such link.
#[cfg(feature = "ebpf")]
pub(crate) fn link_state(id: u32) -> io::Result<crate::links::State> {
    use std::os::fd::FromRawFd as _;
    /// The beginning of struct bpf_link_info: a cgroup's id is the first word of its union, 16 bytes in.
    #[derive(Default)]
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        pad: u32,
        cgroup: u64,
        rest: [u64; 16],
    }
    /// The part of union bpf_attr that BPF_OBJ_GET_INFO_BY_FD reads.
    #[repr(C)]
    struct Ask {
        fd: u32,
        length: u32,
        info: u64,
    }
    let by_id: [u32; 4] = [id, 0, 0, 0];
    // SAFETY: `by_id` is as long as the size says and zero behind the id, and the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_GET_FD_BY_ID, by_id.as_ptr(), size_of_val(&by_id)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // All zero: the kernel would take other values as places to write a tracepoint's name to.
    let mut info = Info::default();
    let ask =
        Ask { fd: fd.as_raw_fd().cast_unsigned(), length: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: both are as long as their sizes say; the kernel writes at most `length` bytes to `info`, which lives on,
    // and whatever it writes is a plain number.
    let r = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const ask, size_of::<Ask>()) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::links::State { kind: info.kind, program: info.program, cgroup: info.cgroup })
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
