//! Loading the kernel programs, filling their tables and attaching them: all or nothing.

use std::{
    fs,
    os::fd::AsFd,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, ProgramArray, lpm_trie::Key},
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};
use nix::mount::{MsFlags, mount};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use trustrun_common::{
    ABI_VERSION, Address, Binding, BoundName, Config, DatagramKey, DatagramState, HOOK_NAMES, NAME_KEY, NameValue,
    PortKey, PortValue, SEARCH_MOST, SearchName, SocketState, counter, hook,
};
use trustrun_observe::Ring;
use trustrun_policy::Tables;

use crate::{Cgroup, GuardError};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trustrun"));

/// Programs that `egress` goes on in, by their place in `JUMPS`.
const JUMPS: [&str; 2] = ["egress_first", "egress_query"];
/// Programs that the verifier takes long for, the longest first: begun last, one would keep all waiting.
const SLOW: [&str; 7] = ["ingress", "egress", "connect6", "egress_first", "connect4", "egress_query", "sendmsg6"];
/// Most threads that load programs.
const LOADERS: usize = 4;
const BPFFS: &str = "/sys/fs/bpf";
/// How long a binding is kept after it ended, for connections that were allowed by it.
const KEEP_NS: u64 = 600_000_000_000;

/// The kernel side of one session.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    links: Vec<(&'static str, FdLink)>,
    pins: Option<PathBuf>,
}

fn map_error(name: &'static str) -> impl Fn(aya::maps::MapError) -> GuardError {
    move |e| GuardError::Map { name, reason: chain(&e) }
}

/// An error and what it rests on, the last 600 characters (a verifier's log is long, its reason is at the end).
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        text = format!("{text}: {s}");
        source = s.source();
    }
    let from = text.char_indices().rev().nth(600).map_or(0, |(i, _)| i);
    text[from..].into()
}

impl Loaded {
    /// Loads every program (attaching none) with tables of the size that `tables` wants.
    ///
    /// # Errors
    /// If the object is not this agent's, or the kernel refuses a program or map.
    pub fn load(tables: Option<&Tables>, ring_bytes: u32) -> Result<Self, GuardError> {
        check_abi()?;
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.map_max_entries("EVENTS", ring_bytes);
        if let Some(t) = tables {
            for (map, n) in [("NAMES", t.names.len()), ("NETS", t.nets.len()), ("PORTS", t.ports.len())] {
                loader.map_max_entries(map, u32::try_from(n + 16).unwrap_or(u32::MAX));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| GuardError::Program {
            step: "load",
            name: "maps".into(),
            reason: chain(&e),
        })?;
        load_programs(&mut ebpf)?;
        let mut loaded = Self { ebpf, links: Vec::new(), pins: None };
        loaded.fill_jumps()?;
        Ok(loaded)
    }

    fn fill_jumps(&mut self) -> Result<(), GuardError> {
        for (i, name) in (0..).zip(JUMPS) {
            let program = self.ebpf.program(name).ok_or_else(|| missing("program", name))?;
            let fd = program.fd().map_err(|e| program_error("load", name, &e))?;
            let fd = fd.try_clone().map_err(|source| GuardError::System { what: "cloning a program", source })?;
            let mut jumps: ProgramArray<&mut MapData> = self.map_mut("JUMPS")?;
            jumps.set(i, &fd, 0).map_err(map_error("JUMPS"))?;
        }
        Ok(())
    }

    fn map_mut<'a, T>(&'a mut self, name: &'static str) -> Result<T, GuardError>
    where
        T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing("map", name))?;
        T::try_from(map).map_err(map_error(name))
    }

    /// Fills the policy's tables, the resolvers and the search list.
    ///
    /// # Errors
    /// If the kernel refuses an element.
    pub fn fill(&mut self, tables: &Tables, resolvers: &[Address], search: &[String]) -> Result<(), GuardError> {
        let mut names: LpmTrie<&mut MapData, [u8; NAME_KEY], NameValue> = self.map_mut("NAMES")?;
        for (key, value) in &tables.names {
            names.insert(&Key::new(key.bits, key.bytes), value, 0).map_err(map_error("NAMES"))?;
        }
        let mut nets: LpmTrie<&mut MapData, Address, u32> = self.map_mut("NETS")?;
        for (address, bits, set) in &tables.nets {
            nets.insert(&Key::new(*bits, *address), set, 0).map_err(map_error("NETS"))?;
        }
        let mut ports: LpmTrie<&mut MapData, PortKey, PortValue> = self.map_mut("PORTS")?;
        for (key, bits, value) in &tables.ports {
            ports.insert(&Key::new(*bits, *key), value, 0).map_err(map_error("PORTS"))?;
        }
        let mut known: HashMap<&mut MapData, Address, u32> = self.map_mut("RESOLVERS")?;
        for (i, address) in (0..).zip(resolvers) {
            known.insert(address, i, 0).map_err(map_error("RESOLVERS"))?;
        }
        let mut domains = Vec::new();
        let mut list: LpmTrie<&mut MapData, [u8; NAME_KEY], u32> = self.map_mut("SEARCH")?;
        for suffix in search.iter().filter(|s| !s.is_empty() && s.len() <= trustrun_common::NAME_MAX) {
            let mut key = [0; NAME_KEY];
            for (k, b) in key.iter_mut().zip(suffix.bytes().rev().chain([b'.'])) {
                *k = b.to_ascii_lowercase();
            }
            let length = suffix.len() as u32;
            list.insert(&Key::new((length + 1) * 8, key), length, 0).map_err(map_error("SEARCH"))?;
            domains.push(SearchName { name: key, length: length + 1 });
        }
        let mut list: Array<&mut MapData, SearchName> = self.map_mut("SEARCH_LIST")?;
        for (i, domain) in (0..SEARCH_MOST).zip(&domains) {
            list.set(i, domain, 0).map_err(map_error("SEARCH_LIST"))?;
        }
        Ok(())
    }

    /// Writes the session's settings; with `MODE_*` in them, from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn configure(&mut self, config: &Config) -> Result<(), GuardError> {
        let mut map: Array<&mut MapData, Config> = self.map_mut("CONFIG")?;
        map.set(0, config, 0).map_err(map_error("CONFIG"))
    }

    /// Attaches every hook to the cgroup, or the host's tracepoints.
    ///
    /// # Errors
    /// If one cannot be: then none stays attached.
    pub fn attach(&mut self, cgroup: &Cgroup) -> Result<(), GuardError> {
        let fd = cgroup.fd()?;
        for name in HOOK_NAMES {
            let program = self.ebpf.program_mut(name).ok_or_else(|| missing("program", name))?;
            let link = attach_program(program, name, &fd).map_err(|e| program_error("attach", name, &e))?;
            self.links.push((name, link));
        }
        Ok(())
    }

    /// Pins the links, so that they outlive the agent: a crash leaves what was blocked blocked.
    ///
    /// # Errors
    /// If there is no bpffs and none can be mounted, or pinning fails.
    pub fn pin(&mut self, session: &str) -> Result<(), GuardError> {
        let folder = bpffs()?.join("trustrun").join(session);
        fs::create_dir_all(&folder).map_err(GuardError::file("making", &folder))?;
        self.pins = Some(folder.clone());
        for (name, link) in std::mem::take(&mut self.links) {
            let pinned = link.pin(folder.join(name)).map_err(|e| GuardError::Program {
                step: "pin",
                name: name.into(),
                reason: chain(&e),
            })?;
            self.links.push((name, FdLink::from(pinned)));
        }
        Ok(())
    }

    /// Maps the ring buffer.
    ///
    /// # Errors
    /// If it is not there or cannot be mapped.
    pub fn ring(&mut self) -> Result<Ring, GuardError> {
        let map = self.ebpf.take_map("EVENTS").ok_or_else(|| missing("map", "EVENTS"))?;
        Ring::new(map).map_err(map_error("EVENTS"))
    }

    /// The kernel's counters, summed over CPUs.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counters(&mut self) -> Result<[u64; counter::COUNT as usize], GuardError> {
        let map: PerCpuArray<&mut MapData, u64> = self.map_mut("COUNTERS")?;
        let mut out = [0; counter::COUNT as usize];
        for (i, sum) in (0..).zip(&mut out) {
            *sum = map.get(&i, 0).map_err(map_error("COUNTERS"))?.iter().sum();
        }
        Ok(out)
    }

    /// Sets every counter to zero.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reset_counters(&mut self) -> Result<(), GuardError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| GuardError::System { what: "counting CPUs", source })?;
        let mut map: PerCpuArray<&mut MapData, u64> = self.map_mut("COUNTERS")?;
        for i in 0..counter::COUNT {
            let zero = PerCpuValues::try_from(vec![0; cpus])
                .map_err(|source| GuardError::System { what: "zeroing counters", source })?;
            map.set(i, zero, 0).map_err(map_error("COUNTERS"))?;
        }
        Ok(())
    }

    /// Whether a thread group is of the session.
    pub fn knows_task(&mut self, tgid: u32) -> bool {
        self.map_mut::<HashMap<&mut MapData, u32, u8>>("TASKS").is_ok_and(|map| map.get(&tgid, 0).is_ok())
    }

    /// TCP sockets that are still known.
    pub fn sockets(&mut self) -> Vec<(u64, SocketState)> {
        let Ok(map) = self.map_mut::<HashMap<&mut MapData, u64, SocketState>>("SOCKETS") else { return Vec::new() };
        map.iter().flatten().collect()
    }

    /// UDP peers that are still known.
    pub fn datagrams(&mut self) -> Vec<(DatagramKey, DatagramState)> {
        let Ok(map) = self.map_mut::<HashMap<&mut MapData, DatagramKey, DatagramState>>("DATAGRAMS") else {
            return Vec::new();
        };
        map.iter().flatten().collect()
    }

    /// Binds an address to a name as the ingress program would: when enforcing (`default` is the policy's then), a name
    /// that the policy does not let be asked binds nothing.
    ///
    /// # Errors
    /// If the table is full.
    pub fn bind(
        &mut self,
        address: Address,
        name: &[u8],
        default: Option<u8>,
        now: u64,
        expires: u64,
    ) -> Result<(), GuardError> {
        let rules = self.rules_of(name)?;
        if default.is_some_and(|d| rules.map_or(d, |r| r.ask) >= trustrun_common::ACTION_BLOCK) {
            return Ok(());
        }
        let (set, name) = (rules.map_or(0, |r| r.set), trustrun_common::name_hash(name));
        let mut bindings: HashMap<&mut MapData, Address, Binding> = self.map_mut("BINDINGS")?;
        let mut b = bindings.get(&address, 0).unwrap_or_default();
        let slot = (0..b.sets.len()).find(|&i| b.expires[i] < now || b.sets[i] == set);
        let slot =
            slot.ok_or(GuardError::Map { name: "BINDINGS", reason: "every slot of the address is taken".into() })?;
        b.sets[slot] = set;
        b.expires[slot] = b.expires[slot].max(expires);
        bindings.insert(address, b, 0).map_err(map_error("BINDINGS"))?;
        let mut names: HashMap<&mut MapData, BoundName, u64> = self.map_mut("BOUND_NAMES")?;
        names.insert(BoundName { address, name }, expires, 0).map_err(map_error("BOUND_NAMES"))
    }

    /// The policy's rules for a name, from the table that the kernel programs read.
    fn rules_of(&mut self, name: &[u8]) -> Result<Option<NameValue>, GuardError> {
        let mut key = [0; NAME_KEY];
        for (k, b) in key.iter_mut().zip(name.iter().rev()) {
            *k = b.to_ascii_lowercase();
        }
        let bits = (u32::try_from(name.len()).unwrap_or(u32::MAX).min(255) + 1) * 8;
        let names: LpmTrie<&mut MapData, [u8; NAME_KEY], NameValue> = self.map_mut("NAMES")?;
        Ok(names.get(&Key::new(bits, key), 0).ok())
    }

    /// Forgets bindings that ended long ago, so that the tables do not fill in a long session.
    pub fn sweep(&mut self, now: u64) {
        let ended = |e: u64| e.saturating_add(KEEP_NS) < now;
        if let Ok(mut map) = self.map_mut::<HashMap<&mut MapData, Address, Binding>>("BINDINGS") {
            let old: Vec<_> =
                map.iter().flatten().filter(|(_, b)| b.expires.iter().all(|e| ended(*e))).map(|(k, _)| k).collect();
            old.iter().for_each(|k| drop(map.remove(k)));
        }
        if let Ok(mut map) = self.map_mut::<HashMap<&mut MapData, BoundName, u64>>("BOUND_NAMES") {
            let old: Vec<_> = map.iter().flatten().filter(|(_, e)| ended(*e)).map(|(k, _)| k).collect();
            old.iter().for_each(|k| drop(map.remove(k)));
        }
    }

    /// Whether every link is still attached, as far as the kernel tells.
    #[must_use]
    pub fn lost_links(&self) -> Vec<&'static str> {
        self.links.iter().filter(|(_, link)| link.info().is_err()).map(|(name, _)| *name).collect()
    }

    /// Detaches everything, pins included.
    pub fn detach(self) {
        if let Some(folder) = &self.pins {
            let _ = fs::remove_dir_all(folder);
        }
    }

    /// Closes this process's descriptors and leaves the pinned links attached.
    pub fn leave(self) {}
}

fn missing(what: &'static str, name: &str) -> GuardError {
    GuardError::Missing { what, name: name.into() }
}

fn program_error(step: &'static str, name: &str, e: &ProgramError) -> GuardError {
    GuardError::Program { step, name: name.into(), reason: chain(e) }
}

/// Loads every program, on as many threads as there are processors: the verifier's work is most of what a session's
/// start takes, and it is done in the calling thread. All threads have ended when this returns, so that the guard may
/// fork.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), GuardError> {
    let wanted = || HOOK_NAMES.iter().chain(&JUMPS);
    for name in wanted() {
        ebpf.program(name).ok_or_else(|| missing("program", name))?;
    }
    let mut programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| wanted().any(|w| w == name)).collect();
    // The longest last, where they are taken from.
    programs.sort_by_key(|(name, _)| SLOW.iter().rev().position(|s| s == name).map_or(0, |i| i + 1));
    let queue = Mutex::new(programs);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((name, program)) = next() {
            load_program(name, program)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others = thread::available_parallelism().map_or(1, usize::from).min(LOADERS) - 1;
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let ours = work();
        others.into_iter().fold(ours, |all, one| all.and(one.join().unwrap_or_else(|p| resume_unwind(p))))
    })
}

fn load_program(name: &str, program: &mut Program) -> Result<(), GuardError> {
    match program {
        Program::CgroupSkb(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::RawTracePoint(p) => p.load(),
        _ => return Err(missing("program of a known type", name)),
    }
    .map_err(|e| program_error("load", name, &e))
}

/// `Single` (no flags), since `AllowMultiple` is EINVAL for links; links coexist anyway.
fn attach_program(program: &mut Program, name: &str, cgroup: impl AsFd) -> Result<FdLink, ProgramError> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    macro_rules! link {
        ($p:ident, $id:expr) => {{
            let id = $id?;
            FdLink::try_from($p.take_link(id)?).map_err(|_| ProgramError::NotAttached)
        }};
    }
    match program {
        Program::CgroupSkb(p) => {
            let kind = if name == HOOK_NAMES[hook::INGRESS as usize] {
                aya::programs::CgroupSkbAttachType::Ingress
            } else {
                aya::programs::CgroupSkbAttachType::Egress
            };
            link!(p, p.attach(cgroup, kind, MODE))
        }
        Program::CgroupSock(p) => link!(p, p.attach(cgroup, MODE)),
        Program::CgroupSockAddr(p) => link!(p, p.attach(cgroup, MODE)),
        Program::SockOps(p) => link!(p, p.attach(cgroup, MODE)),
        Program::RawTracePoint(p) => {
            let tracepoint = match name {
                "process_exec" => "sched_process_exec",
                "process_fork" => "sched_process_fork",
                "process_moved" => "cgroup_attach_task",
                _ => "sched_process_exit",
            };
            link!(p, p.attach(tracepoint))
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The bpffs, mounted where there is none.
fn bpffs() -> Result<PathBuf, GuardError> {
    let path = Path::new(BPFFS);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|l| {
        let mut words = l.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    });
    if !mounted {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
            .map_err(GuardError::system("mounting a bpffs at /sys/fs/bpf"))?;
    }
    Ok(path.into())
}

/// Removes the pins of sessions whose guard and processes are gone; `alive` says which sessions are not.
pub(crate) fn reap_pins(alive: impl Fn(&str) -> bool) {
    let Ok(folders) = fs::read_dir(Path::new(BPFFS).join("trustrun")) else { return };
    for folder in folders.flatten() {
        if folder.file_name().to_str().is_some_and(|name| !alive(name)) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// The object's own ABI version must be this agent's.
fn check_abi() -> Result<(), GuardError> {
    let found = object_abi();
    if found == Some(ABI_VERSION) { Ok(()) } else { Err(GuardError::Abi { wanted: ABI_VERSION, found }) }
}

fn object_abi() -> Option<u32> {
    let file = object::File::parse(OBJECT).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok("ABI"))?;
    let data = file.section_by_index(symbol.section_index()?).ok()?.data().ok()?;
    let at = usize::try_from(symbol.address()).ok()?;
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// Every program with the number of instructions that the verifier looked at, where the kernel tells (5.16).
///
/// # Errors
/// If the kernel refuses a program.
pub fn verified_instructions() -> Result<Vec<(&'static str, Option<u32>)>, GuardError> {
    let loaded = Loaded::load(None, 1 << 20)?;
    HOOK_NAMES
        .iter()
        .chain(&JUMPS)
        .map(|name| {
            let program = loaded.ebpf.program(name).ok_or_else(|| missing("program", name))?;
            let info = program.info().map_err(|e| program_error("load", name, &e))?;
            Ok((*name, info.verified_instruction_count()))
        })
        .collect()
}
