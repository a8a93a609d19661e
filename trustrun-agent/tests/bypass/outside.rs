//! A program outside the session that does what it is asked: what a container engine, a proxy or a cron daemon is to
//! the programs of the suite.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use trustrun_lab::Lab;

use crate::way::User;

/// A running one, ended when dropped.
pub(crate) struct Outside(Child);

impl Outside {
    /// Starts a line of sh in the lab, as the same user, and waits until it says that it is ready.
    pub(crate) fn start(lab: &Lab, user: User, line: &str) -> Self {
        let mut command = super::session::bare(lab, user);
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
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
