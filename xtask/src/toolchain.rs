//! What the compiler says of itself, and where its LLVM is: bpf-linker has to be built against that very library, as it
//! reads the bitcode that this rustc writes.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The oldest compiler that builds the project: `rust-version` of the workspace.
const OLDEST: (u32, u32) = (1, 95);

/// The compiler that cargo uses here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// `1.95.0`
    pub(crate) release: String,
    /// The commit, or `unknown`: two builds of one release need not share their LLVM.
    pub(crate) commit: String,
    /// `x86_64-unknown-linux-gnu`
    pub(crate) triple: String,
    /// `22`
    pub(crate) llvm_major: u32,
    /// Where the compiler's own files are.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Asks rustc.
    pub(crate) fn discover() -> Result<Self> {
        let version = rustc(&["-vV"])?;
        let sysroot = rustc(&["--print", "sysroot"])?;
        Self::parse(&version, sysroot.trim())
    }

    /// Reads what `rustc -vV` and `rustc --print sysroot` print.
    fn parse(version: &str, sysroot: &str) -> Result<Self> {
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim_start_matches(':').trim().to_owned())
                .with_context(|| format!("`rustc -vV` has no line {name:?}:\n{version}"))
        };
        let llvm = field("LLVM version")?;
        let llvm_major = llvm.split('.').next().unwrap_or_default().parse();
        Ok(Self {
            release: field("release")?,
            commit: field("commit-hash")?,
            triple: field("host")?,
            llvm_major: llvm_major.with_context(|| format!("`rustc -vV` has LLVM version {llvm:?}, not a number"))?,
            sysroot: PathBuf::from(sysroot),
        })
    }

    /// Fails, with what to do, where the compiler is too old.
    pub(crate) fn require_recent(&self) -> Result<()> {
        let mut parts = self.release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found >= OLDEST {
            return Ok(());
        }
        let (major, minor) = OLDEST;
        bail!(
            "this is rustc {}, TrustRun needs {major}.{minor} or newer.\n  With rustup: rustup update stable\n  \
             Without: see https://rustup.rs (a distribution's own rustc is often too old)",
            self.release
        )
    }

    /// Where the source of `core` is, once the component `rust-src` is there: the kernel programs need it built for them.
    pub(crate) fn core_source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml")
    }

    /// rustc's own LLVM library: the file itself, not the linker script beside it.
    pub(crate) fn llvm_library(&self) -> Option<PathBuf> {
        let folder = self.sysroot.join("lib");
        let names: Vec<String> =
            folder.read_dir().ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        choose_library(&names, self.llvm_major, |name| is_elf(&folder.join(name))).map(|name| folder.join(name))
    }
}

/// The name of the real library among `names`. In 1.95 there are two: `libLLVM-22-rust-1.95.0-stable.so` is a linker
/// script of one line, `libLLVM.so.22.1-rust-1.95.0-stable` is the library, and its file name is its soname. Names have
/// changed before, so they are looked at, not made up.
fn choose_library(names: &[String], llvm_major: u32, is_elf: impl Fn(&str) -> bool) -> Option<&str> {
    let of_this_version = |name: &str| {
        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits.split(|c: char| !c.is_ascii_digit()).next() == Some(llvm_major.to_string().as_str())
    };
    names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("libLLVM") && name.contains(".so"))
        .find(|name| of_this_version(name) && is_elf(name))
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).output().context("rustc cannot be started")?;
    if !output.status.success() {
        bail!("`rustc {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("rustc's answer is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    fn with_release(release: &str) -> Toolchain {
        Toolchain { release: release.into(), ..Toolchain::parse(VERSION, "/sysroot").expect("a toolchain") }
    }

    #[test]
    fn the_compilers_answer_is_read() {
        let toolchain = Toolchain::parse(VERSION, "/sysroot").expect("a toolchain");
        assert_eq!(toolchain.release, "1.95.0");
        assert_eq!(toolchain.triple, "x86_64-unknown-linux-gnu");
        assert_eq!(toolchain.llvm_major, 22);
        assert!(Toolchain::parse("rustc 1.95.0", "/sysroot").is_err());
        assert!(Toolchain::parse(&VERSION.replace("22.1.2", "new"), "/sysroot").is_err());
    }

    #[test]
    fn an_old_compiler_is_refused_with_the_way_out() {
        for good in ["1.95.0", "1.100.0-nightly", "2.0.0"] {
            assert!(with_release(good).require_recent().is_ok(), "{good}");
        }
        for bad in ["1.94.1", "1.85.0", "strange"] {
            let problem = with_release(bad).require_recent().expect_err(bad).to_string();
            assert!(problem.contains("rustup update stable"), "{problem}");
        }
    }

    #[test]
    fn the_library_is_told_from_the_linker_script() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let now = names(&[
            "librustc_driver-6108105cd7e839cf.so",
            "libLLVM-22-rust-1.95.0-stable.so",
            "libLLVM.so.22.1-rust-1.95.0-stable",
        ]);
        let not_the_script = |name: &str| name != "libLLVM-22-rust-1.95.0-stable.so";
        assert_eq!(choose_library(&now, 22, not_the_script), Some("libLLVM.so.22.1-rust-1.95.0-stable"));
        assert_eq!(choose_library(&now, 23, not_the_script), None, "the LLVM of another version is no use");

        let before = names(&["libLLVM-17-rust-1.77.2-stable.so"]);
        assert_eq!(choose_library(&before, 17, |_| true), Some("libLLVM-17-rust-1.77.2-stable.so"));
        assert_eq!(choose_library(&names(&["rustlib"]), 22, |_| true), None);
    }

    #[test]
    fn this_machines_compiler_is_understood() {
        let toolchain = Toolchain::discover().expect("rustc answers");
        toolchain.require_recent().expect("the tests were built with it");
    }
}
