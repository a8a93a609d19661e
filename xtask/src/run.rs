//! `cargo xtask run`, `demo` and `bench`: build, then become `trustrun` or the benchmark of it.
//!
//! This process replaces itself (exec): the terminal, signals and the exit code are then those of `trustrun`, with
//! nothing in between that could lose one.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{build, host::Host, packages};

/// `trustrun run` with these arguments.
pub(crate) fn run(host: &Host, arguments: Vec<OsString>) -> Result<ExitCode> {
    become_trustrun(host, "run", arguments)
}

/// `trustrun demo` with these arguments.
pub(crate) fn demo(host: &Host, arguments: Vec<OsString>) -> Result<ExitCode> {
    become_trustrun(host, "demo", arguments)
}

/// The benchmark, which runs `trustrun` from its own folder.
pub(crate) fn bench(host: &Host, arguments: Vec<OsString>) -> Result<ExitCode> {
    packages::for_tests(host)?;
    let bench = build::built(host, true, &["trustrun-agent", "trustrun-bench"], "trustrun-bench")?;
    let mut line = vec![bench.into_os_string()];
    line.extend(arguments);
    if host.is_root {
        return replace_us(host, &line);
    }
    require_sudo(host)?;
    eprintln!("xtask: kernel programs need root: starting the benchmark through sudo");
    replace_us(host, &through_sudo(host.outer().iter().map(|(name, _)| name), host.variable("PATH"), line))
}

fn become_trustrun(host: &Host, subcommand: &str, arguments: Vec<OsString>) -> Result<ExitCode> {
    let trustrun = build::build(host, true)?.into_os_string();
    let mut line = vec![trustrun, subcommand.into()];
    if host.is_root {
        line.extend(arguments);
        return replace_us(host, &line);
    }
    require_sudo(host)?;
    eprintln!("xtask: kernel programs need root: starting trustrun through sudo (sudo may ask for your password)");
    if subcommand == "run" && !names_a_user(&arguments) {
        let user = user_name()?;
        eprintln!("xtask: your command runs as {}", user.to_string_lossy());
        line.extend(["--run-as".into(), user]);
    }
    line.extend(arguments);
    replace_us(host, &through_sudo(host.outer().iter().map(|(name, _)| name), host.variable("PATH"), line))
}

/// Starts a test binary as root; cargo calls it as its runner.
pub(crate) fn as_root(host: &Host, command: Vec<OsString>) -> Result<ExitCode> {
    // A test binary is run by cargo, and what cargo tells it is part of its environment: nothing is taken away here.
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let line = through_sudo(variables.iter().map(|(name, _)| name), host.variable("PATH"), command);
    let (program, arguments) = line.split_first().context("nothing to run")?;
    Err(Command::new(program).args(arguments).exec()).context("sudo cannot be started")
}

fn replace_us(host: &Host, line: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = line.split_first().context("nothing to run")?;
    Err(host.command(program).args(arguments).exec())
        .with_context(|| format!("{} cannot be started", program.to_string_lossy()))
}

fn require_sudo(host: &Host) -> Result<()> {
    if host.which("sudo").is_none() {
        bail!("kernel programs need root, and there is no sudo here: run the same command as root");
    }
    Ok(())
}

/// The command line that runs `command` as root with the variables called `names`.
///
/// Their values are not written into it, as anyone may read a command line. They are named one by one because `sudo -E`
/// is refused by sudo-rs, Ubuntu's sudo from 25.10 on. PATH goes through env(1): `secure_path` would win over the list.
/// HOME and the like are left to sudo: root's files are root's, and trustrun gives the command its user's own.
fn through_sudo<'a>(
    names: impl Iterator<Item = &'a OsString>,
    path: Option<&OsStr>,
    command: Vec<OsString>,
) -> Vec<OsString> {
    const LEFT_TO_SUDO: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "MAIL", "SHELL", "_"];
    let names: Vec<&str> = names
        .filter_map(|name| name.to_str())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .filter(|name| !LEFT_TO_SUDO.contains(name) && !name.starts_with("LD_") && !name.starts_with("SUDO_"))
        .collect();
    let mut line: Vec<OsString> = vec!["sudo".into()];
    if !names.is_empty() {
        line.push(format!("--preserve-env={}", names.join(",")).into());
    }
    line.extend(["--".into(), "env".into()]);
    if let Some(path) = path {
        let mut assignment = OsString::from("PATH=");
        assignment.push(path);
        line.push(assignment);
    }
    line.extend(command);
    line
}

/// Whether the options before `--` say whom the command is to run as.
fn names_a_user(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--run-as" || argument.as_encoded_bytes().starts_with(b"--run-as="))
}

fn user_name() -> Result<OsString> {
    let output = Command::new("id").arg("-un").output().context("`id -un` cannot be started")?;
    let name = String::from_utf8(output.stdout).context("your user name is not UTF-8")?;
    Ok(name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn values_stay_out_of_the_command_line() {
        let names = words("OPENAI_API_KEY HOME PATH LD_PRELOAD SUDO_UID BASH_FUNC_x%% http_proxy");
        assert_eq!(
            through_sudo(names.iter(), Some("/usr/bin:/my bin".as_ref()), words("/t/trustrun run -- true")),
            [
                "sudo",
                "--preserve-env=OPENAI_API_KEY,http_proxy",
                "--",
                "env",
                "PATH=/usr/bin:/my bin",
                "/t/trustrun",
                "run",
                "--",
                "true"
            ]
        );
    }

    #[test]
    fn a_user_named_by_the_person_is_kept() {
        assert!(names_a_user(&words("--run-as ann -- id")));
        assert!(names_a_user(&words("--strict --run-as=ann -- id")));
        assert!(!names_a_user(&words("--strict -- sudo --run-as x")));
    }
}
