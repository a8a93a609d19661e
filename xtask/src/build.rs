//! `cargo xtask build`: the kernel programs and the agent.

use std::{
    ffi::OsStr,
    io::{self, BufReader, IsTerminal as _, Write as _},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::{host::Host, setup};

/// Builds, and returns the path of `trustrun`. Says nothing when there is nothing to do.
pub(crate) fn build(host: &Host, release: bool) -> Result<PathBuf> {
    built(host, release, &["trustrun-agent"], "trustrun")
}

/// Builds `packages`, and returns the path of `program` among what they bring.
pub(crate) fn built(host: &Host, release: bool, packages: &[&str], program: &str) -> Result<PathBuf> {
    setup::compiler(host)?;
    let mut cargo = host.cargo()?;
    cargo.arg("build").args(packages.iter().flat_map(|package| ["--package", package]));
    if release {
        cargo.arg("--release");
    }
    // cargo's own --quiet would leave a person before a still screen for minutes; so its lines are passed on, and only
    // the closing one, which it prints each time, is dropped. A pipe turns colours off unless they are asked for.
    if io::stderr().is_terminal() && host.variable("NO_COLOR").is_none_or(OsStr::is_empty) {
        cargo.args(["--color", "always"]);
    }
    let mut child = cargo.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cargo cannot be started")?;
    if let Some(lines) = child.stderr.take() {
        pass_on(BufReader::new(lines))?;
    }
    let status = child.wait().context("cargo is lost")?;
    if !status.success() {
        bail!("TrustRun could not be built ({status}); cargo says why above");
    }
    let profile = if release { "release" } else { "debug" };
    let program = host.target.join(profile).join(program);
    if !program.exists() {
        bail!("cargo built {}, but {} is not there", packages.join(" and "), program.display());
    }
    Ok(program)
}

fn pass_on(mut lines: impl io::BufRead) -> Result<()> {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).context("cargo's output broke off")? > 0 {
        if !is_closing_line(&line) {
            io::stderr().write_all(&line).context("cannot write to stderr")?;
        }
        line.clear();
    }
    Ok(())
}

fn is_closing_line(line: &[u8]) -> bool {
    // A colour is ESC [ ... m.
    let text = String::from_utf8_lossy(line);
    let plain: String = text
        .split('\x1b')
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split_once('m').map_or("", |p| p.1) })
        .collect();
    plain.trim_start().starts_with("Finished ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_closing_line_is_dropped() {
        assert!(is_closing_line(b"    Finished `release` profile [optimized] target(s) in 0.05s\n"));
        assert!(is_closing_line(b"\x1b[1m\x1b[92m    Finished\x1b[0m `release` profile [optimized]\n"));
        assert!(!is_closing_line(b"   Compiling trustrun-agent v0.1.0 (/w/trustrun-agent)\n"));
        assert!(!is_closing_line(b"warning: Finished is a word\n"));
        assert!(!is_closing_line(b"\n"));
    }
}
