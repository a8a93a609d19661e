//! `cargo xtask soak`: mixed traffic at full speed for as long as one likes, with agents killed underneath
//! (`trustrun-agent/tests/soak.rs`, which the tests run for half a minute).

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{host::Host, packages, setup, test};

/// Ten minutes.
const USUAL: u64 = 600;

/// Runs it for so many seconds.
pub(crate) fn soak(host: &Host, seconds: Option<u64>) -> Result<ExitCode> {
    setup::compiler(host)?;
    packages::for_tests(host)?;
    let seconds = seconds.unwrap_or(USUAL);
    let mut cargo = host.cargo()?;
    // The whole workspace, as `test` builds it: another choice of packages would compile the dependencies anew.
    cargo.args(["test", "--workspace", "--test", "soak"]).env("TRUSTRUN_SOAK", seconds.to_string());
    test::with_root(host, &mut cargo)?;
    cargo.args(["--", "--nocapture"]);
    eprintln!("soak: {seconds} seconds");
    let status = cargo.status().context("cargo cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
