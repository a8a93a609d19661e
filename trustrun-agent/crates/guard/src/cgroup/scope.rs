//! A session's place under systemd, whose tree the cgroups are: a transient scope in the caller's slice, so that the
//! slice's limits hold for the command, and `systemctl` shows and stops it.
//!
//! `systemd-run` asks for it, over systemd's own socket where there is no D-Bus, and becomes the scope's first process: a
//! `cat` that waits for the end of its input. systemd takes a scope away when it is empty, and ours is before the
//! command is born. The session's own cgroup is a folder in it (`Delegate=yes`), so that the keeper is not in the session.
//! When the guard ends, however it does, the keeper's input ends too, and the scope with the last process in it.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// There if systemd is PID 1: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Where the programs may be; the caller's PATH does not count.
const PATH: &str = "/usr/bin:/bin";
/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(25);
/// The session's own cgroup in the scope.
const INSIDE: &str = "session";

/// Whether systemd has the cgroups.
pub(super) fn booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Starts a session's scope. Gives its session's cgroup below the mount, which is still to be made, and what keeps the
/// scope for as long as it is open.
///
/// # Errors
/// Why not, for a person.
pub(super) fn start(mount: &Path, session: &str) -> Result<(PathBuf, ChildStdin), String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("reading /proc/self/cgroup: {e}"))?;
    let unit = format!("trustrun-{session}.scope");
    let mut keeper = Command::new("systemd-run")
        .args(["--scope", "--quiet", "--no-ask-password", "--collect", "--property=Delegate=yes"])
        .arg(format!("--unit={unit}"))
        .arg(format!("--slice={}", slice(&own)))
        .arg("--description=A command that trustrun watches")
        .args(["--", "cat"])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // The terminal's Ctrl-C is not for it.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("systemd-run: {e}"))?;
    let kept = keeper.stdin.take();
    match (placed(&mut keeper, &unit), kept) {
        (Ok(scope), Some(kept)) if mount.join(&scope).is_dir() => Ok((mount.join(scope).join(INSIDE), kept)),
        (Ok(scope), _) => Err(format!("its scope {} is not on the cgroup2 hierarchy", scope.display())),
        (Err(why), kept) => {
            drop(kept);
            let _ = keeper.kill();
            let _ = keeper.wait();
            Err(why)
        }
    }
}

/// Waits until the keeper is in its scope; the scope's path below the root.
fn placed(keeper: &mut Child, unit: &str) -> Result<PathBuf, String> {
    let end = Instant::now() + PATIENCE;
    let (cgroup, program) = (format!("/proc/{}/cgroup", keeper.id()), format!("/proc/{}/comm", keeper.id()));
    loop {
        if let Ok(Some(status)) = keeper.try_wait() {
            let mut said = String::new();
            let _ = keeper.stderr.take().map(|mut e| e.read_to_string(&mut said));
            return Err(format!("systemd-run: {status}: {}", said.trim()));
        }
        let text = fs::read_to_string(&cgroup).unwrap_or_default();
        let scope = own_path(&text).filter(|p| p.ends_with(unit)).map(PathBuf::from);
        // As `cat` it has heard from systemd that the scope is whole.
        if let Some(scope) = scope
            && fs::read_to_string(&program).is_ok_and(|name| name.trim() == "cat")
        {
            return Ok(scope);
        }
        if Instant::now() > end {
            return Err(format!("systemd made no scope within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A process's path on the cgroup2 hierarchy, without its first slash (cgroups(7), /proc/PID/cgroup).
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|l| l.strip_prefix("0::/"))
}

/// The slice that a process is in: the last of those that its path begins with. What a user's own systemd has below that
/// is not the system's.
fn slice(text: &str) -> &str {
    let path = own_path(text).unwrap_or_default();
    path.split('/').take_while(|word| word.ends_with(".slice")).last().unwrap_or("system.slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_slice_is_the_systems_last_on_its_path() {
        assert_eq!(slice("0::/user.slice/user-1000.slice/session-3.scope\n"), "user-1000.slice");
        let by_user = "12:pids:/x\n0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n";
        assert_eq!(slice(by_user), "user-1000.slice");
        assert_eq!(slice("0::/system.slice/cron.service\n"), "system.slice");
        for none in ["0::/\n", "0::/init.scope\n", "1:name=systemd:/user.slice\n", ""] {
            assert_eq!(slice(none), "system.slice", "{none}");
        }
    }

    #[test]
    fn without_systemd_or_its_program_it_says_why() {
        if booted() {
            return crate::skip::skip("systemd is here: the process tests start real scopes");
        }
        let why = start(Path::new("/sys/fs/cgroup"), "none").unwrap_err();
        assert!(why.starts_with("systemd-run: "), "{why}");
    }
}
