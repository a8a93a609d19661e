//! Where the commands are run: the lab, its files, and the check of what came of each command.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, chown},
};
use trustrun_lab::{Lab, wait_until};
use trustrun_model::Report;

use super::{
    client::{Client, SCRIPT, SCRIPT_FILE},
    error::DemoError,
    scenes::{self, Scene},
};
use crate::caller;

/// What one command may take; it needs about a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long what was sent may take to arrive.
const SETTLE: Duration = Duration::from_secs(3);

/// A database of demos that is larger is begun anew; one demo takes about a tenth of a megabyte.
const MOST: u64 = 16 << 20;

/// The network with the demo's files in it.
pub(super) struct Stage {
    lab: Lab,
    /// Written by `trustrun run` with the caller's credentials.
    reports: PathBuf,
    /// Where the sessions are stored: beside real ones, never among them. It stays after the demo, so that the commands
    /// that the summaries name work.
    database: PathBuf,
}

/// What came of a command.
pub(super) struct Played {
    /// What the servers saw.
    pub(super) far_end: String,
    /// What was not as announced.
    pub(super) not_as_announced: Vec<String>,
    /// JSON.
    pub(super) report: Vec<u8>,
}

impl Stage {
    pub(super) fn build() -> Result<Self, DemoError> {
        let lab = scenes::network().start()?;
        let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(DemoError::file("write", &path));
        let make = |path: &Path| fs::create_dir(path).map_err(DemoError::file("make", path));
        let (place, record) = scenes::RECORD;
        let page = lab.www().join(place);
        if let Some(folder) = page.parent() {
            make(folder)?;
        }
        write(page, record)?;
        write(lab.folder().join(scenes::POLICY_FILE), scenes::POLICY)?;
        write(lab.folder().join(SCRIPT_FILE), SCRIPT)?;
        // A person's own .curlrc could change what is shown; curl(1) takes this one first.
        write(lab.folder().join(".curlrc"), "")?;
        let reports = lab.folder().join("reports");
        make(&reports)?;
        if let Some((uid, gid)) = caller::behind_sudo() {
            chown(&reports, Some(uid), Some(gid)).map_err(|e| DemoError::file("give away", &reports)(e.into()))?;
        }
        let own = || lab.folder().join("events.db");
        let database = trustrun_store::default_path().map_or_else(own, |path| path.with_file_name("demo.db"));
        if fs::metadata(&database).is_ok_and(|file| file.len() > MOST) {
            for end in ["", "-wal", "-shm"] {
                let mut path = database.clone().into_os_string();
                path.push(end);
                let _ = fs::remove_file(&path);
            }
        }
        Ok(Self { lab, reports, database })
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Runs a scene's command under `trustrun run`, its output and summary on our standard output, and checks it.
    pub(super) fn play(&self, scene: &Scene, client: Client) -> Result<Played, DemoError> {
        let number = scene.number;
        let path = self.reports.join(format!("{number}.json"));
        self.lab.clear();
        let status = ended(number, &mut self.start(scene, client, &path).map_err(DemoError::Start)?)?;
        let Ok(report) = fs::read(&path) else {
            return Err(DemoError::NotRun { number, code: status.code().unwrap_or(-1) });
        };
        let mut not_as_announced = judge(scene, &report);
        let far_end = self.far_end(scene, &mut not_as_announced);
        Ok(Played { far_end, not_as_announced, report })
    }

    fn start(&self, scene: &Scene, client: Client, report: &Path) -> io::Result<Child> {
        // This very program, even where its file was replaced meanwhile.
        let mut command = self.lab.command("/proc/self/exe");
        command
            .arg0("trustrun")
            .args(["run", "--policy", scenes::POLICY_FILE, "--db"])
            .arg(&self.database)
            .arg("--report")
            .arg(report)
            .arg("--")
            .args(client.command(scene, &std::env::current_exe()?))
            .env("CURL_HOME", self.lab.folder())
            .current_dir(self.lab.folder());
        // One stream, so that it reads in order wherever it goes.
        let (out, err) = (output()?, output()?);
        command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()
    }

    /// What really arrived, and whether that is what was announced.
    fn far_end(&self, scene: &Scene, broken: &mut Vec<String>) -> String {
        if !self.lab.settle(SETTLE) {
            broken.push("connections were still open after the command had ended".into());
        }
        let (name, address) = scene.reached;
        let requests: u64 = self.lab.arrived_at(address).iter().map(|arrival| arrival.requests).sum();
        if requests == 0 {
            broken.push(format!("nothing arrived at {name}"));
        }
        let mut text = match requests {
            1 => format!("{name} 1 request"),
            n => format!("{name} {n} requests"),
        };
        for (name, address) in scene.untouched {
            let arrived = self.lab.arrived_at(*address).len();
            if arrived == 0 {
                text.push_str(&format!(", {name} nothing"));
            } else {
                broken.push(format!("{arrived} connections arrived at {name}"));
                text.push_str(&format!(", {name} {arrived} CONNECTIONS"));
            }
        }
        text + "."
    }
}

/// Our standard output, for a child.
fn output() -> io::Result<OwnedFd> {
    io::stdout().as_fd().try_clone_to_owned()
}

/// Waits for the end; asks and then forces a command that takes too long.
fn ended(number: u8, child: &mut Child) -> Result<ExitStatus, DemoError> {
    let mut status = None;
    let mut wait = |child: &mut Child| {
        wait_until(PATIENCE, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        status
    };
    if let Some(status) = wait(child) {
        return Ok(status);
    }
    // It passes the signal on to the command, and then ends as after any command.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    if wait(child).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Err(DemoError::TooSlow { number, limit: PATIENCE })
}

/// What of the report is not as announced.
fn judge(scene: &Scene, report: &[u8]) -> Vec<String> {
    let report: Report = match serde_json::from_slice(report) {
        Ok(report) => report,
        Err(e) => return vec![format!("the report cannot be read: {e}")],
    };
    let mut broken = Vec::new();
    if report.verdict != scene.announced {
        broken.push(format!("the verdict was {}, not {}", report.verdict, scene.announced));
    }
    if let Err(why) = (scene.reasons)(&report) {
        broken.push(why.into());
    }
    broken
}
