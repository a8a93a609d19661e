//! `cargo xtask bypass`: every known way around, tried, and a table of what became of each.
//!
//! The suite itself is `trustrun-agent/tests/bypass`, and a part of `cargo xtask test`. Here, and in the guests of
//! `cargo xtask vm`, it also says, one line for each way and user, what it found; that becomes this kernel's column in
//! docs/bypasses.md. Other kernels' columns stay as they are, and so do rows that were not tried this time.

mod page;

use std::{ffi::OsStr, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    bypass::page::{Kernel, Page, Said},
    host::Host,
    packages, setup, test,
};

const PAGE: &str = "docs/bypasses.md";

/// Runs the suite here, prints what became of each way, and writes it.
pub(crate) fn bypass(host: &Host, filter: Option<&OsStr>) -> Result<ExitCode> {
    setup::compiler(host)?;
    packages::for_tests(host)?;
    fs::create_dir_all(&host.target).context("cannot make the target folder")?;
    let log = host.target.join(format!("bypass-{}.log", std::process::id()));
    // It must be there before a test that runs as root makes it: then it would be root's.
    fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let mut cargo = host.cargo()?;
    cargo.args(["test", "--package", "trustrun-agent", "--test", "bypass"]).env("TRUSTRUN_BYPASS_LOG", &log);
    test::with_root(host, &mut cargo)?;
    let status = cargo.args(filter).status().context("cargo cannot be started")?;
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let _ = fs::remove_file(&log);
    let column = Column { role: "host", said: said.lines().collect(), whole: filter.is_none() };
    if write(host, &[column])? == 0 {
        bail!("the suite tried nothing: cargo says why above");
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the suite said on one kernel.
pub(crate) struct Column<'a> {
    /// What the kernel is here, where that is not its number.
    pub(crate) role: &'a str,
    /// The suite's lines.
    pub(crate) said: Vec<&'a str>,
    /// Whether all of the suite ran.
    pub(crate) whole: bool,
}

/// Prints what was said, and brings the page up to date. How many kernels said something.
pub(crate) fn write(host: &Host, columns: &[Column<'_>]) -> Result<usize> {
    let path = host.root.join(PAGE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let mut page = Page::read(&before);
    let mut told = 0;
    for column in columns {
        let Some(said) = Said::read(column.said.iter().copied()) else { continue };
        let kernel = Kernel::new(&said.release, column.role);
        page.update(&kernel, said, column.whole);
        print!("{}", page.table(&kernel));
        told += 1;
    }
    if told > 0 {
        fs::write(&path, page.text()).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("bypass: {} says so", path.display());
    }
    Ok(told)
}
