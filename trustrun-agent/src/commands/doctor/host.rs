//! What is there, as plain data: a test makes any host of it.

use std::{env, fs, net::IpAddr, path::Path};

use trustrun_session::Resolvers;

/// What was read of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// The effective user.
    pub(super) uid: u32,
    /// `CapEff`.
    pub(super) capabilities: u64,
    /// `/proc/self/uid_map`.
    pub(super) uid_map: String,
    /// The kernel's release.
    pub(super) release: String,
    /// Whether the kernel has its type information.
    pub(super) btf: bool,
    /// `/proc/self/mountinfo`.
    pub(super) mounts: String,
    /// `/sys/kernel/security/lockdown`, where it can be read.
    pub(super) lockdown: Option<String>,
    /// Whether systemd is PID 1.
    pub(super) systemd: bool,
    /// Whom names are asked of.
    pub(super) resolvers: Vec<IpAddr>,
    /// What this runs in.
    pub(super) inside: Vec<Inside>,
}

/// Something that this runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// A container; how that is known.
    Container(&'static str),
    /// A pod of Kubernetes.
    Kubernetes,
    /// The Windows Subsystem for Linux, and whether it starts Windows programs.
    Wsl { interop: bool },
    /// A machine that builds and tests.
    Ci(&'static str),
}

impl Host {
    /// Looks at this one; changes nothing.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = text("/proc/sys/kernel/osrelease").trim().to_owned();
        let mounts = text("/proc/self/mountinfo");
        let inside = inside(&release, &mounts, &text("/proc/1/cgroup"));
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            capabilities: effective(&text("/proc/self/status")),
            uid_map: text("/proc/self/uid_map"),
            btf: fs::metadata("/sys/kernel/btf/vmlinux").is_ok_and(|m| m.len() > 0),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            systemd: there("/run/systemd/system"),
            resolvers: Resolvers::read().addresses,
            release,
            mounts,
            inside,
        }
    }
}

fn there(path: &str) -> bool {
    Path::new(path).exists()
}

fn set(name: &str) -> bool {
    env::var_os(name).is_some_and(|v| !v.is_empty() && v != "false")
}

/// The effective capabilities of a status text (proc_pid_status(5)).
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}

fn inside(release: &str, mounts: &str, first: &str) -> Vec<Inside> {
    let mut out = Vec::new();
    out.extend(container(mounts, first).map(Inside::Container));
    if set("KUBERNETES_SERVICE_HOST") {
        out.push(Inside::Kubernetes);
    }
    if release.to_ascii_lowercase().contains("microsoft") {
        let interop = ["WSLInterop", "WSLInterop-late"].map(|name| format!("/proc/sys/fs/binfmt_misc/{name}"));
        out.push(Inside::Wsl { interop: interop.iter().any(|path| there(path)) });
    }
    let ci = [("GITHUB_ACTIONS", "GitHub Actions"), ("GITLAB_CI", "GitLab CI"), ("CI", "a CI runner ($CI is set)")];
    out.extend(ci.into_iter().find(|(name, _)| set(name)).map(|(_, what)| Inside::Ci(what)));
    out
}

/// How it is known that this is a container, if it is one.
fn container(mounts: &str, first: &str) -> Option<&'static str> {
    if there("/.dockerenv") {
        Some("/.dockerenv is there")
    } else if there("/run/.containerenv") {
        Some("/run/.containerenv is there")
    } else {
        contained(mounts, first)
    }
}

/// The same by the mounts and the cgroup of the first process.
fn contained(mounts: &str, first: &str) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["docker", "kubepods", "containerd", "libpod", "lxc", "crio"];
    // mountinfo: the fifth word is the mount point, the first after the dash the kind (proc_pid_mountinfo(5)).
    let overlay = |line: &str| {
        let (mount, after) = line.split_once(" - ")?;
        Some(mount.split(' ').nth(4)? == "/" && after.starts_with("overlay "))
    };
    if NAMES.iter().any(|name| first.contains(name)) {
        return Some("its first process is in a container's cgroup");
    }
    mounts.lines().any(|l| overlay(l) == Some(true)).then_some("its root is an overlay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_known_by_their_cgroup_or_root() {
        let disk = "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 23 0:9 / /mnt rw - overlay overlay rw\n";
        assert_eq!(contained(disk, "0::/init.scope\n"), None);
        assert!(contained(disk, "0::/kubepods/burstable/pod1/abc\n").unwrap().contains("cgroup"));
        assert!(contained("23 1 0:8 / / rw - overlay overlay rw\n", "0::/\n").unwrap().contains("overlay"));
    }

    #[test]
    fn wsl_is_known_by_its_kernel() {
        let found = inside("5.15.153.1-microsoft-standard-WSL2", "", "");
        assert!(found.iter().any(|i| matches!(i, Inside::Wsl { .. })), "{found:?}");
        assert!(!inside("6.1.0-56-cloud-amd64", "", "").iter().any(|i| matches!(i, Inside::Wsl { .. })));
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), 0x1ff_ffff_ffff);
        assert_eq!(effective(""), 0);
    }
}
