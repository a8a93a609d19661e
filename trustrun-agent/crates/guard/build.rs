//! Builds the kernel programs with rustc's own BPF target and bpf-linker, and leaves the object in OUT_DIR.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=../../../trustrun-common/src");
    println!("cargo:rerun-if-env-changed=PATH");
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return Ok(());
    }
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../..").canonicalize()?;
    find_linker(&root)?;
    // Exactly "1": unset there is no `core` for the BPF target; a crate's name makes cargo refuse -Z.
    // SAFETY: a build script's main, before any other thread.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let ebpf = root.join("trustrun-ebpf");
    // A workspace of its own, for another target: cargo finds it from its folder.
    env::set_current_dir(&ebpf)?;
    let package = aya_build::Package {
        name: "trustrun-ebpf",
        root_dir: ebpf.to_str().context("the project's path is not UTF-8")?,
        ..Default::default()
    };
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".into());
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain))?;
    println!("cargo::metadata=noop={}", PathBuf::from(env::var("OUT_DIR")?).join("noop").display());
    Ok(())
}

/// bpf-linker from `cargo xtask setup` (target/tools), else from PATH.
fn find_linker(root: &std::path::Path) -> Result<()> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut paths = vec![target.join("tools/bin"), root.join("target/tools/bin")];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    if !paths.iter().any(|p| p.join("bpf-linker").is_file()) {
        bail!("bpf-linker is not installed: run `cargo xtask setup`, or build with --no-default-features");
    }
    // SAFETY: a build script's main, before any other thread.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var("PATH", env::join_paths(paths)?);
    }
    Ok(())
}
