//! Who the command runs as, and whose are the files that a session writes.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
};

use crate::harness::{BLOCK, Case};

const WHO: &str = r#"id -u; id -g; id -G; echo "$HOME"; echo "$USER"; echo "$LOGNAME""#;

/// A user `analyst` (4242, groups 4242 and 4243) in `/etc/passwd` as the case sees it.
fn analyst(case: Case) -> Case {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let group = fs::read_to_string("/etc/group").unwrap();
    let home = case.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(4242), Some(4242)).unwrap();
    case.file("passwd", &format!("{passwd}analyst:x:4242:4242::{}:/bin/sh\n", home.display()));
    case.file("group", &format!("{group}analyst:x:4242:\nstudy:x:4243:analyst\n"));
    let mounts = "mount --bind \"$DIR/passwd\" /etc/passwd && mount --bind \"$DIR/group\" /etc/group";
    let inside = format!("exec unshare -m sh -c '{mounts} && exec \"$@\"' sh \\");
    case.inside(&inside).env("SUDO_UID", "4242").env("SUDO_GID", "4242").env("SUDO_USER", "analyst")
}

#[test]
fn run_as_becomes_that_user() {
    let Some(case) = Case::new() else { return };
    let case = case.with(&["--run-as", "nobody"]);
    let ran = case.sh(WHO);
    let out = ran.exits(0).out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"65534"), "{out}");
    assert!(!lines[2].split(' ').any(|g| g == "0"), "not in root's group: {out}");
    assert_eq!(lines[4..], ["nobody", "nobody"]);
    assert_eq!(ran.report()["session"]["user"], "nobody");
    Case::anyone().with(&["--run-as", "no\u{1b}[31msuch"]).sh("exit 0").exits(125).says("no user");
}

#[test]
fn enforcing_under_sudo_runs_as_the_invoking_user() {
    let Some(case) = Case::new() else { return };
    let case = analyst(case).policy(BLOCK);
    fs::create_dir(case.path("out")).unwrap();
    std::os::unix::fs::chown(case.path("out"), Some(4242), Some(4242)).unwrap();
    let (report, events, learned) = (case.path("out/r.json"), case.path("out/e.ndjson"), case.path("out/p.yaml"));
    let [r, e, l] = [&report, &events, &learned].map(|p| p.to_str().unwrap().to_owned());
    let case = case.with(&["--report", &r, "--events", &e, "--learn", &l]);
    let ran = case.sh(WHO);
    assert_eq!(
        ran.exits(0).out(),
        format!("4242\n4242\n4242 4243\n{}\nanalyst\nanalyst\n", case.path("home").display())
    );
    for path in [report, events, learned] {
        let m = fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (4242, 4242, 0o600), "{}", path.display());
    }
    let db = fs::metadata(case.db()).unwrap();
    assert_eq!(db.uid(), 0, "the watched user does not own the evidence");
}

#[test]
fn observing_under_sudo_stays_root_and_writes_as_the_invoking_user() {
    let Some(case) = Case::new() else { return };
    let case = analyst(case).policy("version: 1\nname: loud\ndefault: alert\n");
    std::os::unix::fs::chown(case.folder(), Some(4242), Some(4242)).unwrap();
    let ran = case.sh("id -u; echo \"$USER\"");
    let user = std::env::var("USER").unwrap_or_default();
    assert_eq!(ran.exits(0).out(), format!("0\n{user}\n"));
    assert_eq!(fs::metadata(case.path("report.json")).unwrap().uid(), 4242);
    assert_eq!(ran.report()["session"]["operator"]["uid"], 4242);
}

#[test]
fn output_files_are_never_written_where_the_invoking_user_could_not() {
    let Some(case) = Case::new() else { return };
    let case = analyst(case).policy(BLOCK);
    let mine = case.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o700)).unwrap();
    // A group that root is in and the user is not must not help either.
    let grouped = case.path("grouped");
    fs::create_dir(&grouped).unwrap();
    fs::set_permissions(&grouped, fs::Permissions::from_mode(0o770)).unwrap();
    for folder in ["mine", "grouped"] {
        let report = case.path(&format!("{folder}/r.json"));
        let case = Case::anyone();
        let case = analyst(case).policy(BLOCK).with(&["--report", report.to_str().unwrap()]);
        case.sh("exit 9").exits(9).says("ermission denied");
        assert!(!report.exists());
        let events = report.with_file_name("e.ndjson");
        let case = analyst(Case::anyone()).policy(BLOCK).with(&["--events", events.to_str().unwrap()]);
        case.sh(": > \"$DIR/started\"").exits(125).says("ermission denied");
        assert!(!case.path("started").exists() && !events.exists());
    }
}

#[test]
fn output_files_are_never_written_through_a_link_or_over_a_device() {
    let Some(case) = Case::new() else { return };
    let precious = case.file("precious", "precious");
    let link = case.path("link");
    symlink(&precious, &link).unwrap();
    let words = link.to_str().unwrap().to_owned();
    let one = Case::anyone().with(&["--report", &words]);
    one.sh("exit 9").exits(9).says("link");
    let one = Case::anyone().with(&["--learn", &words]);
    one.sh("exit 9").exits(9).says("link");
    let one = Case::anyone().with(&["--events", &words]);
    one.sh("exit 9").exits(125);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link itself stays");
    // A device or a pipe is written to, and never replaced by a file.
    let fifo = case.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let from = fifo.clone();
    let reader = std::thread::spawn(move || fs::read(from).unwrap());
    let one = Case::anyone().with(&["--report", fifo.to_str().unwrap()]);
    let mut command = one.command(&["sh", "-c", "exit 9"]);
    assert_eq!(command.output().unwrap().status.code(), Some(9));
    let text = reader.join().unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap()["verdict"], "observed");
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    // An existing file of the caller's is replaced, and is theirs alone afterwards.
    for option in ["--report", "--events", "--learn"] {
        let old = case.file("old", "old and longer than anything else ".repeat(500).as_str());
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        let one = Case::anyone().with(&[option, old.to_str().unwrap()]);
        one.start(&["true"]).end().exits(0);
        assert_eq!(fs::metadata(&old).unwrap().mode() & 0o7777, 0o600, "{option}");
        assert!(!fs::read_to_string(&old).unwrap().contains("old and longer"), "{option}");
    }
}
