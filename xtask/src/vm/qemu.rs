//! One boot: QEMU with this kernel, the guests' file system and this run's files, until it ends or its time is over.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    kernels::Ready,
    matrix::{self, Cgroups},
    report::Boot,
};
use crate::host::Host;

/// All that can be emulated, but for what makes emulation slow and no test asks for: copying byte by byte (the kernel takes eight
/// bytes at a time without), page tables of five levels, and a second TLB for the kernel's access to programs.
const PROCESSOR: &str = "max,-erms,-fsrm,-la57,-smap";
/// The kernel's command line. LSM programs can be loaded; lockdown and yama are what Debian has; landlock is a lock of the
/// child's. Zeroed memory costs one part in six; programs at the same address each time need be translated once.
const KERNEL_LINE: &str =
    "console=ttyS0 quiet panic=-1 lsm=lockdown,landlock,yama,bpf mitigations=off init_on_alloc=0 norandmaps";

/// What all boots share.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) image: PathBuf,
    /// This run's files.
    pub(crate) payload: PathBuf,
    /// Where QEMU keeps what guests write, and the consoles.
    pub(crate) scratch: PathBuf,
    /// Whether systemd is PID 1.
    pub(crate) systemd: bool,
    /// Whether a person's own command is what runs.
    pub(crate) free: bool,
    pub(crate) limit: Duration,
}

/// Boots and listens; `show` gets each line that is not for us.
pub(crate) fn boot(host: &Host, machine: &Machine, ready: &Ready, mut show: impl FnMut(&str)) -> Result<Boot> {
    let name = ready.kernel.name;
    let console = machine.scratch.join(format!("console-{name}.log"));
    let initramfs = machine.scratch.join(format!("initramfs-{name}.cpio"));
    fs::write(&initramfs, ready.initramfs(host)?).context("cannot write the first file system")?;
    // With times, for a person who watches or wonders.
    let log = machine.scratch.join(format!("said-{name}.log"));
    let mut log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let began = Instant::now();
    let mut boot = Boot { kernel: label(ready), free: machine.free, ..Boot::default() };
    let mut child =
        command(machine, ready, &initramfs, &console).spawn().context("qemu-system-x86_64 cannot be started")?;
    let (send, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
    }
    loop {
        match lines.recv_timeout(machine.limit.saturating_sub(began.elapsed())) {
            Ok(line) => {
                boot.cpu = cpu_time(&child).unwrap_or(boot.cpu);
                let _ = write!(log, "{:7.1} {line}", began.elapsed().as_secs_f64());
                if !boot.line(&line) {
                    show(&line);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                boot.problem = Some(format!("not done after {} s: ended", machine.limit.as_secs()));
                break;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    boot.cpu = cpu_time(&child).unwrap_or(boot.cpu);
    // It has ended, or is to end now.
    let _ = child.kill();
    child.wait().context("qemu is lost")?;
    if boot.verdict.is_none() && boot.problem.is_none() {
        boot.problem = Some(format!("the guest ended before its list; its console: {}", tail(&console)));
    }
    boot.took = began.elapsed();
    Ok(boot)
}

/// `newest` says which.
fn label(ready: &Ready) -> String {
    let name = ready.kernel.name;
    let of = |n| ready.release.split(['.', '-', '+']).take(n).collect::<Vec<_>>().join(".");
    if name.starts_with(|c: char| c.is_ascii_digit()) { name.to_owned() } else { format!("{name} ({})", of(2)) }
}

fn command(machine: &Machine, ready: &Ready, initramfs: &Path, console: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=single",
        "-icount",
        "shift=0,sleep=off",
        "-cpu",
        PROCESSOR,
        "-nographic",
        "-no-reboot",
        "-nodefaults",
    ]);
    qemu.arg("-m").arg(matrix::MEMORY.to_string()).arg("-smp").arg(ready.kernel.processors.to_string());
    qemu.arg("-kernel").arg(ready.vmlinuz()).arg("-initrd").arg(initramfs);
    let mut line = KERNEL_LINE.to_owned();
    if ready.kernel.processors == 1 {
        // Each access to the local interrupt controller's memory is translated anew; ports of the old one are not.
        line.push_str(" nolapic");
    }
    if ready.kernel.cgroups == Cgroups::Hybrid && !machine.systemd {
        line.push_str(" trustrun.cgroup=hybrid");
    }
    if machine.systemd {
        line.push_str(" trustrun.init=systemd systemd.unit=vm.target systemd.mask=tmp.mount systemd.show_status=0");
    }
    qemu.arg("-append").arg(line);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    let drives = [(&machine.image, "on"), (&machine.payload, "off"), (&ready.modules(), "off")];
    for (file, snapshot) in drives {
        let read_only = if snapshot == "on" { "off" } else { "on" };
        qemu.arg("-drive").arg(format!(
            "file={},format=raw,if=virtio,cache=unsafe,snapshot={snapshot},read-only={read_only}",
            file.display()
        ));
    }
    // What guests write goes to files without a name in there.
    qemu.env("TMPDIR", &machine.scratch);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    qemu
}

/// Processor time of a child so far: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second on every x86.
fn cpu_time(child: &Child) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let ticks = text.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let sum = ticks.map(|t| t.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(sum * 10))
}

fn tail(console: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().rev().filter(|l| !l.trim().is_empty()).take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n    ")
}
