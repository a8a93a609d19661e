//! The three ways in which the client runs, side by side: bare, under programs that do nothing, under trustrun.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use trustrun_lab::Lab;

use crate::cpu;

/// A running client.
pub(crate) struct Client {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Its report, where it runs under trustrun.
    report: Option<PathBuf>,
    log: PathBuf,
}

/// What a session is to be.
#[derive(Clone, Copy)]
pub(crate) enum Policy {
    /// None: observe.
    None,
    /// Everything refused but what the client does.
    Enforcing,
}

/// Where things are.
pub(crate) struct Place {
    pub(crate) lab: Lab,
    folder: tempfile::TempDir,
    trustrun: PathBuf,
    us: PathBuf,
    policy: PathBuf,
    clients: std::cell::Cell<u32>,
}

const POLICY: &str = "\
version: 1
name: bench
default: block
rules:
  - name: bench
    allow: [\"any/127.0.0.0/8\", \"*.allowed.test:443\"]
";

impl Place {
    /// Starts the network, with the frames of a real loopback device.
    pub(crate) fn new() -> Result<Self> {
        let us = std::env::current_exe()?;
        let trustrun = us.parent().context("no folder")?.join("trustrun");
        ensure!(trustrun.exists(), "{} is not there: run `cargo xtask bench`", trustrun.display());
        let folder = tempfile::Builder::new().prefix("trustrun-bench-").tempdir()?;
        let policy = folder.path().join("policy.yaml");
        fs::write(&policy, POLICY)?;
        let lab = Lab::builder().mtu(65_536).start()?;
        Ok(Self { lab, folder, trustrun, us, policy, clients: std::cell::Cell::new(0) })
    }

    /// `trustrun run OPTIONS -- COMMAND`, outside the lab.
    pub(crate) fn trustrun(&self, command: &[&str]) -> Command {
        let mut c = Command::new(&self.trustrun);
        c.arg("run").arg("--db").arg(self.database()).arg("--").args(command);
        c
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }

    fn arguments(&self, pinned: bool) -> Vec<std::ffi::OsString> {
        let mut list = vec!["client".into(), "--ca".into(), self.lab.ca().into_os_string()];
        if pinned {
            list.extend(["--cpu".into(), "0".into()]);
        }
        list
    }

    /// A client alone, or in a cgroup.
    pub(crate) fn bare(&self, cgroup: Option<&Path>, pinned: bool) -> Result<Client> {
        let mut c = self.lab.command(&self.us);
        c.args(self.arguments(pinned));
        if let Some(cgroup) = cgroup {
            c.arg("--cgroup").arg(cgroup);
        }
        self.start(c, None)
    }

    /// A client under trustrun; the agent may run anywhere if `free`, else it stays off the client's processor.
    pub(crate) fn guarded(&self, policy: Policy, pinned: bool, free: bool) -> Result<Client> {
        let report = self.folder.path().join(format!("report-{}.json", self.clients.get()));
        let mut c = self.lab.command(&self.trustrun);
        c.arg("run").arg("--db").arg(self.database()).arg("--report").arg(&report);
        if matches!(policy, Policy::Enforcing) {
            c.arg("--policy").arg(&self.policy);
        }
        c.arg("--").arg(&self.us).args(self.arguments(pinned));
        if free { cpu::anywhere(|| self.start(c, Some(report)))? } else { self.start(c, Some(report)) }
    }

    fn start(&self, mut command: Command, report: Option<PathBuf>) -> Result<Client> {
        let log = self.folder.path().join(format!("client-{}.log", self.clients.replace(self.clients.get() + 1)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().context("starting a client")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut client = Client { child, orders, answers, report, log };
        client.ask("pid")?;
        Ok(client)
    }
}

impl Client {
    /// Gives an order and waits for the numbers.
    pub(crate) fn ask(&mut self, order: &str) -> Result<Vec<u64>> {
        let sent = self.orders.as_mut().context("it is ended")?.write_all(format!("{order}\n").as_bytes());
        let mut line = String::new();
        if sent.is_ok() {
            self.answers.read_line(&mut line)?;
        }
        if line.is_empty() {
            anyhow::bail!("the client ended at {order:?}: {}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        line.split_whitespace().map(|w| Ok(w.parse()?)).collect()
    }

    /// The first of the numbers.
    pub(crate) fn number(&mut self, order: &str) -> Result<f64> {
        Ok(self.ask(order)?.first().copied().context("no number")? as f64)
    }

    /// The process that was started: the client itself, or trustrun's foreground process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; the report, where there is one.
    pub(crate) fn end(mut self) -> Result<serde_json::Value> {
        drop(self.orders.take());
        let end = Instant::now() + Duration::from_secs(90);
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "a client does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let Some(path) = &self.report else { return Ok(serde_json::Value::Null) };
        let text = fs::read(path)
            .with_context(|| format!("there is no report: {}", fs::read_to_string(&self.log).unwrap_or_default()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.orders = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            // A client ends with its stdin, trustrun with its client. Only what hangs is killed.
            let end = Instant::now() + Duration::from_secs(15);
            while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
