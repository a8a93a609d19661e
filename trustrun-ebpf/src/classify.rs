//! Which rules with a condition (`when`) speak about a process: judged when it executes a program, from what the kernel
//! really runs, and kept until it executes another.
//!
//! The executable is known by its inode, never by the name that was given to execve(2). A file that was not there when the
//! session began, in a folder where one of a condition's could be, may be anything: such a process is not classified.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_probe_read_kernel,
    macros::map,
    maps::{Array, HashMap},
};
use trustrun_common::{
    ARGUMENTS_MAX, Classing, Config, ExecEvent, FLAG_CUT, FNV_OFFSET, FNV_PRIME, FOLDER_DEEP, FOLDERS_MAX, FileKey,
    PATH_MAX,
};

use crate::{
    emit,
    scratch::{Scratch, again, load, slot, store},
};

/// What was read of a program.
#[derive(Clone, Copy)]
pub struct Read {
    /// Bytes of path.
    pub exe: u32,
    /// Bytes of arguments that are there.
    pub arguments: u64,
    /// `FLAG_CUT` if there are more.
    pub flags: u16,
}

/// Where in the scratch payload the arguments are.
pub const ARGUMENTS: usize = size_of::<ExecEvent>() + PATH_MAX;

/// One element.
#[map]
static CLASSING: Array<Classing> = Array::with_max_entries(1, 0);
/// Executables of the conditions: which hold for each.
#[map]
static EXES: HashMap<FileKey, u64> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);
/// Folders in which one of the conditions' executables could appear: `FOLDER_*`.
#[map]
static FOLDERS: HashMap<FileKey, u32> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);
/// Real users of the conditions.
#[map]
static USERS: HashMap<u32, u64> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);
/// Arguments of the conditions, by `bytes_hash`.
#[map]
static ARGUMENT_HASHES: HashMap<u64, u64> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);
/// Which class it is where these conditions hold.
#[map]
static CLASS_OF: HashMap<u64, u32> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// The class of the current process, whose program is in place.
#[inline(always)]
pub fn process(task: usize, s: *mut Scratch, read: Read, config: &Config) -> u8 {
    let Some(c) = CLASSING.get(0) else { return 0 };
    let Some(exe) = executable(task, c, config) else { return 0 };
    // SAFETY: the value is read at once.
    let user = unsafe { USERS.get(&emit::owner().uid) }.map_or(c.any_user, |mask| *mask);
    let mut arguments = c.any_argument;
    if c.any_argument != c.all {
        if read.flags & FLAG_CUT != 0 || read.arguments > ARGUMENTS_MAX as u64 {
            return 0;
        }
        arguments |= classify_arguments(slot(s), read.arguments);
    }
    let mask = exe & user & arguments & c.unit;
    // SAFETY: as above.
    unsafe { CLASS_OF.get(&mask) }.map_or(0, |class| *class as u8)
}

/// The conditions whose executable it is; none where that cannot be known.
#[inline(always)]
fn executable(task: usize, c: &Classing, config: &Config) -> Option<u64> {
    if c.any_exe == c.all {
        return Some(c.all);
    }
    let o = &c.offsets;
    // SAFETY: the helper checks every access.
    let dentry = unsafe {
        let mm = bpf_probe_read_kernel((task + config.offsets.task_mm as usize) as *const usize).ok()?;
        let file = bpf_probe_read_kernel((mm + o.mm_exe_file as usize) as *const usize).ok()?;
        bpf_probe_read_kernel((file + o.file_dentry as usize) as *const usize).ok()?
    };
    let key = file_key(dentry, c)?;
    // SAFETY: the value is read at once.
    if let Some(mask) = unsafe { EXES.get(&key) } {
        return Some(*mask);
    }
    if classify_folders(dentry as u64) == 0 { Some(c.any_exe) } else { None }
}

/// A file as the maps name it.
#[inline(always)]
fn file_key(dentry: usize, c: &Classing) -> Option<FileKey> {
    let o = &c.offsets;
    // SAFETY: the helper checks every access.
    unsafe {
        let inode = bpf_probe_read_kernel((dentry + o.dentry_inode as usize) as *const usize).ok()?;
        let number = bpf_probe_read_kernel((inode + o.inode_number as usize) as *const u64).ok()?;
        let above = bpf_probe_read_kernel((inode + o.inode_super as usize) as *const usize).ok()?;
        let device = bpf_probe_read_kernel((above + o.super_device as usize) as *const u32).ok()?;
        Some(FileKey { number, device, pad: 0 })
    }
}

/// Not 0 if a file could be one of the conditions' by where it is, or that cannot be known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn classify_folders(dentry: u64) -> u64 {
    let Some(c) = CLASSING.get(0) else { return 1 };
    let mut at = dentry as usize;
    for depth in 0..FOLDERS_MAX {
        // SAFETY: the helper checks the access.
        let parent = unsafe { bpf_probe_read_kernel((at + c.offsets.dentry_parent as usize) as *const usize) };
        let Ok(parent) = parent else { return 1 };
        if parent == at {
            return 0;
        }
        let Some(key) = file_key(parent, c) else { return 1 };
        // SAFETY: the value is read at once.
        if let Some(kind) = unsafe { FOLDERS.get(&key) }
            && (depth == 0 || *kind == FOLDER_DEEP)
        {
            return 1;
        }
        at = parent;
    }
    1
}

/// The conditions one of whose arguments is in the payload, which holds `size` bytes of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn classify_arguments(slot: u64, size: u64) -> u64 {
    let Some(s) = again(slot) else { return 0 };
    // SAFETY: fields of this run's slot; constant indices, less than `payload` is long.
    unsafe {
        store(&raw mut (*s).hash, FNV_OFFSET);
        store(&raw mut (*s).next, 0);
        store(&raw mut (*s).length, size);
        for i in 0..ARGUMENTS_MAX {
            if i as u64 >= load(&raw const (*s).length) {
                break;
            }
            let b = (*s).payload[ARGUMENTS + i];
            let hash = load(&raw const (*s).hash);
            if b != 0 {
                store(&raw mut (*s).hash, (hash ^ b as u64).wrapping_mul(FNV_PRIME));
                continue;
            }
            if let Some(mask) = ARGUMENT_HASHES.get(&hash) {
                store(&raw mut (*s).next, load(&raw const (*s).next) | *mask);
            }
            store(&raw mut (*s).hash, FNV_OFFSET);
        }
        load(&raw const (*s).next)
    }
}
