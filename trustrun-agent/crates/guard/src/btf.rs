//! Byte offsets of kernel structure members, from the kernel's own type information.
//!
//! Only what [`offsets`] needs: <https://docs.kernel.org/bpf/btf.html>.

use std::{fs, path::Path};

use trustrun_common::{FileOffsets, Offsets, UnixOffsets};

use crate::GuardError;

const PATH: &str = "/sys/kernel/btf/vmlinux";
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// The offsets that the kernel programs need, and those of the hook for unix sockets where this kernel has them.
///
/// # Errors
/// If the kernel has no BTF or lacks a member.
pub(crate) fn offsets() -> Result<(Offsets, Option<UnixOffsets>), GuardError> {
    let path = Path::new(PATH);
    let bytes = fs::read(path).map_err(GuardError::file("reading", path))?;
    let btf = Btf::index(&bytes).ok_or_else(|| GuardError::Btf { what: "a readable header".into() })?;
    let task = btf.members("task_struct", &["tgid", "pid", "mm", "exit_code"])?;
    let mm = btf.members("mm_struct", &["arg_start", "arg_end"])?;
    let bprm = btf.members("linux_binprm", &["filename", "interp"])?;
    let cgroup = btf.members("cgroup", &["root"])?;
    let root = btf.members("cgroup_root", &["hierarchy_id"])?;
    let offsets = Offsets {
        task_tgid: task[0],
        task_pid: task[1],
        task_mm: task[2],
        task_exit_code: task[3],
        mm_arg_start: mm[0],
        mm_arg_end: mm[1],
        bprm_filename: bprm[0],
        bprm_interp: bprm[1],
        cgroup_root: cgroup[0],
        root_hierarchy: root[0],
    };
    Ok((offsets, unix_offsets(&btf).ok()))
}

/// Where an executable's inode is found.
///
/// # Errors
/// If the kernel has no BTF or lacks a member.
pub(crate) fn file_offsets() -> Result<FileOffsets, GuardError> {
    let path = Path::new(PATH);
    let bytes = fs::read(path).map_err(GuardError::file("reading", path))?;
    let btf = Btf::index(&bytes).ok_or_else(|| GuardError::Btf { what: "a readable header".into() })?;
    let one = |structure, member| Ok::<u32, GuardError>(btf.members(structure, &[member])?[0]);
    Ok(FileOffsets {
        mm_exe_file: one("mm_struct", "exe_file")?,
        file_dentry: one("file", "f_path")? + one("path", "dentry")?,
        dentry_parent: one("dentry", "d_parent")?,
        dentry_inode: one("dentry", "d_inode")?,
        inode_number: one("inode", "i_ino")?,
        inode_super: one("inode", "i_sb")?,
        super_device: one("super_block", "s_dev")?,
        pad: 0,
    })
}

/// Fails where unix sockets are a module of their own, or the kernel is older than 6.1.
fn unix_offsets(btf: &Btf<'_>) -> Result<UnixOffsets, GuardError> {
    let one = |structure, member| Ok::<u32, GuardError>(btf.members(structure, &[member])?[0]);
    let two = |(a, b), (c, d)| Ok::<u32, GuardError>(one(a, b)? + one(c, d)?);
    Ok(UnixOffsets {
        family: two(("sock", "__sk_common"), ("sock_common", "skc_family"))?,
        cgroup: two(("sock", "sk_cgrp_data"), ("sock_cgroup_data", "cgroup"))?,
        socket: one("sock", "sk_socket")?,
        level: one("cgroup", "level")?,
        ancestors: one("cgroup", "ancestors")?,
        node: one("cgroup", "kn")?,
        id: one("kernfs_node", "id")?,
        address: one("unix_sock", "addr")?,
        peer: one("unix_sock", "peer")?,
        dentry: two(("unix_sock", "path"), ("path", "dentry"))?,
        length: one("unix_address", "len")?,
        name: two(("unix_address", "name"), ("sockaddr_un", "sun_path"))?,
        inode: one("dentry", "d_inode")?,
        number: one("inode", "i_ino")?,
        own: one("socket_alloc", "vfs_inode")?,
        above: one("inode", "i_sb")?,
        device: one("super_block", "s_dev")?,
        parent: one("dentry", "d_parent")?,
        sock: one("socket", "sk")?,
        packet_sock: one("sk_buff", "sk")?,
        ready: 1,
        depth: 0,
    })
}

/// An index of BTF: where each type's record begins.
struct Btf<'a> {
    bytes: &'a [u8],
    strings: usize,
    types: Vec<usize>,
}

impl<'a> Btf<'a> {
    fn index(bytes: &'a [u8]) -> Option<Self> {
        let word = |o: usize| Some(u32::from_ne_bytes(bytes.get(o..o + 4)?.try_into().ok()?));
        if bytes.get(..2)? != 0xeb9fu16.to_ne_bytes() {
            return None;
        }
        let header = word(4)? as usize;
        let (start, length, strings) = (word(8)? as usize, word(12)? as usize, word(16)? as usize);
        let mut types = vec![0];
        let mut o = header + start;
        while o < header + start + length {
            types.push(o);
            let info = word(o + 4)?;
            let n = (info & 0xffff) as usize;
            o += 12
                + match (info >> 24) & 0x1f {
                    1 | 14 | 17 => 4,          // int, var, decl_tag
                    3 => 12,                   // array
                    4 | 5 | 15 | 19 => n * 12, // struct, union, datasec, enum64
                    6 | 13 => n * 8,           // enum, func_proto
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return None,
                };
        }
        Some(Self { bytes, strings: header + strings, types })
    }

    fn word(&self, o: usize) -> u32 {
        self.bytes.get(o..o + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    fn string(&self, o: u32) -> &'a [u8] {
        let rest = self.bytes.get(self.strings + o as usize..).unwrap_or_default();
        rest.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn members(&self, structure: &str, members: &[&str]) -> Result<Vec<u32>, GuardError> {
        let missing = |what: &str| GuardError::Btf { what: format!("struct {what}") };
        let id = (1..self.types.len())
            .find(|&id| {
                let o = self.types[id];
                (self.word(o + 4) >> 24) & 0x1f == KIND_STRUCT && self.string(self.word(o)) == structure.as_bytes()
            })
            .ok_or_else(|| missing(structure))?;
        members
            .iter()
            .map(|m| self.member(id, m.as_bytes(), 0, 4).ok_or_else(|| missing(&format!("{structure}.{m}"))))
            .collect()
    }

    /// Looks into anonymous structures and unions too, at most `depth` deep.
    fn member(&self, id: usize, name: &[u8], base: u32, depth: u32) -> Option<u32> {
        let o = *self.types.get(id)?;
        let info = self.word(o + 4);
        let bitfields = info >> 31 == 1;
        (0..(info & 0xffff) as usize).find_map(|i| {
            let m = o + 12 + i * 12;
            let bits = if bitfields { self.word(m + 8) & 0xff_ffff } else { self.word(m + 8) };
            let at = base + bits / 8;
            let found = self.string(self.word(m));
            if found == name {
                return Some(at);
            }
            let inner = self.word(m + 4) as usize;
            let kind = (self.word(*self.types.get(inner)? + 4) >> 24) & 0x1f;
            (found.is_empty() && depth > 0 && (kind == KIND_STRUCT || kind == KIND_UNION))
                .then(|| self.member(inner, name, at, depth - 1))
                .flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_kernels_offsets() {
        if !Path::new(PATH).exists() {
            crate::skip::skip("this kernel has no BTF");
            return;
        }
        let (o, unix) = offsets().unwrap();
        assert!(o.task_tgid == o.task_pid + 4, "tgid follows pid in task_struct: {o:?}");
        assert!(o.mm_arg_end == o.mm_arg_start + 8, "arg_end follows arg_start: {o:?}");
        assert!(o.bprm_interp == o.bprm_filename + 8, "interp follows filename: {o:?}");
        // struct unix_address begins with a count and the length; the family goes before the path.
        assert!(unix.is_none_or(|u| u.length == 4 && u.name == 10 && u.ready == 1), "{unix:?}");
    }

    #[test]
    fn nonsense_is_no_btf() {
        assert!(Btf::index(&[]).is_none());
        assert!(Btf::index(&[0x9f, 0xeb, 1, 0]).is_none());
        assert!(Btf::index(&[0xff; 64]).is_none());
    }
}
