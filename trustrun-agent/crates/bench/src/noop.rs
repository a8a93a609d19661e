//! Loading the programs of `trustrun-ebpf/src/bin/noop.rs`.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapData},
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, SocketFilter},
};
use trustrun_common::HOOK_NAMES;
use trustrun_guard::Hierarchy;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/noop"));

/// A cgroup with programs that do nothing on every hook of a session that a connection or packet runs through.
pub(crate) struct Noop {
    _ebpf: Ebpf,
    pub(crate) cgroup: PathBuf,
}

impl Noop {
    pub(crate) fn attach() -> Result<Self> {
        let cgroup = Hierarchy::find()?.mount.join(format!("trustrun-bench-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let mut ebpf = Ebpf::load(OBJECT).context("loading the programs that do nothing")?;
        // Hooks that no connection or packet runs through have no counterpart here.
        for name in HOOK_NAMES {
            if let Some(program) = ebpf.program_mut(name) {
                attach(program, name, &cgroup).with_context(|| format!("attaching {name}"))?;
            }
        }
        Ok(Self { _ebpf: ebpf, cgroup })
    }
}

impl Drop for Noop {
    fn drop(&mut self) {
        // Its client has ended; what is left is an empty folder.
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn attach(program: &mut Program, name: &str, cgroup: &Path) -> Result<()> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let cgroup = fs::File::open(cgroup)?;
    match program {
        Program::CgroupSkb(p) => {
            p.load()?;
            let kind = if name == "ingress" { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            p.attach(cgroup, kind, MODE)?;
        }
        Program::CgroupSock(p) => {
            p.load()?;
            p.attach(cgroup, MODE)?;
        }
        Program::CgroupSockAddr(p) => {
            p.load()?;
            p.attach(cgroup, MODE)?;
        }
        Program::SockOps(p) => {
            p.load()?;
            p.attach(cgroup, MODE)?;
        }
        _ => anyhow::bail!("an unexpected program"),
    }
    Ok(())
}

/// Makes events on a session's own ring buffer.
pub(crate) struct Generator {
    ebpf: Ebpf,
    socket: UdpSocket,
    tgid: u32,
}

impl Generator {
    /// `events` and `counters` are the ids of the session's maps, `tgid` a process of it.
    pub(crate) fn start(events: u32, counters: u32, tgid: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let mut pins = Vec::new();
        for (name, id) in [("EVENTS", events), ("COUNTERS", counters)] {
            // A map of another process enters a new object by a pin only.
            let pin = PathBuf::from(format!("/sys/fs/bpf/trustrun-bench-{}-{name}", std::process::id()));
            MapData::from_id(id)?.pin(&pin).with_context(|| format!("pinning the session's {name}"))?;
            loader.map_pin_path(name, pin.clone());
            pins.push(pin);
        }
        let loaded = loader.load(OBJECT);
        for pin in pins {
            let _ = fs::remove_file(pin);
        }
        let mut ebpf = loaded.context("loading the generator")?;
        let program: &mut SocketFilter = ebpf.program_mut("generate").context("no generator")?.try_into()?;
        program.load().context("loading the generator")?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(socket.local_addr()?)?;
        program.attach(&socket)?;
        Ok(Self { ebpf, socket, tgid })
    }

    /// Makes events `first` to `first + n`, at most 256.
    pub(crate) fn make(&mut self, first: u64, n: u64) -> Result<()> {
        let map = self.ebpf.map_mut("GENERATOR").context("no GENERATOR")?;
        Array::<_, [u64; 3]>::try_from(map)?.set(0, [u64::from(self.tgid), first, n], 0)?;
        // The filter takes nothing of it in.
        self.socket.send(&[0])?;
        Ok(())
    }
}
