//! The machine as one task sees it: where things are, who we are, and the environment that the person had before
//! `cargo run` added to it.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::toolchain::Toolchain;

/// One environment variable.
pub(crate) type Variable = (OsString, OsString);

/// Where a task runs.
#[derive(Debug)]
pub(crate) struct Host {
    /// The top of the checkout.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, absolute.
    pub(crate) target: PathBuf,
    /// The compiler.
    pub(crate) toolchain: Toolchain,
    /// Whether we are root.
    pub(crate) is_root: bool,
    /// The environment without what cargo and rustup put there.
    outer: Vec<Variable>,
}

impl Host {
    /// Looks, changes nothing.
    pub(crate) fn discover() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?.to_owned();
        // Where this program was built is the one answer that CARGO_TARGET_DIR, a setting and the default agree on:
        // TARGET/debug/xtask.
        let exe = env::current_exe().context("cannot tell where xtask is")?;
        let target = exe.ancestors().nth(2).context("xtask is not in a target folder")?.to_owned();
        let toolchain = Toolchain::discover()?;
        let outer = outer_environment(env::vars_os().collect(), &[&target, &toolchain.sysroot]);
        let id = Command::new("id").arg("-u").output().context("`id -u` cannot be started")?;
        Ok(Self { root, target, toolchain, is_root: id.stdout.trim_ascii() == b"0", outer })
    }

    /// Where our own tools are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The person's own environment, as it was before `cargo xtask`.
    pub(crate) fn outer(&self) -> &[Variable] {
        &self.outer
    }

    /// One variable of it.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.outer.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// A program with the person's own environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.outer.iter().map(|(key, value)| (key, value)));
        command
    }

    /// The cargo that runs us, at the top of the checkout, with our tools in its PATH and the same target folder.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let ours = self.tools().join("bin");
        let others = self.variable("PATH").map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
        let path = env::join_paths(std::iter::once(ours).chain(others)).context("target/tools cannot be in PATH")?;
        command.current_dir(&self.root).env("PATH", path).env("CARGO_TARGET_DIR", &self.target);
        // A toolchain chosen by `cargo +NAME` or by an override of another folder is the one we were built with.
        if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
            command.env("RUSTUP_TOOLCHAIN", toolchain);
        }
        // Its results would be in another folder, and what is built here runs here.
        command.env_remove("CARGO_BUILD_TARGET");
        Ok(command)
    }

    /// The path of a program, where it is installed. The system folders are searched too: an ordinary user of Debian
    /// has them not in PATH, root through sudo has.
    pub(crate) fn which(&self, program: &str) -> Option<PathBuf> {
        let path = self.variable("PATH").unwrap_or_default();
        let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        env::split_paths(path)
            .chain(system)
            .map(|folder| folder.join(program))
            .find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
    }
}

/// Undoes what `cargo run` and rustup's proxy add to the environment, so that a command under `cargo xtask run` sees
/// what it would see alone. `owned` are the folders whose libraries cargo offers.
///
/// See "Environment variables Cargo sets for 3rd party subcommands" and "for crates" in the Cargo book, and rustup's
/// `src/env_var.rs`.
fn outer_environment(variables: Vec<Variable>, owned: &[&Path]) -> Vec<Variable> {
    let value = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let home = value("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = value("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let toolchain_was_asked_for = value("RUSTUP_TOOLCHAIN_SOURCE").is_some_and(|source| source == "env");
    let mut outer = Vec::with_capacity(variables.len());
    for (key, value) in variables {
        let name = key.to_string_lossy();
        let keep = match &*name {
            "CARGO" | "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR" => None,
            "RUST_RECURSION_COUNT" | "RUSTUP_TOOLCHAIN_SOURCE" => None,
            "RUSTUP_TOOLCHAIN" => toolchain_was_asked_for.then_some(value),
            "CARGO_HOME" => (Path::new(&value) != home.join(".cargo")).then_some(value),
            "RUSTUP_HOME" => (Path::new(&value) != home.join(".rustup")).then_some(value),
            "SSL_CERT_FILE" | "SSL_CERT_DIR" => (!is_probed_certificate_path(&value)).then_some(value),
            "LD_LIBRARY_PATH" => without_folders(&value, owned),
            "PATH" => Some(without_repeated_head(value, &cargo_home.join("bin"))),
            other if other.starts_with("CARGO_PKG_") || other.starts_with("CARGO_MANIFEST_") => None,
            _ => Some(value),
        };
        if let Some(value) = keep {
            outer.push((key, value));
        }
    }
    outer
}

/// cargo's openssl-probe sets these to the system's own store, which is where programs look anyway; a private store of
/// the person's is elsewhere and stays.
fn is_probed_certificate_path(value: &OsStr) -> bool {
    ["/etc/ssl", "/usr/lib/ssl", "/usr/share/ssl", "/etc/pki/tls"].iter().any(|folder| {
        ["cert.pem", "certs.pem", "certs", "certs/ca-certificates.crt", "certs/ca-bundle.crt"]
            .iter()
            .any(|file| Path::new(value) == Path::new(folder).join(file))
    })
}

fn without_folders(list: &OsStr, owned: &[&Path]) -> Option<OsString> {
    let rest: Vec<PathBuf> = env::split_paths(list)
        .filter(|entry| !entry.as_os_str().is_empty() && !owned.iter().any(|folder| entry.starts_with(folder)))
        .collect();
    if rest.is_empty() { None } else { env::join_paths(rest).ok() }
}

/// rustup puts its folder in front, even where it is there already.
fn without_repeated_head(list: OsString, head: &Path) -> OsString {
    let mut entries: Vec<PathBuf> = env::split_paths(&list).collect();
    let repeated =
        entries.first().is_some_and(|first| first == head) && entries.iter().skip(1).any(|other| other == head);
    if !repeated {
        return list;
    }
    entries.remove(0);
    env::join_paths(entries).unwrap_or(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = variables.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        let text = |value: OsString| value.into_string().expect("UTF-8");
        outer_environment(variables, &[Path::new("/t"), Path::new("/sysroot")])
            .into_iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    }

    fn kept(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_cargo_and_rustup_added_is_gone() {
        let before = [("HOME", "/home/ann"), ("PATH", "/home/ann/.cargo/bin:/usr/bin"), ("OPENAI_API_KEY", "k")];
        let after = [
            ("HOME", "/home/ann"),
            ("PATH", "/home/ann/.cargo/bin:/home/ann/.cargo/bin:/usr/bin"),
            ("OPENAI_API_KEY", "k"),
            ("CARGO", "/sysroot/bin/cargo"),
            ("CARGO_HOME", "/home/ann/.cargo"),
            ("CARGO_MANIFEST_DIR", "/w/xtask"),
            ("CARGO_PKG_NAME", "xtask"),
            ("LD_LIBRARY_PATH", "/t/debug:/t/debug/deps:/sysroot/lib"),
            ("RUSTUP_HOME", "/home/ann/.rustup"),
            ("RUSTUP_TOOLCHAIN", "stable"),
            ("RUSTUP_TOOLCHAIN_SOURCE", "default"),
            ("RUST_RECURSION_COUNT", "1"),
            ("SSL_CERT_FILE", "/usr/lib/ssl/cert.pem"),
            ("SSL_CERT_DIR", "/usr/lib/ssl/certs"),
        ];
        assert_eq!(outer(&after), kept(&before));
    }

    #[test]
    fn what_the_person_set_stays() {
        let own = [
            ("HOME", "/home/ann"),
            ("CARGO_HOME", "/opt/cargo"),
            ("CARGO_TARGET_DIR", "/big/target"),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("PATH", "/opt/cargo/bin:/usr/bin"),
            ("RUSTUP_TOOLCHAIN", "1.95"),
            ("SSL_CERT_FILE", "/home/ann/company.pem"),
        ];
        let mut after = own.to_vec();
        after[3].1 = "/t/debug:/opt/lib:/sysroot/lib";
        after.push(("RUSTUP_TOOLCHAIN_SOURCE", "env"));
        assert_eq!(outer(&after), kept(&own));
    }
}
