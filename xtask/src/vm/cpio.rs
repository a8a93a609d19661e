//! The archive that a kernel unpacks as its first file system: "newc", which
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html> describes.

/// An archive being written.
#[derive(Debug, Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Cpio {
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    pub(crate) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, PROGRAM, bytes);
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, target.as_bytes());
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("nothing here is as large as 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path is short");
        // magic, then: inode mode uid gid links mtime size, device and special device (major, minor), name's size, checksum.
        let numbers = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08X}").bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_begins_at_a_multiple_of_four() {
        let mut cpio = Cpio::default();
        cpio.folder("dev");
        cpio.program("init", b"#!x\n!");
        cpio.link("bin/sh", "busybox");
        let bytes = cpio.finish();
        let at: Vec<usize> = bytes.windows(6).enumerate().filter(|(_, w)| w == b"070701").map(|(at, _)| at).collect();
        assert_eq!(at.len(), 4);
        assert!(at.iter().all(|at| at % 4 == 0), "{at:?}");
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of header, "init" and NUL, padded from 115 to 116.
        assert_eq!(&bytes[at[1]..at[1] + 22], b"07070100000002000081ED");
        assert_eq!(&bytes[at[1] + 116..at[1] + 121], b"#!x\n!");
    }
}
