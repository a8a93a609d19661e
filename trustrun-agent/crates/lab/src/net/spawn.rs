//! Starting a program inside the lab: the one place of this crate with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

/// Whom the program runs as, once it is inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Makes `command` enter both namespaces between fork and exec, keep its working folder, and then take `identity`.
///
/// The order matters: `Command::uid` acts before any pre-exec hook, when entering would no longer be allowed.
pub(crate) fn enter_before_exec(command: &mut Command, net: Arc<OwnedFd>, mnt: Arc<OwnedFd>, who: Option<Identity>) {
    let enter = move || {
        let mut here = [0u8; libc::PATH_MAX as usize];
        let here = getcwd(&mut here);
        setns(net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        setns(mnt.as_fd(), CloneFlags::CLONE_NEWNS)?;
        if let Some(path) = here {
            // Entering a mount namespace moves the caller to its root.
            chdir(path)?;
        }
        match who {
            Some(identity) => become_user(identity),
            None => Ok(()),
        }
    };
    // SAFETY: the closure runs in the forked child. It only makes system calls on descriptors and a stack buffer that
    // it owns; it takes no lock and allocates nothing (nix's setns and Errno -> io::Error do not).
    unsafe { command.pre_exec(enter) };
}

fn getcwd(buffer: &mut [u8]) -> Option<&std::ffi::CStr> {
    // SAFETY: the pointer and length describe one live, writable buffer.
    let ok = unsafe { !libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()).is_null() };
    // "(unreachable)/..." is what Linux says of a folder outside the root.
    if ok && buffer[0] == b'/' { std::ffi::CStr::from_bytes_until_nul(buffer).ok() } else { None }
}

fn chdir(path: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: `path` is a valid C string for the length of the call.
    check(unsafe { libc::chdir(path.as_ptr()) })
}

fn become_user(identity: Identity) -> io::Result<()> {
    // SAFETY: plain system calls without memory; a group list of length zero is never read.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setgid(identity.gid))?;
        check(libc::setuid(identity.uid))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(Errno::last().into()) }
}
