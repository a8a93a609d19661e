//! Brings a fresh machine to where the other tasks work. Every step first looks whether its thing is there, says one line
//! when it has to do something, and leaves nothing half done: what failed is tried again the next time.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{host::Host, packages};

/// The bpf-linker whose LLVM bindings the kernel programs were tried with (docs/decisions/0001).
const BPF_LINKER: &str = "^0.13";

/// All of it, for a person who asked: says what is there, too.
pub(crate) fn everything(host: &Host) -> Result<ExitCode> {
    compiler(host)?;
    let toolchain = &host.toolchain;
    say(&format!("rustc {} with LLVM {}, rust-src, bpf-linker: ready", toolchain.release, toolchain.llvm_major));
    if packages::for_tests(host)? {
        say("programs that the tests drive: ready");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a build needs, and so `run` and `demo`. Silent when all is there.
pub(crate) fn compiler(host: &Host) -> Result<()> {
    host.toolchain.require_recent()?;
    if !cfg!(target_os = "linux") {
        // The kernel programs run on Linux only; elsewhere the agent is built without them.
        return Ok(());
    }
    rust_src(host)?;
    bpf_linker(host)
}

/// A rustup component that a task needs, by the file that shows it is there.
pub(crate) fn component(host: &Host, name: &str, shown_by: &Path) -> Result<()> {
    if shown_by.exists() {
        return Ok(());
    }
    if host.which("rustup").is_none() {
        bail!(
            "the compiler in {} has no {name}, and there is no rustup to add it.\n  \
             Either install Rust with rustup (https://rustup.rs), or the package of your distribution that goes with \
             this very rustc (Debian: rust-src, rust-clippy, rustfmt; with rustc-web: rust-web-src)",
            host.toolchain.sysroot.display()
        );
    }
    say(&format!("adding the component {name} to rustc {}", host.toolchain.release));
    // Not with the outer environment: RUSTUP_TOOLCHAIN says which toolchain runs us, and that is the one that lacks it.
    let status = Command::new("rustup").args(["component", "add", name]).stdout(io::stderr()).status();
    let status = status.context("rustup cannot be started")?;
    ensure!(status.success(), "`rustup component add {name}` failed ({status}); it needs the network");
    ensure!(shown_by.exists(), "rustup added {name}, but {} is not there", shown_by.display());
    Ok(())
}

fn rust_src(host: &Host) -> Result<()> {
    component(host, "rust-src", &host.toolchain.core_source())
}

fn bpf_linker(host: &Host) -> Result<()> {
    let tools = host.tools();
    let toolchain = &host.toolchain;
    // Another compiler, even of the same version, may bring another LLVM.
    let wanted = format!("bpf-linker {BPF_LINKER}\nrustc {}\n{}\n", toolchain.commit, toolchain.sysroot.display());
    let stamp = tools.join("bpf-linker.stamp");
    let linker = tools.join("bin/bpf-linker");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && starts(&linker).is_ok() {
        return Ok(());
    }
    let llvm = llvm_prefix(host)?;
    say(&format!(
        "building bpf-linker {BPF_LINKER} against LLVM {} of rustc {} (once, about a minute)",
        toolchain.llvm_major, toolchain.release
    ));
    install_bpf_linker(host, &llvm)?;
    starts(&linker).with_context(|| format!("{} was built, but does not work", linker.display()))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// A folder whose `lib/` has `libLLVM.so` for the linker and the same library under its soname for the loader.
fn llvm_prefix(host: &Host) -> Result<PathBuf> {
    let toolchain = &host.toolchain;
    let Some(library) = toolchain.llvm_library() else {
        let system = PathBuf::from(format!("/usr/lib/llvm-{}", toolchain.llvm_major));
        if system.join("lib/libLLVM.so").exists() {
            return Ok(system);
        }
        bail!(
            "the compiler in {} brings no LLVM library of its own, which bpf-linker needs.\n  \
             Either install Rust with rustup (https://rustup.rs), or the package llvm-{}-dev",
            toolchain.sysroot.display(),
            toolchain.llvm_major
        );
    };
    let prefix = host.tools().join("llvm");
    let links = prefix.join("lib");
    // Made anew: links of an older compiler would be found first.
    match fs::remove_dir_all(&links) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", links.display()));
        }
        _ => fs::create_dir_all(&links).with_context(|| format!("cannot make {}", links.display()))?,
    }
    let soname = library.file_name().context("a library has a name")?;
    for name in ["libLLVM.so".as_ref(), soname] {
        symlink(&library, links.join(name)).with_context(|| format!("cannot make a link in {}", links.display()))?;
    }
    Ok(prefix)
}

fn install_bpf_linker(host: &Host, llvm: &Path) -> Result<()> {
    let tools = host.tools();
    let scratch = tools.join(format!("build-{}", std::process::id()));
    let mut install = host.cargo()?;
    // Settings that a person has for other work must not reach into this: flags, wrappers, profiles, cross targets.
    for (name, _) in host.outer() {
        let name = name.to_string_lossy();
        let foreign =
            ["RUSTFLAGS", "RUSTC", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_ENCODED_", "LLVM_"];
        if foreign.iter().any(|prefix| name.starts_with(prefix)) {
            install.env_remove(&*name);
        }
    }
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{}", host.toolchain.llvm_major)])
        .arg("--root")
        .arg(&tools)
        .env("LLVM_PREFIX", llvm)
        .env("CARGO_TARGET_DIR", &scratch)
        // It links a few small objects: what a debugger would want of it costs more time to write than it saves.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .stdout(io::stderr());
    if !io::IsTerminal::is_terminal(&io::stderr()) {
        install.arg("--quiet");
    }
    let status = install.status().context("cargo cannot be started");
    let _ = fs::remove_dir_all(&scratch);
    let status = status?;
    ensure!(
        status.success(),
        "`cargo install bpf-linker` failed ({status}).\n  It needs the network, and a bpf-linker {BPF_LINKER} that knows \
         LLVM {} (that of rustc {})",
        host.toolchain.llvm_major,
        host.toolchain.release
    );
    Ok(())
}

/// A program that finds its libraries says its version; the file alone says nothing.
fn starts(program: &Path) -> Result<()> {
    let output = Command::new(program).arg("--version").env_remove("LD_LIBRARY_PATH").output();
    let output = output.with_context(|| format!("{} cannot be started", program.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// One line about what is being done.
pub(crate) fn say(line: &str) {
    eprintln!("setup: {line}");
}
