//! A look at Linux's table: `/proc/PID` for the processes, `/proc/PID/fd` for who holds which socket, and `/proc/PID/net` for
//! what each is, once for each network namespace of the target.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::Path,
};

use trustrun_model::Protocol;

use super::{
    Look, Process, Socket, State, diag,
    proc_net::{self, Entry},
    targets::Candidate,
};

/// Tables of `/proc/PID/net`. A raw socket's protocol is its local port.
const TABLES: [(&str, Protocol); 8] = [
    ("tcp", Protocol::Tcp),
    ("tcp6", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("udp6", Protocol::Udp),
    ("udplite", Protocol::Other(136)),
    ("udplite6", Protocol::Other(136)),
    ("raw", Protocol::Other(255)),
    ("raw6", Protocol::Other(255)),
];

/// Most arguments that are read, in octets: the longest that are shown anywhere.
const ARGUMENTS: usize = 4096;

/// Linux's socket table.
#[derive(Debug, Default)]
pub struct Linux {
    /// What was read of each process, so that its executable and arguments are read once only. Forgotten with it.
    known: HashMap<u32, Process>,
    /// Lines of the tables that could not be read, so far.
    pub unreadable: usize,
}

impl Linux {
    /// Every process of the system that may be seen. What ends meanwhile is left out, and so are kernel threads.
    #[must_use]
    pub fn candidates() -> BTreeMap<u32, Candidate> {
        let Ok(folder) = fs::read_dir("/proc") else { return BTreeMap::new() };
        let ids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|tgid: u32| Some((tgid, candidate(tgid)?))).collect()
    }

    /// Looks at these processes. Those that ended meanwhile are not in it.
    pub fn look(&mut self, targets: &BTreeMap<u32, (u32, u64)>) -> Look {
        let mut look = Look::default();
        let mut spaces: HashMap<u64, (u32, HashMap<u64, u32>)> = HashMap::new();
        for (&tgid, &(parent, started)) in targets {
            let Some(process) = self.process(tgid, parent, started) else { continue };
            look.processes.insert(tgid, process);
            let inodes = match held(tgid) {
                Ok(inodes) => inodes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    look.blind.insert(tgid, e.to_string());
                    continue;
                }
            };
            if inodes.is_empty() {
                continue;
            }
            let Some(space) = inode_of(&format!("/proc/{tgid}/ns/net")) else { continue };
            let (_, holders) = spaces.entry(space).or_insert_with(|| (tgid, HashMap::new()));
            for inode in inodes {
                holders.entry(inode).or_insert(tgid);
            }
        }
        self.known.retain(|tgid, _| look.processes.contains_key(tgid));
        let own = inode_of("/proc/self/ns/net");
        for (space, (representative, holders)) in spaces {
            let from = look.sockets.len();
            self.tables(representative, &holders, &mut look);
            // Another namespace's counts would have to be asked for from inside it, which takes privilege.
            if Some(space) == own {
                count(&mut look.sockets[from..]);
            }
        }
        look.sockets.sort_by_key(|socket| (socket.tgid, socket.key));
        look
    }

    fn process(&mut self, tgid: u32, parent: u32, started: u64) -> Option<Process> {
        // The executable is looked up each time: exec changes it and keeps the id.
        let exe = fs::read_link(format!("/proc/{tgid}/exe")).ok().map(|path| path.to_string_lossy().into_owned());
        if let Some(known) = self.known.get_mut(&tgid)
            && known.started == started
            && known.exe == exe
        {
            known.parent = parent;
            return Some(known.clone());
        }
        let uid = uid(tgid)?;
        let argv = arguments(tgid);
        let process = Process { parent, started, uid, exe, argv };
        self.known.insert(tgid, process.clone());
        Some(process)
    }

    /// The sockets of one network namespace, read through a process that lives in it.
    fn tables(&mut self, representative: u32, holders: &HashMap<u64, u32>, look: &mut Look) {
        for (file, protocol) in TABLES {
            // A kernel without IPv6 or UDP-Lite has no such file.
            let Ok(text) = fs::read_to_string(format!("/proc/{representative}/net/{file}")) else { continue };
            let (entries, unreadable) = proc_net::read(&text, protocol);
            self.unreadable += unreadable;
            look.sockets.extend(entries.into_iter().filter_map(|entry| socket(entry, protocol, holders)));
        }
    }
}

/// Adds the octets of TCP connections; a kernel without inet_diag tells none.
fn count(sockets: &mut [Socket]) {
    if !sockets.iter().any(|socket| socket.protocol == Protocol::Tcp && socket.peer.is_some()) {
        return;
    }
    let Ok(counts) = diag::tcp_bytes() else { return };
    for socket in sockets {
        socket.bytes = counts.get(&socket.key).map(|bytes| (bytes.sent, bytes.received));
    }
}

fn socket(entry: Entry, protocol: Protocol, holders: &HashMap<u64, u32>) -> Option<Socket> {
    let tgid = *holders.get(&entry.inode)?;
    let protocol = match protocol {
        Protocol::Other(255) => Protocol::from_number(u8::try_from(entry.local.port()).ok()?),
        other => other,
    };
    let state: State = entry.state?;
    Some(Socket { key: entry.inode, tgid, protocol, state, local: entry.local, peer: entry.peer, bytes: None })
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// What the process calls itself, at most 15 octets; may hold anything.
    name: String,
    parent: u32,
    /// Ticks since boot.
    started: u64,
    /// `PF_*`, include/linux/sched.h
    flags: u32,
}

/// A thread of the kernel itself.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads a line of proc_pid_stat(5). The name in it may hold anything, also `)`.
fn stat(text: &str) -> Option<Stat> {
    let (before, rest) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    // Field 3 (state) is the first here.
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| words.get(number - 3);
    Some(Stat {
        name: name.to_owned(),
        parent: field(4)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
    })
}

fn candidate(tgid: u32) -> Option<Candidate> {
    let text = fs::read(format!("/proc/{tgid}/stat")).ok()?;
    let stat = stat(&String::from_utf8_lossy(&text)).filter(|stat| stat.flags & PF_KTHREAD == 0)?;
    let exe = fs::read_link(format!("/proc/{tgid}/exe")).ok();
    let name = exe.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let cgroups = fs::read_to_string(format!("/proc/{tgid}/cgroup")).unwrap_or_default();
    Some(Candidate {
        parent: stat.parent,
        started: stat.started,
        uid: uid(tgid)?,
        name: name.unwrap_or(stat.name),
        cgroup: cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned(),
    })
}

fn uid(tgid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tgid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn arguments(tgid: u32) -> Vec<String> {
    use io::Read as _;
    let mut octets = Vec::new();
    if let Ok(file) = fs::File::open(format!("/proc/{tgid}/cmdline")) {
        // What could be read until it failed is better than nothing.
        let _ = file.take(ARGUMENTS as u64).read_to_end(&mut octets);
    }
    let octets = octets.strip_suffix(&[0]).unwrap_or(&octets);
    if octets.is_empty() {
        return Vec::new();
    }
    octets.split(|octet| *octet == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Inode numbers of the sockets that a process holds.
fn held(tgid: u32) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{tgid}/fd"))? {
        let Ok(entry) = entry else { continue };
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        inodes.extend(named_inode(&link, "socket:["));
    }
    Ok(inodes)
}

fn inode_of(link: &str) -> Option<u64> {
    named_inode(&fs::read_link(link).ok()?, "net:[")
}

/// The number in a link such as `socket:[4711]`.
fn named_inode(link: &Path, before: &str) -> Option<u64> {
    link.to_str()?.strip_prefix(before)?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn own() -> (u32, BTreeMap<u32, (u32, u64)>) {
        let me = std::process::id();
        let all = Linux::candidates();
        (me, BTreeMap::from([(me, (all[&me].parent, all[&me].started))]))
    }

    #[test]
    fn sees_what_this_process_has_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (me, targets) = own();
        let look = Linux::default().look(&targets);
        let find = |local, state| {
            let of_mine = |s: &&Socket| s.local == local && s.state == state && s.tgid == me;
            look.sockets.iter().find(of_mine).cloned()
        };
        assert!(find(listener.local_addr().unwrap(), State::Listening).is_some_and(|s| s.peer.is_none()));
        let open = find(client.local_addr().unwrap(), State::Open).unwrap();
        assert_eq!((open.peer, open.protocol), (listener.local_addr().ok(), Protocol::Tcp));
        assert!(find(udp.local_addr().unwrap(), State::Unconnected).is_some_and(|s| s.protocol == Protocol::Udp));
        let process = &look.processes[&me];
        assert_eq!(process.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert!(!process.argv.is_empty() && look.blind.is_empty());
    }

    #[test]
    fn a_process_that_is_gone_is_left_out() {
        let gone = BTreeMap::from([(u32::MAX, (1, 1))]);
        assert_eq!(Linux::default().look(&gone), Look::default());
    }

    #[test]
    fn finds_itself_and_its_parent() {
        let me = &Linux::candidates()[&std::process::id()];
        assert_eq!(me.parent, nix::unistd::getppid().as_raw().unsigned_abs());
        let exe = std::env::current_exe().unwrap();
        assert_eq!(me.name, exe.file_name().unwrap().to_string_lossy());
        assert!(me.started > 0 && me.uid == nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn a_name_may_hold_anything() {
        let text = "77 (a) R (b)) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let wanted = Stat { name: "a) R (b)".into(), parent: 1, started: 4242, flags: 4_194_560 };
        assert_eq!(stat(text), Some(wanted));
        assert_eq!(stat("77 (a) S 1"), None);
        assert_eq!(stat(""), None);
    }
}
