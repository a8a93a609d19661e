//! How a process is classified when it executes a program: which conditions (`when`) of the policy's rules hold for it.
//! Each condition is a bit of a mask; a condition holds if its bit is in the mask of the executable, of the user, of the
//! arguments and of the session.

use core::mem::{offset_of, size_of};

/// Most bytes of arguments that are looked at. What has more is not classified, where any condition is about arguments.
pub const ARGUMENTS_MAX: usize = 1024;
/// Most folders above an executable that are looked at for one of [`FOLDER_DEEP`].
pub const FOLDERS_MAX: u32 = 16;

/// The one element of `CLASSING`. The masks are of conditions that do not speak of the thing at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classing {
    /// Conditions without executables.
    pub any_exe: u64,
    /// Conditions without users.
    pub any_user: u64,
    /// Conditions without arguments.
    pub any_argument: u64,
    /// Conditions whose unit is the session's, or that have none.
    pub unit: u64,
    /// Every condition.
    pub all: u64,
    /// Byte offsets in kernel structures.
    pub offsets: FileOffsets,
}

/// Byte offsets in kernel structures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOffsets {
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_path` and, in it, `path.dentry`
    pub file_dentry: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `dentry.d_inode`
    pub dentry_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_super: u32,
    /// `super_block.s_dev`
    pub super_device: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of `EXES` and `FOLDERS` (hashes): a file, as the kernel names it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Inode number.
    pub number: u64,
    /// Device of its file system, as the kernel writes it (`dev_t`, 12 and 20 bits).
    pub device: u32,
    /// Zero.
    pub pad: u32,
}

/// Value of `FOLDERS`: an executable directly in this folder that was not there at the start may be one of a condition's.
pub const FOLDER_DIRECT: u32 = 1;
/// The same anywhere below it.
pub const FOLDER_DEEP: u32 = 2;

const _: () = {
    assert!(size_of::<Classing>() == 72 && offset_of!(Classing, offsets) == 40);
    assert!(size_of::<FileOffsets>() == 32);
    assert!(size_of::<FileKey>() == 16 && offset_of!(FileKey, device) == 8);
};
