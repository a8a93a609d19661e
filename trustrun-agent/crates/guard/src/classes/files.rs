//! Executables of conditions: globs to files as the kernel names them, and the folders in which others could appear.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, Metadata, OpenOptions},
    io::Read as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use trustrun_common::{FOLDER_DEEP, FOLDER_DIRECT, FileKey};

use super::ConditionError;
use crate::Identity;

/// Most files that conditions may be about, those in the same folders included.
const MOST: usize = 50_000;
/// Most files whose inodes are kept from being given to others.
const MOST_HELD: usize = 4096;
/// Folders that hold no files of programs, and never end.
const VIRTUAL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Executables with the conditions that hold for each, folders with their kind, and what keeps the inodes.
type Tables = (Vec<(FileKey, u64)>, Vec<(FileKey, u32)>, Vec<OwnedFd>);

/// What was found.
pub(super) struct Files {
    any: u64,
    exes: HashMap<FileKey, (u64, Vec<String>)>,
    folders: HashMap<FileKey, u32>,
    held: Vec<OwnedFd>,
    devices: HashMap<u64, u32>,
}

impl Files {
    pub(super) fn new(any: u64) -> Self {
        Self { any, exes: HashMap::new(), folders: HashMap::new(), held: Vec::new(), devices: mounts() }
    }

    /// Adds a glob and the conditions that it makes hold; what of it `writer` can write, if there is such.
    pub(super) fn add(&mut self, glob: &str, mask: u64, writer: &Writer) -> Result<Option<String>, ConditionError> {
        if !glob.starts_with('/') {
            return Err(ConditionError::NotAbsolute { glob: glob.into() });
        }
        let too_many = || ConditionError::TooManyFiles { glob: glob.into(), limit: MOST };
        let found = expand(glob).ok_or_else(too_many)?;
        let mut writable = None;
        for path in &found {
            let Some((file, key)) = self.open(path) else { continue };
            let Ok(about) = file.metadata() else { continue };
            if !about.is_file() {
                continue;
            }
            let (known, words) = self.exes.entry(key).or_insert((self.any, Vec::new()));
            *known |= mask;
            words.push(path.to_string_lossy().into_owned());
            if self.held.len() < MOST_HELD {
                self.held.push(file.into());
            }
            writable = writable.or_else(|| writer.can_write(path, &about));
        }
        if !self.exes.values().any(|(known, _)| known & mask == mask) {
            return Err(ConditionError::NoFile { glob: glob.into() });
        }
        for (folder, kind) in folders(glob, &found) {
            self.folder(&folder, kind).ok_or_else(too_many)?;
        }
        Ok(writable)
    }

    /// Notes a folder, and the files in it, so that one which comes later is known as unknown.
    fn folder(&mut self, folder: &Path, kind: u32) -> Option<()> {
        let (_, key) = self.open(folder)?;
        let known = self.folders.entry(key).or_default();
        if *known >= kind {
            return Some(());
        }
        *known = kind;
        for path in below(folder, kind == FOLDER_DEEP)? {
            if let Some((_, key)) = self.open(&path) {
                self.exes.entry(key).or_insert((self.any, Vec::new()));
            }
            if self.exes.len() > MOST {
                return None;
            }
        }
        Some(())
    }

    /// A file, behind all links, as the kernel names it: its own inode number and device, which stat(2) does not always
    /// tell (overlays, subvolumes).
    fn open(&self, path: &Path) -> Option<(File, FileKey)> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()?;
        let about = file.metadata().ok()?;
        let mut info = String::new();
        let _ =
            File::open(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).and_then(|mut f| f.read_to_string(&mut info));
        let word = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        let own = device(about.dev());
        // Linux 5.14 tells the number.
        let number = word("ino:").unwrap_or_else(|| about.ino());
        let device = word("mnt_id:").and_then(|mount| self.devices.get(&mount).copied()).unwrap_or(own);
        Some((file, FileKey { number, device, pad: 0 }))
    }

    /// Each set of conditions that an executable makes hold, with paths that do.
    pub(super) fn masks(&self) -> impl Iterator<Item = (u64, Vec<String>)> {
        let masks: BTreeMap<u64, Vec<String>> =
            self.exes.values().map(|(mask, words)| (*mask, words.clone())).collect();
        masks.into_iter().chain([(self.any, Vec::new())])
    }

    pub(super) fn into_tables(self) -> Tables {
        let exes = self.exes.into_iter().map(|(key, (mask, _))| (key, mask)).collect();
        (exes, self.folders.into_iter().collect(), self.held)
    }
}

/// A device number as the kernel keeps it: 12 bits and 20.
fn device(dev: u64) -> u32 {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    (major as u32) << 20 | minor as u32
}

/// The device of each mount's file system, by the mount's number.
fn mounts() -> HashMap<u64, u32> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let one = |line: &str| {
        let mut fields = line.split(' ');
        let mount = fields.next()?.parse().ok()?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some((mount, major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?))
    };
    text.lines().filter_map(one).collect()
}

/// Whether text matches a glob: `**` anything, `*` anything without `/`, `?` one character that is none.
pub(super) fn matches(glob: &str, text: &str) -> bool {
    fn from(glob: &[u8], text: &[u8]) -> bool {
        match glob {
            [] => text.is_empty(),
            [b'*', b'*', b'/', rest @ ..] => {
                from(rest, text) || (0..text.len()).any(|i| text[i] == b'/' && from(rest, &text[i + 1..]))
            }
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|i| from(rest, &text[i..])),
            [b'*', rest @ ..] => {
                let most = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
                (0..=most).any(|i| from(rest, &text[i..]))
            }
            [b'?', rest @ ..] => text.first().is_some_and(|b| *b != b'/') && from(rest, &text[1..]),
            [b, rest @ ..] => text.first() == Some(b) && from(rest, &text[1..]),
        }
    }
    from(glob.as_bytes(), text.as_bytes())
}

fn is_glob(part: &str) -> bool {
    part.contains(['*', '?'])
}

/// The files and folders that match; none where there are too many to look at.
fn expand(glob: &str) -> Option<Vec<PathBuf>> {
    let parts: Vec<&str> = glob.split('/').filter(|p| !p.is_empty()).collect();
    let mut at = vec![PathBuf::from("/")];
    for (i, part) in parts.iter().enumerate() {
        if part.contains("**") {
            let mut found = Vec::new();
            for base in &at {
                found.extend(below(base, true)?.into_iter().filter(|path| matches(glob, &path.to_string_lossy())));
            }
            return (found.len() <= MOST).then_some(found);
        }
        let last = i + 1 == parts.len();
        let mut next = Vec::new();
        for base in &at {
            if !is_glob(part) {
                next.push(base.join(part));
                continue;
            }
            let entries = fs::read_dir(base).into_iter().flatten().flatten();
            next.extend(entries.filter(|e| matches(part, &e.file_name().to_string_lossy())).map(|e| e.path()));
        }
        next.retain(|path| if last { path.is_file() } else { path.is_dir() });
        if next.len() > MOST {
            return None;
        }
        at = next;
    }
    Some(at)
}

/// The files in a folder, or anywhere below it.
fn below(folder: &Path, deep: bool) -> Option<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let skipped = VIRTUAL.iter().any(|v| path == Path::new(v));
                if deep && !skipped {
                    open.push(path);
                }
            } else if kind.is_file() || path.is_file() {
                files.push(path);
            }
            if files.len() + open.len() > MOST {
                return None;
            }
        }
    }
    Some(files)
}

/// Where a file could come to be that matches: the folders of those that do, and those above the first `*` that stands
/// for a folder.
fn folders(glob: &str, found: &[PathBuf]) -> BTreeMap<PathBuf, u32> {
    let mut folders: BTreeMap<PathBuf, u32> = BTreeMap::new();
    let mut note = |folder: &Path, kind: u32| {
        let kinds = folders.entry(folder.to_owned()).or_default();
        *kinds = kind.max(*kinds);
    };
    let (above, _) = glob.rsplit_once('/').unwrap_or_default();
    if is_glob(above) || glob.contains("**") {
        let parts: Vec<&str> = glob.split('/').filter(|p| !p.is_empty()).collect();
        let certain: PathBuf = parts.iter().take_while(|p| !is_glob(p)).collect();
        note(&Path::new("/").join(certain), FOLDER_DEEP);
    } else {
        note(Path::new(if above.is_empty() { "/" } else { above }), FOLDER_DIRECT);
    }
    // Behind links: where the file really is, another can take its place.
    for path in found {
        if let Ok(real) = fs::canonicalize(path)
            && let Some(folder) = real.parent()
        {
            note(folder, FOLDER_DIRECT);
        }
    }
    folders
}

/// Who might change an executable.
pub(super) struct Writer {
    uid: u32,
    groups: Vec<u32>,
}

impl Writer {
    pub(super) fn new(who: Option<&Identity>) -> Self {
        let Some(who) = who else {
            let groups = nix::unistd::getgroups().unwrap_or_default();
            return Self {
                uid: nix::unistd::getuid().as_raw(),
                groups: groups.into_iter().map(|g| g.as_raw()).collect(),
            };
        };
        let name = std::ffi::CString::new(who.name.as_str()).unwrap_or_default();
        let groups = nix::unistd::getgrouplist(&name, nix::unistd::Gid::from_raw(who.gid)).unwrap_or_default();
        Self { uid: who.uid, groups: groups.into_iter().map(|g| g.as_raw()).collect() }
    }

    /// The file, or the folder that it is in, if they can write it.
    fn can_write(&self, path: &Path, about: &Metadata) -> Option<String> {
        if self.writes(about) {
            return Some(path.to_string_lossy().into_owned());
        }
        let real = fs::canonicalize(path).ok()?;
        let folders = [path.parent()?, real.parent()?];
        let folder = folders.into_iter().find(|f| fs::metadata(f).is_ok_and(|about| self.writes(&about)))?;
        Some(folder.to_string_lossy().into_owned())
    }

    fn writes(&self, about: &Metadata) -> bool {
        let mode = about.mode();
        self.uid == 0
            || (about.uid() == self.uid)
            || (mode & 0o020 != 0 && self.groups.contains(&about.gid()))
            || mode & 0o002 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_folder_and_two_do_not() {
        for (glob, text) in [
            ("/usr/bin/python3*", "/usr/bin/python3.11"),
            ("/opt/**/python", "/opt/a/b/python"),
            ("/opt/**/python", "/opt/python"),
            ("/opt/*/bin/r?", "/opt/a/bin/rr"),
            ("/opt/**", "/opt/a/b"),
            ("etl@*.service", "etl@1.service"),
        ] {
            assert!(matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [
            ("/usr/bin/python3*", "/usr/bin/python3/x"),
            ("/usr/bin/*", "/usr/bin"),
            ("/opt/*/python", "/opt/a/b/python"),
            ("/a", "/ab"),
        ] {
            assert!(!matches(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn finds_files_and_the_folders_where_others_could_come() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/bin")).unwrap();
        for name in ["a/bin/tool", "a/bin/other", "a/top"] {
            fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(root.join("a/bin/tool"), root.join("a/link")).unwrap();
        let glob = |tail: &str| format!("{}/{tail}", root.display());
        let found = |tail: &str| {
            let mut found = expand(&glob(tail)).unwrap();
            found.sort();
            found.iter().map(|p| p.strip_prefix(&root).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("a/bin/to*"), ["a/bin/tool"]);
        assert_eq!(found("*/bin/*"), ["a/bin/other", "a/bin/tool"]);
        assert_eq!(found("**/tool"), ["a/bin/tool"]);
        assert_eq!(found("a/*"), ["a/link", "a/top"]);
        let link = glob("a/link");
        let kinds = folders(&link, &expand(&link).unwrap());
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [(root.join("a"), 1), (root.join("a/bin"), 1)]);
        let deep = folders(&glob("*/bin/*"), &[]);
        assert_eq!(deep.into_iter().collect::<Vec<_>>(), [(root.clone(), FOLDER_DEEP)]);
    }

    #[test]
    fn a_link_names_the_file_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let writer = Writer { uid: 65_000, groups: Vec::new() };
        let mut files = Files::new(0);
        files.add(&file.to_string_lossy(), 1, &writer).unwrap();
        files.add(&link.to_string_lossy(), 2, &writer).unwrap();
        assert!(files.masks().any(|(mask, words)| mask == 3 && words.len() == 2));
        assert!(matches!(files.add("/no/such/file", 4, &writer), Err(ConditionError::NoFile { .. })));
        assert!(matches!(files.add("bin/x", 4, &writer), Err(ConditionError::NotAbsolute { .. })));
    }
}
