//! `cargo xtask lint`: what a change must satisfy besides its tests.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::{host::Host, setup};

/// Checks everything, also after a failure, and says at the end what failed.
pub(crate) fn lint(host: &Host) -> Result<ExitCode> {
    setup::compiler(host)?;
    let bin = host.toolchain.sysroot.join("bin");
    setup::component(host, "clippy", &bin.join("cargo-clippy"))?;
    setup::component(host, "rustfmt", &bin.join("rustfmt"))?;

    let mut failed = Vec::new();
    for (name, mut command) in checks(host)? {
        eprintln!("lint: {name}");
        if !command.status().with_context(|| format!("{name} cannot be started"))?.success() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("lint: clean");
        return Ok(ExitCode::SUCCESS);
    }
    println!("lint: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn checks(host: &Host) -> Result<Vec<(&'static str, Command)>> {
    let kernel = host.root.join("trustrun-ebpf");
    let cargo = |arguments: &[&str]| -> Result<Command> {
        let mut command = host.cargo()?;
        command.args(arguments);
        Ok(command)
    };
    let format = cargo(&["fmt", "--all", "--check"])?;
    let mut kernel_format = cargo(&["fmt", "--check"])?;
    kernel_format.current_dir(&kernel);
    let clippy = cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // The kernel programs are a workspace of their own, for a target that comes without `core`. A folder of their own
    // keeps what is checked here from being built again for the agent.
    let mut kernel_clippy =
        cargo(&["clippy", "-Z", "build-std=core", "--target", "bpfel-unknown-none", "--", "-D", "warnings"])?;
    let arch = host.toolchain.triple.split('-').next().unwrap_or_default();
    kernel_clippy
        .current_dir(&kernel)
        .env("RUSTC_BOOTSTRAP", "1")
        // As aya-build does when it builds them.
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\""))
        .env("CARGO_TARGET_DIR", host.target.join("kernel-lint"));
    Ok(vec![
        ("format", format),
        ("format of the kernel programs", kernel_format),
        ("clippy", clippy),
        ("clippy of the kernel programs", kernel_clippy),
    ])
}
