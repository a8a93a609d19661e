//! Network sockets that the command will inherit: they keep the cgroup that they were made in, so no hook of the session
//! sees what is sent on them.

use std::{fs, os::fd::RawFd};

use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getpeername, getsockname};

/// What is said of each besides the standard descriptors. A locked command inherits no other.
pub(super) fn sockets() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return vec!["nobody knows which sockets the command inherited: /proc/self/fd cannot be read".into()];
    };
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<RawFd>().ok());
    let mut found: Vec<RawFd> = numbers.filter(|fd| *fd > 2 && survives(*fd)).collect();
    found.sort_unstable();
    found.into_iter().filter_map(described).collect()
}

/// Whether the descriptor is still there after exec.
fn survives(number: RawFd) -> bool {
    let Ok(path) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else { return false };
    let flags = path.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok()).unwrap_or_default();
    flags & nix::libc::O_CLOEXEC == 0
}

fn described(number: RawFd) -> Option<String> {
    let own = getsockname::<SockaddrStorage>(number).ok()?;
    if !matches!(own.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)) {
        return None;
    }
    let peer = getpeername::<SockaddrStorage>(number).map_or_else(|_| "nobody yet".to_owned(), |peer| peer.to_string());
    Some(format!(
        "descriptor {number} of the command is a network socket that was open before, connected to {peer}: what is sent on \
         it is not seen"
    ))
}
