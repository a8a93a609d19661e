//! Loading the kernel programs, filling their tables and attaching them: all or nothing.
//!
//! `programs` loads and attaches them, `tables` fills and reads their maps, `pins` keeps their links beyond this process.

mod packet_sent;
mod pins;
mod programs;
#[cfg(test)]
mod stack;
mod tables;
mod unix_border;
mod unix_peer;

use std::{fs, os::fd::AsRawFd as _, panic::resume_unwind, path::PathBuf, thread};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, CgroupArray, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{ProgramError, links::FdLink},
};
use trustrun_common::{Config, HOOK_NAMES, Offsets, UnixOffsets, counter};
use trustrun_observe::Ring;
use trustrun_policy::Tables;

use self::programs::{JUMPS, OBJECT};
pub(crate) use self::{pins::reap_pins, unix_border::NAMES as BORDER};
use crate::{Cgroup, GuardError, Sizes, btf, links::Watch};

/// The kernel side of one session.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    links: Vec<(&'static str, FdLink)>,
    pins: Option<PathBuf>,
    /// Where this kernel's structures have what the programs read.
    pub(crate) offsets: Offsets,
    /// The same for the hook of unix sockets, where this kernel has it, and its link.
    unix_offsets: Option<UnixOffsets>,
    unix_link: Option<FdLink>,
    packet_link: Option<FdLink>,
    /// Links of the programs that refuse unix sockets outside, and what these let in.
    border: Vec<(&'static str, FdLink)>,
    doors: unix_border::Doors,
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
    pub fn load(tables: Option<&Tables>, sizes: &Sizes) -> Result<Self, GuardError> {
        programs::check_abi()?;
        // Both read the kernel's type information, side by side.
        let (offsets, mut loader) = thread::scope(|scope| {
            let offsets = scope.spawn(btf::offsets);
            let loader = EbpfLoader::new();
            (offsets.join().unwrap_or_else(|p| resume_unwind(p)), loader)
        });
        let (offsets, unix_offsets) = offsets?;
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.map_max_entries("EVENTS", sizes.ring_bytes);
        for (table, entries) in &sizes.tables {
            loader.map_max_entries(table, *entries);
        }
        if let Some(t) = tables {
            let sizes = [
                ("NAMES", t.names.len()),
                ("NETS", t.nets.len()),
                ("LISTEN_NETS", t.listen.len()),
                ("PORTS", t.ports.len()),
            ];
            for (map, n) in sizes {
                loader.map_max_entries(map, u32::try_from(n + 16).unwrap_or(u32::MAX));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| GuardError::Program {
            step: "load",
            name: "maps".into(),
            reason: chain(&e),
        })?;
        programs::load(&mut ebpf)?;
        let mut loaded = Self {
            ebpf,
            links: Vec::new(),
            pins: None,
            offsets,
            unix_offsets,
            unix_link: None,
            packet_link: None,
            border: Vec::new(),
            doors: unix_border::Doors::default(),
        };
        loaded.fill_jumps()?;
        Ok(loaded)
    }

    fn fill_jumps(&mut self) -> Result<(), GuardError> {
        for (map, i, name) in JUMPS {
            let program = self.ebpf.program(name).ok_or_else(|| missing("program", name))?;
            let fd = program.fd().map_err(|e| program_error("load", name, &e))?;
            let fd = fd.try_clone().map_err(|source| GuardError::System { what: "cloning a program", source })?;
            let mut jumps: ProgramArray<&mut MapData> = self.map_mut(map)?;
            jumps.set(i, &fd, 0).map_err(map_error(map))?;
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
        self.attach_each(cgroup)?.into_iter().collect()
    }

    /// As [`Loaded::attach`], with each hook's own outcome, in the order of [`HOOK_NAMES`].
    ///
    /// # Errors
    /// If the cgroup cannot be used at all.
    pub(crate) fn attach_each(&mut self, cgroup: &Cgroup) -> Result<Vec<Result<(), GuardError>>, GuardError> {
        let fd = cgroup.fd()?;
        let mut session: CgroupArray<&mut MapData> = self.map_mut("SESSION")?;
        session.set(0, fd.as_raw_fd(), 0).map_err(map_error("SESSION"))?;
        let mut attach = |name| {
            let program = self.ebpf.program_mut(name).ok_or_else(|| missing("program", name))?;
            let link = programs::attach(program, name, &fd).map_err(|e| program_error("attach", name, &e))?;
            self.links.push((name, link));
            Ok(())
        };
        Ok(HOOK_NAMES.into_iter().map(&mut attach).collect())
    }

    /// Pins the links and the programs that they go on in, so that they outlive the agent: a crash leaves what was blocked
    /// blocked, and what was allowed allowed.
    ///
    /// # Errors
    /// If there is no bpffs and none can be mounted, or pinning fails.
    pub fn pin(&mut self, session: &str, cgroup: &Cgroup) -> Result<(), GuardError> {
        let folder = pins::bpffs()?.join("trustrun").join(session);
        fs::create_dir_all(&folder).map_err(GuardError::file("making", &folder))?;
        self.pins = Some(folder.clone());
        pins::note_place(&folder, &cgroup.path)?;
        for (name, link) in std::mem::take(&mut self.links) {
            let pinned = link.pin(folder.join(name)).map_err(|e| GuardError::Program {
                step: "pin",
                name: name.into(),
                reason: chain(&e),
            })?;
            self.links.push((name, FdLink::from(pinned)));
        }
        // The kernel empties a program array that user space holds no more, also while programs use it: then every
        // lookup, answer and first payload would be refused or lost.
        for name in programs::jump_arrays() {
            let jumps = self.ebpf.map(name).ok_or_else(|| missing("map", name))?;
            jumps.pin(folder.join(name)).map_err(|e| GuardError::Map { name, reason: chain(&e) })?;
        }
        Ok(())
    }

    /// Pins what guards the border over unix sockets too.
    ///
    /// # Errors
    /// If there is no folder yet, or pinning fails.
    pub(crate) fn pin_border(&mut self) -> Result<(), GuardError> {
        let folder = self.pins.clone().ok_or_else(|| missing("folder", "of pins"))?;
        for (name, link) in std::mem::take(&mut self.border) {
            let pinned = link.pin(folder.join(name)).map_err(|e| GuardError::Program {
                step: "pin",
                name: name.into(),
                reason: chain(&e),
            })?;
            self.border.push((name, FdLink::from(pinned)));
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

    /// What is to be watched of the links, which were attached to this cgroup.
    ///
    /// # Errors
    /// If the kernel cannot be asked about one.
    pub(crate) fn watch(&self, cgroup: u64) -> Result<Watch, GuardError> {
        Watch::new(&self.links, cgroup)
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

/// The programs that the kernel does not load, each by itself, and why: for a person who asks why a session cannot start.
///
/// # Errors
/// If not even the maps can be made.
pub(crate) fn refused() -> Result<Vec<(&'static str, GuardError)>, GuardError> {
    let maps = |e| GuardError::Program { step: "load", name: "maps".into(), reason: chain(&e) };
    let mut ebpf = EbpfLoader::new().map_max_entries("EVENTS", 1 << 16).load(OBJECT).map_err(maps)?;
    let refused = programs::names().filter_map(|name| {
        let program = ebpf.program_mut(name)?;
        programs::load_one(name, program).err().map(|e| (name, e))
    });
    Ok(refused.collect())
}

/// Every program with the number of instructions that the verifier looked at, where the kernel tells (5.16).
///
/// # Errors
/// If the kernel refuses a program.
pub fn verified_instructions() -> Result<Vec<(&'static str, Option<u32>)>, GuardError> {
    let mut loaded = Loaded::load(None, &Sizes { ring_bytes: 1 << 20, tables: Vec::new() })?;
    // A kernel that does not have what it asks for has no program to count.
    let unix = loaded.load_unix().is_ok().then_some(unix_peer::NAME);
    let packets = loaded.load_packets().is_ok().then_some(packet_sent::NAME);
    let border = loaded.load_border().map_or([None; 2], |()| BORDER.map(|(name, _)| Some(name)));
    programs::names()
        .chain(unix)
        .chain(packets)
        .chain(border.into_iter().flatten())
        .map(|name| {
            let program = loaded.ebpf.program(name).ok_or_else(|| missing("program", name))?;
            let info = program.info().map_err(|e| program_error("load", name, &e))?;
            Ok((name, info.verified_instruction_count()))
        })
        .collect()
}
