//! The programs that refuse unix sockets of processes outside, where this kernel runs programs as a security module.
//!
//! They are one lock more (`locks::BORDER`), for enforcing sessions alone. Where they do not load a session is as good as it
//! was without them, and its report lists no such lock.

use std::{
    collections::HashSet,
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{
    Btf,
    maps::{HashMap, MapData},
    programs::{Lsm, links::FdLink},
};
use trustrun_common::UnixDoor;

use super::Loaded;
use crate::GuardError;

/// The programs, and the kernel's own hooks.
pub(crate) const NAMES: [(&str, &str); 2] = [("unix_connect", "unix_stream_connect"), ("unix_send", "unix_may_send")];
/// Which security modules run.
const MODULES: &str = "/sys/kernel/security/lsm";

/// What the policy lets in, and what of it the kernel programs were told.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    paths: Vec<PathBuf>,
    told: HashSet<UnixDoor>,
}

impl Loaded {
    /// Loads and attaches them, with the sockets, or folders with sockets, that the policy lets in.
    ///
    /// # Errors
    /// If this kernel does not run programs as a security module, refuses one, or a file cannot be told to it.
    pub(crate) fn guard_border(&mut self, allowed: &[PathBuf]) -> Result<(), GuardError> {
        self.load_border()?;
        self.set_unix_offsets()?;
        self.doors = Doors { paths: allowed.to_vec(), told: HashSet::new() };
        self.open_doors()?;
        for (name, _) in NAMES {
            let program = self.border_program(name)?;
            let link = program.attach().and_then(|id| program.take_link(id));
            self.border.push((name, FdLink::from(link.map_err(|e| failed("attach", name, &e))?)));
        }
        Ok(())
    }

    /// Loads them.
    ///
    /// # Errors
    /// As [`Loaded::guard_border`].
    pub(crate) fn load_border(&mut self) -> Result<(), GuardError> {
        runs_programs()?;
        if self.unix_offsets.is_none() {
            return Err(GuardError::Btf { what: "the members of unix sockets".into() });
        }
        let btf = Btf::from_sys_fs().map_err(|e| failed("load", NAMES[0].0, &e))?;
        for (name, hook) in NAMES {
            self.border_program(name)?.load(hook, &btf).map_err(|e| failed("load", name, &e))?;
        }
        Ok(())
    }

    fn border_program(&mut self, name: &'static str) -> Result<&mut Lsm, GuardError> {
        let program = self.ebpf.program_mut(name).ok_or(GuardError::Missing { what: "program", name: name.into() })?;
        program.try_into().map_err(|e| failed("load", name, &e))
    }

    /// Takes them off again: they did not see the canary, or cannot stay.
    pub(crate) fn leave_border(&mut self) {
        self.border.clear();
        for (name, _) in NAMES {
            let _ = self.pins.as_ref().map(|folder| fs::remove_file(folder.join(name)));
        }
    }

    /// Tells the kernel programs of what is let in as it is now: a service that began anew has a new file.
    ///
    /// # Errors
    /// If one cannot be told.
    pub(crate) fn open_doors(&mut self) -> Result<(), GuardError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut found = Vec::new();
        for path in &self.doors.paths {
            found.extend(door(path, &mounts)?.filter(|d| !self.doors.told.contains(d)));
        }
        for door in found {
            let mut map: HashMap<&mut MapData, UnixDoor, u8> = self.map_mut("UNIX_DOORS")?;
            map.insert(door, 1, 0).map_err(super::map_error("UNIX_DOORS"))?;
            self.doors.told.insert(door);
        }
        Ok(())
    }

    /// As [`Loaded::open_doors`], once the session runs: what cannot be told is refused then, as it is unknown.
    pub(crate) fn refresh_doors(&mut self) {
        if !self.border.is_empty() {
            let _ = self.open_doors();
        }
    }
}

/// Whether programs are among the security modules.
fn runs_programs() -> Result<(), GuardError> {
    let path = Path::new(MODULES);
    let modules =
        fs::read_to_string(path).map_err(GuardError::file("reading the security modules of this kernel in", path))?;
    if modules.trim().split(',').any(|m| m == "bpf") {
        return Ok(());
    }
    let reason =
        format!("`bpf` is not among this kernel's security modules ({}): boot with lsm={0},bpf", modules.trim());
    Err(GuardError::Program { step: "load", name: NAMES[0].0.into(), reason })
}

/// A file as the kernel numbers it; none where there is none.
///
/// # Errors
/// Where the file system gives programs other numbers than it has: no door would be recognised.
fn door(path: &Path, mounts: &str) -> Result<Option<UnixDoor>, GuardError> {
    let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) else { return Ok(None) };
    let Ok(metadata) = file.metadata() else { return Ok(None) };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let mount = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
    let Some((device, kind)) = mount_of(mount, mounts) else { return Ok(None) };
    let dev = metadata.dev();
    let stated = number(nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    if kind == "overlay" && stated != device {
        let reason = "this overlay has other numbers for its files than programs see".into();
        return Err(GuardError::File {
            what: "finding the socket",
            path: path.into(),
            source: std::io::Error::other::<String>(reason),
        });
    }
    Ok(Some(UnixDoor { file: metadata.ino(), device, pad: 0 }))
}

/// The device and kind of the mount with this number. Not what stat(2) says: for btrfs that is a subvolume.
fn mount_of<'a>(id: &str, mounts: &'a str) -> Option<(u32, &'a str)> {
    let line = mounts.lines().find(|l| l.split(' ').next() == Some(id))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    Some((number(major.parse().ok()?, minor.parse().ok()?), kind))
}

/// The kernel's own encoding of a device number.
fn number(major: u64, minor: u64) -> u32 {
    u32::try_from((major << 20) | (minor & 0xf_ffff)).unwrap_or(0)
}

fn failed(step: &'static str, name: &str, e: &dyn std::error::Error) -> GuardError {
    GuardError::Program { step, name: name.into(), reason: super::chain(e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_known_by_the_device_of_its_mount() {
        let mounts = "24 1 0:22 / /run rw,nosuid - tmpfs tmpfs rw\n41 1 8:1 /@ / rw - btrfs /dev/sda1 rw\n";
        assert_eq!(mount_of("24", mounts), Some((22, "tmpfs")));
        assert_eq!(mount_of("41", mounts), Some(((8 << 20) | 1, "btrfs")));
        assert_eq!(mount_of("2", mounts), None);
    }

    #[test]
    fn a_file_and_a_folder_of_this_machine_are_doors_and_what_is_not_there_is_none() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        assert_eq!(door(&socket, &mounts).unwrap(), None);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (file, above) = (door(&socket, &mounts).unwrap(), door(folder.path(), &mounts).unwrap());
        assert_eq!(file.map(|d| d.file), fs::metadata(&socket).ok().map(|m| m.ino()));
        assert!(file.is_some_and(|d| above.is_some_and(|a| a.device == d.device && a.file != d.file)));
    }
}
