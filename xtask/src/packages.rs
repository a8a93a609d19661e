//! Programs of the system that the tests drive. Only tests need them, so only `test` and `setup` install them; a test that
//! misses one skips, loudly. And those that boot guests, which only `vm` needs.

use std::{io, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{host::Host, setup::say};

/// How to see that a thing is there.
#[derive(Clone, Copy)]
enum Sign {
    /// A program in PATH.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A module of the python3 in PATH.
    PythonModule(&'static str),
}

/// What is wanted, and the Debian and Ubuntu package that has it.
const FOR_TESTS: &[(Sign, &str)] = &[
    (Sign::Program("git"), "git"),
    (Sign::Program("curl"), "curl"),
    (Sign::File("/etc/ssl/certs/ca-certificates.crt"), "ca-certificates"),
    (Sign::Program("openssl"), "openssl"),
    (Sign::Program("python3"), "python3"),
    (Sign::PythonModule("requests"), "python3-requests"),
    (Sign::Program("node"), "nodejs"),
    // A C library whose resolver goes on where a send failed.
    (Sign::Program("musl-gcc"), "musl-tools"),
    // Statically linked: a resolver that is not glibc's, and a file system that needs nothing else.
    (Sign::Program("busybox"), "busybox-static"),
    (Sign::Program("ip"), "iproute2"),
    // Rewritten addresses, as in containers.
    (Sign::Program("nft"), "nftables"),
    // The socket table as macOS has it.
    (Sign::Program("lsof"), "lsof"),
    // libFuzzer is C++.
    (Sign::Program("c++"), "g++"),
];

/// What booting guests takes (`vm`).
const FOR_GUESTS: &[(Sign, &str)] = &[
    (Sign::Program("qemu-system-x86_64"), "qemu-system-x86"),
    (Sign::Program("mmdebstrap"), "mmdebstrap"),
    (Sign::Program("mke2fs"), "e2fsprogs"),
    (Sign::Program("depmod"), "kmod"),
    (Sign::Program("xz"), "xz-utils"),
    (Sign::Program("strip"), "binutils"),
    (Sign::Program("busybox"), "busybox-static"),
    (Sign::File(crate::vm::KEYRING), "debian-archive-keyring"),
];

/// Sees to it that guests can be made and booted; an error says what to type where not.
pub(crate) fn for_guests(host: &Host) -> Result<()> {
    if install(host, FOR_GUESTS, "for the guests")? {
        return Ok(());
    }
    bail!("guests cannot be booted without these packages")
}

/// Sees to it that the tests find the programs they drive. True when all are there; where they cannot be installed, says
/// what to type and goes on.
pub(crate) fn for_tests(host: &Host) -> Result<bool> {
    install(host, FOR_TESTS, "for the tests")
}

fn install(host: &Host, wanted: &[(Sign, &'static str)], purpose: &str) -> Result<bool> {
    let missing = missing(host, wanted);
    if missing.is_empty() {
        return Ok(true);
    }
    let (installed, absent): (Vec<_>, Vec<_>) = missing.into_iter().partition(|package| is_installed(package));
    for package in installed {
        say(&format!("{package} is installed, but what PATH has in its place lacks it"));
    }
    if absent.is_empty() {
        return Ok(false);
    }
    match root_prefix(host) {
        Some(prefix) if host.which("apt-get").is_some() => {
            say(&format!("installing {purpose}: {}", absent.join(" ")));
            // Lists may be older than the packages on the mirror, or absent as in a fresh container.
            let _ = apt_get(host, &prefix, &["update"]);
            let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
            arguments.extend(&absent);
            if apt_get(host, &prefix, &arguments) && self::missing(host, wanted).is_empty() {
                return Ok(true);
            }
            say(
                "apt-get could not install all of it, and what misses something will skip or stop, and say so. To try again:",
            );
        }
        _ => say("what misses one of these will skip or stop, and say so. To install them:"),
    }
    eprintln!("    sudo apt-get update && sudo apt-get install --yes --no-install-recommends {}", absent.join(" "));
    Ok(false)
}

fn missing(host: &Host, wanted: &[(Sign, &'static str)]) -> Vec<&'static str> {
    wanted.iter().filter(|(sign, _)| !is_there(host, *sign)).map(|&(_, package)| package).collect()
}

fn is_there(host: &Host, sign: Sign) -> bool {
    match sign {
        Sign::Program(name) => host.which(name).is_some(),
        Sign::File(path) => Path::new(path).exists(),
        Sign::PythonModule(name) => {
            // Finding is ten times faster than importing.
            let code = format!("import importlib.util as u, sys; sys.exit(u.find_spec({name:?}) is None)");
            let python = host.command("python3").args(["-c", &code]).stderr(std::process::Stdio::null()).status();
            python.is_ok_and(|status| status.success())
        }
    }
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// What makes a command run as root without a question, where there is such a thing.
pub(crate) fn root_prefix(host: &Host) -> Option<Vec<&'static str>> {
    if host.is_root {
        return Some(vec![]);
    }
    let quiet_sudo = Command::new("sudo").args(["-n", "true"]).stderr(std::process::Stdio::null()).status();
    quiet_sudo.is_ok_and(|status| status.success()).then(|| vec!["sudo", "-n"])
}

fn apt_get(host: &Host, prefix: &[&str], arguments: &[&str]) -> bool {
    let line: Vec<&str> = prefix
        .iter()
        .copied()
        // Through env, as sudo does not pass the variable on.
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"])
        .chain(arguments.iter().copied())
        .collect();
    let Some((program, rest)) = line.split_first() else { return false };
    host.command(program)
        .args(rest)
        .stdin(std::process::Stdio::null())
        .stdout(io::stderr())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_read_without_trust() {
        let host = Host::discover().expect("this machine");
        assert!(is_there(&host, Sign::Program("sh")));
        assert!(!is_there(&host, Sign::Program("no-such-program-here")));
        assert!(!is_there(&host, Sign::File("/no/such/file")));
        assert!(!is_there(&host, Sign::PythonModule("no_such_module_here")));
    }

    #[test]
    fn a_package_that_nobody_made_is_not_installed() {
        assert!(!is_installed("no-such-package-here"));
    }
}
