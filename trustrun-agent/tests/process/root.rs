//! What root could have others do: held and looked at under a policy that refuses, a gap under one that does not.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{fs, path::Path};

use trustrun_lab::skip;

use crate::harness::{BLOCK, Case, have};

const LOUD: &str = "version: 1\nname: loud\ndefault: alert\n";

/// Folders of the machine as a copy that may be changed, in a mount namespace of trustrun's.
fn with_own(case: Case, folders: &[&str]) -> Case {
    let own: Vec<String> = folders.iter().map(|f| format!("mount -t tmpfs -o mode=755 none {f}")).collect();
    case.inside(&format!("exec unshare -m sh -c '{} && exec \"$@\"' sh \\", own.join(" && ")))
}

fn gap(ran: &crate::harness::Ran, kind: &str) -> Option<String> {
    let gaps = ran.report()["gaps"].as_array().unwrap();
    gaps.iter().find(|g| g["kind"] == kind).map(|g| g["detail"].to_string())
}

#[test]
fn a_root_that_changes_nothing_of_others_passes_under_a_policy_that_refuses() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    let ran = case.sh("echo x > \"$DIR/mine\"; ls /etc/cron.d /usr/bin > /dev/null");
    ran.exits(0).verdict("pass");
    let limits = ran.report()["limits"].to_string();
    assert!(limits.contains("root-target"), "{limits}");
}

#[test]
fn a_root_that_changes_what_others_act_on_cannot_pass() {
    let place = "/etc/cron.d";
    if !have(&["unshare"]) || !Path::new(place).is_dir() {
        return skip("no /etc/cron.d, or nothing to make a copy of it with");
    }
    let script = format!("echo x > {place}/job");
    for undone in ["", " && rm -f /etc/cron.d/job"] {
        let Some(case) = Case::new() else { return };
        let ran = with_own(case.policy(BLOCK), &[place]).sh(&format!("{script}{undone}"));
        ran.exits(0).verdict("incomplete");
        assert!(gap(&ran, "others-may-act").unwrap().contains(place), "{:?}", ran.gaps());
    }
    assert!(!Path::new(place).join("job").exists());
    // A program that everybody runs is such a file too.
    let Some(case) = Case::new() else { return };
    let ran = with_own(case.policy(BLOCK), &["/usr/local/bin"]).sh("echo x > /usr/local/bin/tool");
    assert!(gap(&ran, "others-may-act").unwrap().contains("/usr/local/bin"), "{:?}", ran.gaps());
    ran.verdict("incomplete");
}

#[test]
fn a_user_who_only_reads_is_not_blamed_for_what_root_could() {
    let Some(case) = Case::new() else { return };
    let ran = case.policy(LOUD).with(&["--run-as", "nobody"]).sh("cat /etc/crontab 2> /dev/null; exit 0");
    ran.exits(0).verdict("pass");
    assert!(ran.gaps().is_empty());
}

#[test]
fn a_root_that_nothing_holds_cannot_pass() {
    let Some(case) = Case::new() else { return };
    let ran = case.policy(LOUD).sh("exit 0");
    ran.exits(0).verdict("incomplete");
    assert!(gap(&ran, "root-target").unwrap().contains("--run-as"), "{:?}", ran.gaps());
    // Without a policy nothing is claimed.
    let ran = Case::anyone().sh("exit 0");
    ran.exits(0).verdict("observed");
    assert!(ran.gaps().is_empty());
}

#[test]
fn a_user_who_becomes_root_on_the_way_cannot_pass_unless_it_is_refused() {
    let Some(case) = have(&["python3", "cc"]).then(Case::new).flatten() else { return };
    let source =
        case.file("become.c", "#include <unistd.h>\nint main() { setuid(0); execl(\"/bin/true\", \"true\", NULL); }\n");
    let program = case.path("become");
    let built = std::process::Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(built.success());
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let path = program.to_str().unwrap();
    let case = case.policy(LOUD).with(&["--run-as", "nobody"]);
    let ran = case.run(&[path]);
    ran.exits(0).verdict("incomplete");
    assert!(gap(&ran, "root-target").unwrap().contains("true"), "{:?}", ran.gaps());
    let ran = Case::anyone().policy(BLOCK).with(&["--run-as", "nobody"]).run(&[path]);
    ran.verdict("pass");
    assert!(ran.gaps().is_empty());
}
