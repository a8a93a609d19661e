//! What the processes of a running session use.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Guard, engine and foreground process of a session.
#[derive(Debug)]
pub(crate) struct Agent {
    /// The one that was started.
    pub(crate) foreground: u32,
    /// Its child.
    pub(crate) guard: u32,
    /// The guard's child.
    pub(crate) engine: u32,
}

impl Agent {
    /// Finds them from the foreground process.
    pub(crate) fn of(foreground: u32) -> Result<Self> {
        let ours = fs::read_link(format!("/proc/{foreground}/exe"))?;
        let child = |of: u32| -> Result<u32> {
            for entry in fs::read_dir("/proc")?.flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
                if parent(pid) == Some(of) && fs::read_link(entry.path().join("exe")).is_ok_and(|e| e == ours) {
                    return Ok(pid);
                }
            }
            anyhow::bail!("process {of} has no child that is trustrun")
        };
        let guard = child(foreground)?;
        Ok(Self { foreground, guard, engine: child(guard)? })
    }

    fn all(&self) -> [u32; 3] {
        [self.foreground, self.guard, self.engine]
    }

    /// Processor time so far, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        self.all().into_iter().map(cpu).sum()
    }

    /// Resident bytes of all three, each page once, and of all three added up; both besides the mapped ring.
    pub(crate) fn resident(&self) -> Result<(f64, f64)> {
        let mut sum = (0.0, 0.0);
        for pid in self.all() {
            let (shared, whole) = resident(pid)?;
            sum = (sum.0 + shared, sum.1 + whole);
        }
        Ok(sum)
    }

    /// The id of a map that one of them holds open.
    pub(crate) fn map(&self, name: &str) -> Result<u32> {
        for pid in self.all() {
            let folder = format!("/proc/{pid}/fdinfo");
            for entry in fs::read_dir(Path::new(&folder))?.flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let id = text.lines().find_map(|l| l.strip_prefix("map_id:")?.trim().parse().ok());
                let Some(id) = id else { continue };
                if aya::maps::MapInfo::from_id(id).is_ok_and(|m| m.name_as_str() == Some(name)) {
                    return Ok(id);
                }
            }
        }
        anyhow::bail!("no process of the session holds the map {name}")
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `sum_exec_runtime` of its threads: nanoseconds, where stat(5) has ticks of 10 ms.
fn cpu(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).context("no schedstat")?;
        sum += text.split_whitespace().next().context("an empty schedstat")?.parse::<f64>()?;
    }
    Ok(sum)
}

/// Pss and Rss, without mappings of BPF maps.
fn resident(pid: u32) -> Result<(f64, f64)> {
    let (mut shared, mut whole, mut ring) = (0.0, 0.0, false);
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            ring = line.contains("bpf-map") || line.contains("bpf_map");
            continue;
        }
        if ring {
            continue;
        }
        let mut kb = || words.next().and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0;
        match first {
            "Pss:" => shared += kb(),
            "Rss:" => whole += kb(),
            _ => {}
        }
    }
    Ok((shared, whole))
}
