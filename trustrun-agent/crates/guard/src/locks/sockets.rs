//! Sockets with a path outside `/run`: each is covered with `/dev/null`, so that a connect to it is refused.
//!
//! The kernel lists every socket that is bound, with the inode of its file (sock_diag(7), unix_diag). A file may have
//! more than one path, where its file system is mounted more than once, and a service may see it under another path
//! than the command does (a folder of its own as root, a relative path). So the path is taken where the service sees
//! it, turned into a place on the file system, and that place looked for under every mount of the command's.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};

use crate::cgroup::{self, Mount};

/// SOCK_DIAG_BY_FAMILY, include/uapi/linux/sock_diag.h
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 1 | 0x300;
/// NLMSG_ERROR, NLMSG_DONE
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// UDIAG_SHOW_NAME | UDIAG_SHOW_VFS, include/uapi/linux/unix_diag.h
const SHOW: u32 = 1 | 2;
/// UNIX_DIAG_NAME, UNIX_DIAG_VFS
const NAME: u16 = 0;
const VFS: u16 = 1;
/// sizeof(struct nlmsghdr), of the request, and of struct unix_diag_msg
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 24;
const MESSAGE: usize = 16;

/// A socket with a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    /// As whoever bound it said it: relative to their folder, or from their root.
    pub(super) path: PathBuf,
    /// The file's inode number, its lower half.
    file: u32,
    /// The socket's own inode number.
    socket: u32,
}

/// Every bound socket of this network namespace that has a path.
///
/// # Errors
/// If the kernel has no unix_diag.
pub(super) fn list() -> io::Result<Vec<Bound>> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let mut m = Vec::with_capacity(REQUEST);
    m.extend((REQUEST as u32).to_ne_bytes());
    m.extend(BY_FAMILY.to_ne_bytes());
    m.extend(DUMP.to_ne_bytes());
    m.extend([0; 8]); // sequence, port id
    m.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    m.extend(u32::MAX.to_ne_bytes()); // every state
    m.extend([0; 4]); // any inode
    m.extend(SHOW.to_ne_bytes());
    m.extend([0; 8]); // any cookie
    sendto(fd.as_raw_fd(), &m, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let n = recv(fd.as_raw_fd(), &mut part, MsgFlags::empty())?;
        if gather(part.get(..n).unwrap_or_default(), &mut found)? {
            break;
        }
    }
    // Whoever connects to a listener makes one more socket with its path.
    let mut seen = HashSet::new();
    found.retain(|b: &Bound| seen.insert((b.path.clone(), b.file)));
    Ok(found)
}

/// Reads one part of the answer; whether it was the last.
fn gather(mut part: &[u8], found: &mut Vec<Bound>) -> io::Result<bool> {
    while let Some(length) = number(part, 0).filter(|n| *n as usize >= HEADER) {
        let Some(message) = part.get(..length as usize) else { return Err(io::ErrorKind::InvalidData.into()) };
        match (number(message, 4).unwrap_or_default() & 0xffff) as u16 {
            DONE => return Ok(true),
            ERROR => {
                let code = number(message, HEADER).map_or(libc::EPROTO, |c| -c.cast_signed());
                return Err(io::Error::from_raw_os_error(code));
            }
            _ => found.extend(bound(message.get(HEADER..).unwrap_or_default())),
        }
        part = part.get(aligned(length as usize)..).unwrap_or_default();
    }
    if part.is_empty() { Ok(false) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// One socket, if it has a path.
fn bound(message: &[u8]) -> Option<Bound> {
    let socket = number(message, 4)?;
    let (mut path, mut file) = (None, 0);
    let mut rest = message.get(MESSAGE..)?;
    while let Some(head) = number(rest, 0) {
        // struct nlattr: two 16-bit numbers in the machine's order.
        let head = head.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes([head[2], head[3]]) {
            // An abstract name begins with NUL.
            NAME => path = value.split(|b| *b == 0).next().filter(|p| !p.is_empty()),
            VFS => file = number(value, 0)?,
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(Bound { path: PathBuf::from(OsStr::from_bytes(path?)), file, socket })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn aligned(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// Where the bound sockets' files are.
#[derive(Debug, Default)]
pub(super) struct Located {
    files: Vec<Place>,
    /// Paths of sockets of which nobody can tell where their files are.
    pub(super) lost: Vec<PathBuf>,
}

/// A file: on which file system, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    device: String,
    path: PathBuf,
}

/// Finds the files of all sockets that are bound now. Call it while this process sees the machine's mounts.
///
/// # Errors
/// If the sockets or the mounts cannot be listed.
pub(super) fn locate() -> io::Result<Located> {
    let bound = list()?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts: Vec<Mount<'_>> = cgroup::mounts(&text).collect();
    let mut owners = None;
    let mut located = Located::default();
    for b in bound {
        if let Some((place, surely)) = here(&b, &mounts) {
            located.files.push(place);
            if surely {
                continue;
            }
        }
        match elsewhere(&b, owners.get_or_insert_with(owners_of_sockets)) {
            Ok(place) => located.files.extend(place),
            Err(Unknown) => located.lost.push(b.path),
        }
    }
    Ok(located)
}

/// Covers every located socket that this mount namespace still shows, but for those that are let in.
///
/// # Errors
/// If the mounts cannot be read or one cannot be covered.
pub(super) fn mask(located: &Located, allowed: &[PathBuf]) -> io::Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts: Vec<Mount<'_>> = cgroup::mounts(&text).collect();
    let allowed: Vec<PathBuf> = allowed.iter().filter_map(|p| fs::canonicalize(p).ok()).collect();
    let mut covered = HashSet::new();
    for of in &located.files {
        for place in places(of, &mounts) {
            let let_in = allowed.iter().any(|a| place.starts_with(a));
            if let_in || covered.contains(&place) || socket_at(&place)?.is_none() {
                continue;
            }
            match mount(Some("/dev/null"), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
                // Its service took it away meanwhile.
                Ok(()) | Err(Errno::ENOENT) => drop(covered.insert(place)),
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// The socket's file at its path here, and whether it surely is this one's: not where the inode is another, because
/// whoever bound it sees other files under that path, or the file system numbers them its own way (overlayfs).
fn here(b: &Bound, mounts: &[Mount<'_>]) -> Option<(Place, bool)> {
    let path = b.path.is_absolute().then(|| canonical(&b.path)).flatten()?;
    let inode = socket_at(&path).ok().flatten()?;
    Some((on_disk(&path, mounts)?, inode == b.file))
}

/// Nobody is known to hold it, or their own view of the files cannot be read.
struct Unknown;

/// Its file, found through a process that holds it; none where it is gone, so that nobody can name it any more.
fn elsewhere(b: &Bound, owners: &HashMap<u32, u32>) -> Result<Option<Place>, Unknown> {
    let pid = owners.get(&b.socket).ok_or(Unknown)?;
    let seen = if b.path.is_absolute() {
        b.path.clone()
    } else {
        fs::read_link(format!("/proc/{pid}/cwd")).map_err(|_| Unknown)?.join(&b.path)
    };
    let below = seen.strip_prefix("/").map_err(|_| Unknown)?;
    let through = Path::new("/proc").join(pid.to_string()).join("root").join(below);
    if socket_at(&through).map_err(|_| Unknown)?.is_none() {
        return Ok(None);
    }
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(|_| Unknown)?;
    let theirs: Vec<Mount<'_>> = cgroup::mounts(&text).collect();
    on_disk(&seen, &theirs).map(Some).ok_or(Unknown)
}

/// The file system and the path in it.
fn on_disk(path: &Path, mounts: &[Mount<'_>]) -> Option<Place> {
    // The last of equals is on top.
    let of_it = mounts.iter().filter(|m| path.starts_with(&m.place));
    let m = of_it.max_by_key(|m| Path::new(&m.place).components().count())?;
    let below = path.strip_prefix(&m.place).ok()?;
    Some(Place { device: m.device.into(), path: Path::new(&m.root).join(below) })
}

/// Every path here that could lead there.
fn places(of: &Place, mounts: &[Mount<'_>]) -> Vec<PathBuf> {
    let same = mounts.iter().filter(|m| m.device == of.device);
    same.filter_map(|m| Some(Path::new(&m.place).join(of.path.strip_prefix(&m.root).ok()?))).collect()
}

/// Without links, but for the last part, which is the socket's own.
fn canonical(path: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
}

/// The lower half of the inode number of the socket at a path; none where there is no socket.
///
/// # Errors
/// If nobody may look, not even root (FUSE, NFS).
fn socket_at(path: &Path) -> io::Result<Option<u32>> {
    match fs::symlink_metadata(path) {
        Ok(m) => Ok(m.file_type().is_socket().then(|| m.ino() as u32)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Which process holds a socket, by the socket's inode number.
fn owners_of_sockets() -> HashMap<u32, u32> {
    let mut owners = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(fd.path()).unwrap_or_default();
            let number = link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(number) = number {
                owners.entry(number).or_insert(pid);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn every_bound_socket_with_a_path_is_listed_once_and_is_found_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, datagram) = (folder.path().join("s"), folder.path().join("d"));
        let listener = UnixListener::bind(&stream).unwrap();
        let _connected = std::os::unix::net::UnixStream::connect(&stream).unwrap();
        let _accepted = listener.accept().unwrap();
        let _datagram = UnixDatagram::bind(&datagram).unwrap();
        let bound = list().unwrap();
        for path in [stream, datagram] {
            let found: Vec<_> = bound.iter().filter(|b| b.path == path).collect();
            assert_eq!(found.len(), 1, "{}", path.display());
            assert_eq!(socket_at(&path).unwrap(), Some(found[0].file));
            let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mounts: Vec<Mount<'_>> = cgroup::mounts(&text).collect();
            let (place, surely) = here(found[0], &mounts).unwrap();
            assert!(surely);
            assert!(places(&place, &mounts).contains(&path));
            let owners = owners_of_sockets();
            assert_eq!(owners[&found[0].socket], std::process::id());
            assert_eq!(elsewhere(found[0], &owners).ok().flatten(), Some(place));
        }
    }

    #[test]
    fn a_place_on_disk_is_looked_for_under_every_mount_of_it() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /srv/x /mnt rw - ext4 a rw\n3 1 8:2 / /srv/y rw - ext4 b rw\n";
        let mounts: Vec<Mount<'_>> = cgroup::mounts(text).collect();
        let on = on_disk(Path::new("/srv/x/sock"), &mounts).unwrap();
        assert_eq!(on, Place { device: "8:1".into(), path: "/srv/x/sock".into() });
        assert_eq!(places(&on, &mounts), [PathBuf::from("/srv/x/sock"), "/mnt/sock".into()]);
        let on = on_disk(Path::new("/srv/y/z"), &mounts).unwrap();
        assert_eq!((on.device.as_str(), on.path), ("8:2", "/z".into()));
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error() {
        assert!(gather(&[40, 0, 0, 0, 20, 0], &mut Vec::new()).is_err());
        assert!(!gather(&[], &mut Vec::new()).unwrap());
    }
}
