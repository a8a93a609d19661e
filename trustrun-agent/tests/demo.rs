//! `trustrun demo`, the first thing that a new person types: what it shows is true, and it leaves nothing behind.
#![cfg(feature = "demo")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use trustrun_lab::{Lab, have, skip, wait_until};
use trustrun_model::{Report, Verdict};

const LIMIT: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustrun"));
    command.arg("demo").args(arguments).env_remove("SUDO_UID").env_remove("SUDO_GID");
    command
}

/// Whether the demo can run here; a loud skip where it cannot.
fn able() -> bool {
    if !cfg!(feature = "ebpf") {
        skip("the demo needs the kernel programs");
        return false;
    }
    match Lab::start() {
        Ok(_) => true,
        Err(e) if e.is_permission() => {
            skip(&e.to_string());
            false
        }
        Err(e) => panic!("{e}"),
    }
}

/// Runs the demo to its end, in less than a minute.
fn played(arguments: &[&str]) -> Output {
    let began = Instant::now();
    let output = demo(arguments).output().expect("trustrun starts");
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert!(err.is_empty(), "all is told in one stream: {err}");
    output
}

/// Session ids that the summaries named.
fn sessions(out: &str) -> Vec<String> {
    let ids = out.lines().filter_map(|line| line.strip_prefix("  session "));
    ids.filter_map(|line| line.split(' ').next().map(Into::into)).collect()
}

/// The cgroup of a session, on any mount of the cgroup2 hierarchy: `trustrun/ID`, or under systemd
/// `.../trustrun-ID.scope/session`. (The scope itself is systemd's to remove.)
fn cgroup(session: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let v2 = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    let scope = format!("trustrun-{session}.scope");
    let found = v2.flat_map(|mount| {
        let mount = Path::new(mount);
        let scope = folder_named(mount, &scope).map(|scope| scope.join("session"));
        [Some(mount.join("trustrun").join(session)), scope]
    });
    found.flatten().find(|path| path.exists())
}

/// The folder of this name anywhere below another.
fn folder_named(below: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(below).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    folders.into_iter().find_map(|e| if e.file_name() == name { Some(e.path()) } else { folder_named(&e.path(), name) })
}

#[test]
fn three_verdicts_are_shown_in_order_and_nothing_is_left() {
    if !able() {
        return;
    }
    let kept = tempfile::tempdir().expect("a folder");
    // A folder of its own for what it makes meanwhile, so that whatever it leaves is seen.
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = kept.path().join("new");
    let output = demo(&["--keep", &folder.to_string_lossy()]).env("TMPDIR", scratch.path()).output().expect("a demo");
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}\n{}", String::from_utf8_lossy(&output.stderr));

    let summaries = ["PASS  ", "FAIL  ", "INCOMPLETE  "].map(|word| {
        let found: Vec<usize> = out.lines().enumerate().filter(|(_, l)| l.starts_with(word)).map(|(n, _)| n).collect();
        assert_eq!(found.len(), 1, "{word}\n{out}");
        found[0]
    });
    assert!(summaries.is_sorted(), "{out}");
    for said in [
        "$ trustrun run --policy hospital.yaml -- ",
        "default: block",
        "lookup of api.llm.test",
        "203.0.113.67:80/tcp",
        "proxy-hides-destination",
        "What the servers got: fhir.hospital.test 1 request, api.llm.test nothing, the tracker nothing.",
        "session show last --db ",
        "run --learn policy.yaml -- ",
    ] {
        assert!(out.contains(said), "{said:?} is missing\n{out}");
    }

    for (file, verdict) in
        [("1-pass.json", Verdict::Pass), ("2-fail.json", Verdict::Fail), ("3-incomplete.json", Verdict::Incomplete)]
    {
        let text = fs::read(folder.join(file)).expect(file);
        let report: Report = serde_json::from_slice(&text).expect("a report");
        assert_eq!(report.verdict, verdict);
    }
    assert!(folder.join("hospital.yaml").is_file());

    assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 0, "the lab's folder is gone");
    let sessions = sessions(&out);
    assert_eq!(sessions.len(), 3, "{out}");
    for session in &sessions {
        assert!(wait_until(Duration::from_secs(5), || cgroup(session).is_none()), "{:?} is left", cgroup(session));
    }
    // A process of the demo would have the lab's folder as its working folder, or its namespaces.
    let left: Vec<PathBuf> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| fs::read_link(entry.ok()?.path().join("cwd")).ok())
        .filter(|cwd| cwd.starts_with(scratch.path()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_works_with_every_client() {
    if !able() {
        return;
    }
    for client in ["curl", "python3", "own"] {
        if client != "own" && !have(client) {
            skip(&format!("{client} is not installed"));
            continue;
        }
        let out = played(&["--client", client]).stdout;
        let out = String::from_utf8_lossy(&out);
        assert!(out.contains("Three commands, three verdicts, as announced"), "{client}: {out}");
    }
}

#[test]
fn the_sessions_that_it_names_can_be_looked_at_afterwards() {
    if !able() {
        return;
    }
    let out = played(&[]).stdout;
    let out = String::from_utf8_lossy(&out);
    let commands: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("  trustrun session show ")).collect();
    assert_eq!(commands.len(), 3, "{out}");
    for (command, verdict) in commands.iter().zip(["PASS", "FAIL", "INCOMPLETE"]) {
        let mut trustrun = Command::new(env!("CARGO_BIN_EXE_trustrun"));
        let shown = trustrun.args(["session", "show"]).args(command.split(' ')).output().expect("trustrun starts");
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(shown.status.success() && text.starts_with(verdict), "{command}: {text}");
        assert!(text.contains("\nLimits: "), "the whole of it: {text}");
    }
}

#[test]
fn a_user_without_root_is_told_what_to_type() {
    use std::os::unix::process::CommandExt as _;
    if !nix::unistd::geteuid().is_root() {
        let refused = demo(&[]).output().expect("trustrun starts");
        assert_eq!(refused.status.code(), Some(125));
        return;
    }
    // The build's folder may be closed to others: a copy that nobody may run.
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let copy = folder.path().join("trustrun");
    fs::copy(env!("CARGO_BIN_EXE_trustrun"), &copy).expect("a copy");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("permissions");
    let refused = Command::new(&copy).arg("demo").uid(65534).gid(65534).current_dir("/").output().expect("it starts");
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{err}");
    assert!(err.contains("need root") && err.contains("demo`"), "{err}");
    assert!(refused.stdout.is_empty());
}

#[test]
fn root_that_may_make_no_namespaces_is_told_so() {
    if !able() {
        return;
    }
    if !have("setpriv") {
        skip("setpriv is not installed");
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(env!("CARGO_BIN_EXE_trustrun"));
    let refused = command.arg("demo").output().expect("setpriv starts");
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{err}");
    assert!(err.contains("network namespace") && err.contains("SYS_ADMIN"), "{err}");
    assert!(refused.stdout.is_empty(), "nothing is promised that cannot be shown");
}
