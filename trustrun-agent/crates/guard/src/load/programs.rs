//! The programs themselves: embedded, given to the verifier, attached.

use std::{
    os::fd::AsFd,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, include_bytes_aligned,
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use trustrun_common::{ABI_VERSION, HOOK_NAMES, hook};

use super::{missing, program_error};
use crate::GuardError;

pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trustrun"));

/// Programs that others go on in: the array, the place in it, the program.
pub(super) const JUMPS: [(&str, u32, &str); 4] = [
    ("JUMPS", 0, "egress_first"),
    ("JUMPS", 1, "egress_query"),
    ("JUMPS", 2, "egress_other"),
    ("JUMPS_IN", 0, "ingress_answer"),
];
/// Programs that the verifier takes long for, the longest first: begun last, one would keep all waiting.
const SLOW: [&str; 8] =
    ["ingress_answer", "egress_first", "egress_query", "egress_other", "connect4", "connect6", "sendmsg4", "sendmsg6"];
/// Most threads that load programs.
const LOADERS: usize = 4;

/// Every program: the hooks, then what they go on in.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    HOOK_NAMES.into_iter().chain(JUMPS.map(|(_, _, name)| name))
}

/// The arrays in `JUMPS`, each once.
pub(super) fn jump_arrays() -> impl Iterator<Item = &'static str> {
    let mut arrays: Vec<&str> = JUMPS.iter().map(|(map, _, _)| *map).collect();
    arrays.dedup();
    arrays.into_iter()
}

/// Loads every program, on as many threads as there are processors: the verifier's work is most of what a session's
/// start takes, and it is done in the calling thread. All threads have ended when this returns, so that the guard may
/// fork.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), GuardError> {
    for name in names() {
        ebpf.program(name).ok_or_else(|| missing("program", name))?;
    }
    let mut programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| names().any(|n| n == *name)).collect();
    // The longest last, where they are taken from.
    programs.sort_by_key(|(name, _)| SLOW.iter().rev().position(|s| s == name).map_or(0, |i| i + 1));
    let queue = Mutex::new(programs);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((name, program)) = next() {
            load_one(name, program)?;
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

pub(super) fn load_one(name: &str, program: &mut Program) -> Result<(), GuardError> {
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
pub(super) fn attach(program: &mut Program, name: &str, cgroup: impl AsFd) -> Result<FdLink, ProgramError> {
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

/// The object's own ABI version must be this agent's.
pub(super) fn check_abi() -> Result<(), GuardError> {
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
