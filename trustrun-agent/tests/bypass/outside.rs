//! A program outside the session that does what it is asked: what a container engine, a proxy or a cron daemon is to
//! the programs of the suite.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use trustrun_lab::{Lab, wait_until};

/// A running one, ended when dropped.
pub(crate) struct Outside(Child);

impl Outside {
    /// Starts a line of sh in the lab, as root, and waits until it says that it is ready.
    pub(crate) fn start(lab: &Lab, line: &str) -> Self {
        let mut command = lab.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh starts");
        let out = child.stdout.take().expect("its output");
        let mut said = String::new();
        let ready = BufReader::new(out).read_line(&mut said);
        assert!(ready.is_ok() && said.trim() == "ready", "{line}: said {said:?}");
        Self(child)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What has children of its own ends them.
        let id = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        if !wait_until(Duration::from_secs(2), || self.0.try_wait().is_ok_and(|ended| ended.is_some())) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
