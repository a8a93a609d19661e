//! `cargo xtask vm`: the tests on Debian's kernels, from the oldest that is claimed to the newest there is.
//!
//! Each kernel boots under QEMU, with emulation alone, so that it works where there is no KVM. What runs on which is a table
//! (`matrix`); the kernels are downloaded (`kernels`), never installed; the guests' Debian is made once (`image`); each run
//! brings the programs that were just built (`payload`), boots (`qemu`) and reads what came of it (`report`). All kernels run, and
//! what failed is told together at the end.

mod cpio;
mod image;
mod kernels;
mod matrix;
mod payload;
mod qemu;
mod report;

pub(crate) use kernels::KEYRING;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    args::Guests,
    bypass::{self, Column},
    host::Host,
    packages,
    vm::{
        kernels::Ready,
        matrix::{KERNELS, Kernel, SUITES, THREADS},
        payload::{Line, Program},
        qemu::Machine,
        report::Boot,
    },
};

/// How many guests run at once where nothing is said.
const JOBS: usize = 2;

/// Does it.
pub(crate) fn vm(host: &Host, guests: &Guests) -> Result<ExitCode> {
    let kernels = chosen(guests)?;
    packages::for_guests(host)?;
    let folder = host.target.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let ready = kernels::ready(host, &folder, &kernels, guests.update)?;
    let image = image::ready(host, &folder)?;
    let programs = payload::build(host, &folder)?;
    let scratch = folder.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let run = Run { host, guests, image: &image, programs: &programs, scratch: &scratch };
    let boots = run.all(&ready);
    for boot in &boots {
        eprint!("{}", boot.failures());
    }
    run.write_ways(&ready, &boots)?;
    print!("{}", report::table(&boots));
    let good = boots.iter().all(Boot::is_good) && run.something_ran(&boots);
    if good {
        fs::remove_dir_all(&scratch).context("cannot clean up")?;
    } else {
        println!("consoles: {}", scratch.display());
    }
    println!("vm: {}", if good { "passed" } else { "FAILED" });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kernels that were asked for.
fn chosen(guests: &Guests) -> Result<Vec<&'static Kernel>> {
    let usual = || vec![matrix::USUAL.to_owned()];
    let alone = guests.systemd || !guests.command.is_empty();
    let names = if guests.kernels.is_empty() && alone { usual() } else { guests.kernels.clone() };
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let known = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            KERNELS
                .iter()
                .find(|kernel| kernel.name == name)
                .with_context(|| format!("there is no kernel {name:?} in the matrix; there are {}", known()))
        })
        .collect()
}

/// What one run of the task has at hand.
struct Run<'a> {
    host: &'a Host,
    guests: &'a Guests,
    image: &'a Path,
    programs: &'a BTreeMap<String, Program>,
    scratch: &'a Path,
}

impl Run<'_> {
    /// Boots every kernel, some at once, and gives the results in the order of the matrix.
    fn all(&self, ready: &[Ready]) -> Vec<Boot> {
        let queue = Mutex::new((0..ready.len()).rev().collect::<Vec<_>>());
        let results = Mutex::new(Vec::new());
        let jobs = self.guests.jobs.unwrap_or(JOBS).clamp(1, ready.len());
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(at) = queue.lock().ok().and_then(|mut queue| queue.pop()) {
                        let ready = &ready[at];
                        let boot = self.one(ready, jobs == 1).unwrap_or_else(|error| Boot {
                            kernel: ready.kernel.name.to_owned(),
                            problem: Some(format!("{error:#}")),
                            ..Boot::default()
                        });
                        eprintln!("vm: {}", boot.verdict_line());
                        if let Ok(mut results) = results.lock() {
                            results.push((at, boot));
                        }
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_default();
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, boot)| boot).collect()
    }

    fn one(&self, ready: &Ready, alone: bool) -> Result<Boot> {
        let (list, absent) = self.list(ready.kernel);
        let payload = payload::write(self.host, &self.scratch.join(ready.kernel.name), self.programs, &list)?;
        let machine = Machine {
            image: self.image.to_owned(),
            payload,
            scratch: self.scratch.to_owned(),
            systemd: self.guests.systemd,
            free: !self.guests.command.is_empty(),
            limit: Duration::from_secs(self.guests.seconds.unwrap_or(matrix::BOOT_SECONDS)),
        };
        eprintln!("vm: booting {}", ready.release);
        let live = alone || !self.guests.command.is_empty();
        let mut boot = qemu::boot(self.host, &machine, ready, |line| {
            if live {
                // A reader of ours that went away must not end the guests.
                let _ = std::io::stdout().write_all(line.as_bytes());
            }
        })?;
        boot.absent = absent;
        Ok(boot)
    }

    /// What this kernel runs, and what not, with the reason.
    fn list(&self, kernel: &Kernel) -> (Vec<Line>, Vec<(String, String)>) {
        let seconds = |most: u32| self.guests.seconds.map_or(most, |s| u32::try_from(s).unwrap_or(most));
        if !self.guests.command.is_empty() {
            let line = Line {
                name: "command".into(),
                seconds: seconds(600),
                threads: THREADS,
                folder: "/".into(),
                command: self.guests.command.clone(),
            };
            return (vec![line], Vec::new());
        }
        let (mut lines, mut absent) = (Vec::new(), Vec::new());
        for suite in SUITES.iter().filter(|suite| self.guests.wants(suite.name)) {
            let name = suite.name.to_owned();
            match self.programs.get(suite.name) {
                None => absent.push((name, "there is no such test yet".to_owned())),
                Some(_) if !suite.runs_on(kernel, self.guests.whole || self.guests.filter.is_some()) => {
                    absent.push((name, suite.why.to_owned()))
                }
                Some(program) => {
                    let mut command = vec![program.file.display().to_string()];
                    command.extend(suite.arguments(self.guests.filter.as_deref(), self.guests.whole));
                    lines.push(Line {
                        name,
                        seconds: seconds(suite.seconds),
                        threads: THREADS,
                        folder: program.package.clone(),
                        command,
                    });
                }
            }
        }
        (lines, absent)
    }

    /// What the bypass suite said in each guest goes to its page.
    fn write_ways(&self, ready: &[Ready], boots: &[Boot]) -> Result<()> {
        let part = self.guests.filter.is_some() || self.guests.systemd || !self.guests.command.is_empty();
        let columns = ready.iter().zip(boots).flat_map(|(ready, boot)| {
            let named = ready.kernel.name.starts_with(|c: char| c.is_ascii_digit());
            boot.suites.iter().filter(|suite| !suite.ways.is_empty()).map(move |suite| Column {
                role: if named { "" } else { ready.kernel.name },
                said: suite.ways.iter().map(String::as_str).collect(),
                whole: !part && suite.problem().is_none(),
            })
        });
        bypass::write(self.host, &columns.collect::<Vec<_>>()).map(drop)
    }

    /// A run in which nothing ran is not good; a command of one's own has no count.
    fn something_ran(&self, boots: &[Boot]) -> bool {
        let ran = |boot: &Boot| boot.suites.iter().any(|suite| suite.passed() > 0);
        !self.guests.command.is_empty() || boots.iter().all(ran)
    }
}

/// Runs a program to its end; its output goes where ours goes.
fn done(command: &mut Command) -> Result<()> {
    let status = command.stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("{} cannot be started", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

/// What a program says.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output();
    let output = output.with_context(|| format!("{} cannot be started", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
