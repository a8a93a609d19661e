//! What of a host stands in the way, or only limits what can be said, and what to do about it.

use std::fmt::Write as _;

use trustrun_guard::{Hierarchy, MINIMUM, Release, has_kernel_programs};
use trustrun_model::Untrusted;

use super::host::{Host, Inside};

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It keeps something from working.
    Missing,
    /// It works, and something cannot be seen or held.
    Limit,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Limit => "limit",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// A short stable word.
    pub(super) name: &'static str,
    /// How it is.
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What to do, where something is to be done.
    pub(super) todo: Option<String>,
}

fn check(name: &'static str, state: State, found: impl Into<String>) -> Check {
    Check { name, state, found: found.into(), todo: None }
}

impl Check {
    fn todo(self, todo: impl Into<String>) -> Self {
        Self { todo: Some(todo.into()), ..self }
    }
}

/// Judges what was read of a host.
pub(super) fn checks(host: &Host) -> Vec<Check> {
    let mut out = vec![privilege(host)];
    if !has_kernel_programs() {
        let found = "this trustrun was built without kernel programs";
        out.push(check("build", State::Missing, found).todo("build it with the default features: cargo xtask build"));
    }
    out.extend([kernel(host), btf(host), cgroup(host), bpffs(host), lockdown(host), systemd(host), resolvers(host)]);
    out.extend(host.inside.iter().map(|inside| environment(*inside)));
    out
}

/// What loading, attaching and a mount namespace need (capabilities(7)): name and number.
const WANTED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

fn privilege(host: &Host) -> Check {
    if host.uid != 0 {
        let found = format!("user {}, not root: hooks and locks cannot be tried", host.uid);
        return check("privilege", State::Missing, found).todo("sudo trustrun doctor");
    }
    let lacking = WANTED.iter().filter(|(_, bit)| host.capabilities >> bit & 1 == 0).map(|(name, _)| *name);
    let lacking: Vec<&str> = lacking.collect();
    if !lacking.is_empty() {
        let found = format!("root without {}", lacking.join(", "));
        let todo = "give them to the container (docker run --privileged; in a pod, securityContext.privileged: true)";
        return check("privilege", State::Missing, found).todo(todo);
    }
    let mapped: Vec<&str> = host.uid_map.split_whitespace().collect();
    if !mapped.is_empty() && mapped != ["0", "0", "4294967295"] {
        let found = "root of a user namespace only, whose capabilities do not count for kernel programs";
        return check("privilege", State::Missing, found).todo("run it outside the rootless container");
    }
    check("privilege", State::Ok, "root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")
}

fn kernel(host: &Host) -> Check {
    let found = format!("Linux {}", Untrusted::new(&host.release));
    if Release::parse(&host.release).is_some_and(|r| r >= MINIMUM) {
        return check("kernel", State::Ok, found);
    }
    check("kernel", State::Missing, found).todo(format!("run it on Linux {MINIMUM} or newer"))
}

fn btf(host: &Host) -> Check {
    if host.btf {
        return check("btf", State::Ok, "the kernel's types are at /sys/kernel/btf/vmlinux");
    }
    check("btf", State::Missing, "no /sys/kernel/btf/vmlinux")
        .todo("a kernel with CONFIG_DEBUG_INFO_BTF=y, and /sys mounted")
}

/// A mount of a mountinfo text of this kind, and at this place: root within the file system, options. Of several the last,
/// which is the one that is seen.
fn mounted<'a>(mounts: &'a str, kind: &str, place: Option<&str>) -> Option<(&'a str, &'a str)> {
    mounts.lines().rev().find_map(|line| {
        let (mount, after) = line.split_once(" - ")?;
        let words: Vec<&str> = mount.split(' ').collect();
        let here = after.split(' ').next()? == kind && place.is_none_or(|p| words.get(4) == Some(&p));
        here.then_some((*words.get(3)?, *words.get(5)?))
    })
}

fn cgroup(host: &Host) -> Check {
    let Some(hierarchy) = Hierarchy::parse(&host.mounts) else {
        return check("cgroup2", State::Missing, "no cgroup v2 hierarchy is mounted")
            .todo("mount -t cgroup2 none /sys/fs/cgroup/unified (make the folder first)");
    };
    let place = hierarchy.mount.to_string_lossy().into_owned();
    let mixed = mounted(&host.mounts, "cgroup", None).is_some();
    let mut found = format!("at {}, {}", Untrusted::new(&place), if mixed { "beside v1 (hybrid)" } else { "alone" });
    let (root, options) = mounted(&host.mounts, "cgroup2", Some(&place)).unwrap_or(("/", "rw"));
    if root != "/" {
        let _ = write!(found, ", of it only {}", Untrusted::new(root));
    }
    if options.split(',').any(|o| o == "ro") {
        let todo = "mount it writable: docker run --privileged, or mount -o remount,rw";
        return check("cgroup2", State::Missing, format!("{found}, read-only")).todo(format!("{todo} {place}"));
    }
    check("cgroup2", State::Ok, found)
}

fn bpffs(host: &Host) -> Check {
    match mounted(&host.mounts, "bpf", Some("/sys/fs/bpf")) {
        Some((_, options)) if options.split(',').any(|o| o == "ro") => {
            check("bpffs", State::Missing, "/sys/fs/bpf is read-only").todo("mount -o remount,rw /sys/fs/bpf")
        }
        Some(_) => check("bpffs", State::Ok, "at /sys/fs/bpf"),
        None => check("bpffs", State::Ok, "not mounted: run mounts one at /sys/fs/bpf"),
    }
}

fn lockdown(host: &Host) -> Check {
    let Some(text) = &host.lockdown else {
        return check("lockdown", State::Ok, "cannot be read; what the kernel refuses is told with each hook");
    };
    let mode = text.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("none");
    match mode {
        "confidentiality" => {
            check("lockdown", State::Limit, "confidentiality: programs may not read the kernel's memory")
                .todo("if hooks are refused below, boot with lockdown=integrity")
        }
        "integrity" => {
            check("lockdown", State::Ok, "integrity: some kinds of programs are refused, none that is used here")
        }
        _ => check("lockdown", State::Ok, "none"),
    }
}

fn systemd(host: &Host) -> Check {
    let found = if host.systemd {
        "systemd: a session is a scope of the caller's slice"
    } else {
        "systemd is not PID 1: a session's cgroup is below the root of the hierarchy"
    };
    check("systemd", State::Ok, found)
}

fn resolvers(host: &Host) -> Check {
    let all: Vec<String> = host.resolvers.iter().map(ToString::to_string).collect();
    let local = host.resolvers.iter().any(|a| a.is_loopback());
    let note = if local { " (on this machine: what it asks others is its own traffic)" } else { "" };
    check("resolvers", State::Ok, format!("{}{note}", all.join(", ")))
}

/// What became of the connections that were made under a policy that allows nothing.
pub(super) fn refusal(tried: Option<&Result<(), String>>) -> Option<Check> {
    Some(match tried? {
        Ok(()) => {
            let found = "tried: a connection outside a policy was refused (EPERM), a closed port gave its own answer";
            check("refusal", State::Ok, found)
        }
        Err(why) => check("refusal", State::Missing, why).todo("report it with the output of trustrun doctor"),
    })
}

fn environment(inside: Inside) -> Check {
    match inside {
        Inside::Container(how) => {
            let found = format!("a container ({how}): the host's processes and other containers are not watched");
            check("container", State::Limit, found)
        }
        Inside::Kubernetes => {
            let found = "a pod: its other containers share its network and are not watched";
            check("kubernetes", State::Limit, found)
        }
        Inside::Wsl { interop: true } => {
            let found = "WSL: Windows programs that a command starts run outside Linux, and are not seen";
            check("wsl", State::Limit, found).todo("[interop] enabled=false in /etc/wsl.conf, then wsl --shutdown")
        }
        Inside::Wsl { interop: false } => check("wsl", State::Ok, "WSL, which starts no Windows programs (no interop)"),
        Inside::Ci(what) => check("ci", State::Ok, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const RO: &str = "31 30 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n";
    /// As a cgroup namespace shows a mount of its own.
    const POD: &str = "40 23 0:26 /../pod1 /host/cgroup rw - cgroup2 cgroup2 rw\n";

    fn found(mounts: &[&str]) -> (State, String) {
        let found = cgroup(&Host { mounts: mounts.concat(), ..Host::default() });
        (found.state, found.found + &found.todo.unwrap_or_default())
    }

    #[test]
    fn a_read_only_cgroup_file_system_is_missing_and_what_to_do_is_said() {
        assert_eq!(found(&[RW]).0, State::Ok);
        for mounts in [&[RO][..], &[RW, RO]] {
            let (state, text) = found(mounts);
            assert!(state == State::Missing && text.contains("--privileged"), "{text}");
        }
        // Where there is another that may be written to, that is used.
        let (state, text) = found(&[RO, POD]);
        assert!(state == State::Ok && text.contains("/host/cgroup") && text.contains("pod1"), "{text}");
        assert_eq!(found(&["23 1 8:1 / / rw - ext4 /dev/sda1 rw\n"]).0, State::Missing);
    }

    #[test]
    fn a_root_that_is_none_is_told_from_one() {
        let root = |capabilities, uid_map: &str| {
            privilege(&Host { capabilities, uid_map: uid_map.into(), ..Host::default() }).state
        };
        let all = 0x1ff_ffff_ffff;
        assert_eq!(root(all, "         0          0 4294967295\n"), State::Ok);
        assert_eq!(root(all, "0 1000 1\n"), State::Missing, "a user namespace's");
        // As `docker run` gives them: without CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN.
        assert_eq!(root(0xa804_25fb, "0 0 4294967295\n"), State::Missing);
    }

    #[test]
    fn what_it_runs_in_is_told_with_what_is_not_seen_there() {
        let all = [
            (Inside::Container("x"), "container", State::Limit),
            (Inside::Kubernetes, "kubernetes", State::Limit),
            (Inside::Wsl { interop: true }, "wsl", State::Limit),
            (Inside::Wsl { interop: false }, "wsl", State::Ok),
            (Inside::Ci("x"), "ci", State::Ok),
        ];
        for (inside, name, state) in all {
            let check = environment(inside);
            assert_eq!((check.name, check.state), (name, state));
        }
    }
}
