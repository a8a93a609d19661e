//! Run by root, only policies count that nobody else could have written: owner, mode, folders and links.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use harness::{BLOCK, Case, Ran};

/// Nobody's number in this test.
const ALICE: u32 = 4242;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn own(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
}

/// Runs a command that leaves a trace under the policy at `path`.
fn under(case: &mut Case, path: &Path, env: &[(&str, &str)]) -> Ran {
    case.options = vec!["--policy".into(), path.to_str().unwrap().into()];
    case.environment = env.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    let _ = fs::remove_file(case.path("report.json"));
    case.sh(r#": > "$DIR/started""#)
}

#[track_caller]
fn refused(case: &mut Case, path: &Path, env: &[(&str, &str)], says: &[&str]) {
    let ran = under(case, path, env);
    ran.exits(125);
    for text in says {
        ran.says(text);
    }
    assert!(!case.path("started").exists(), "the command was started");
}

#[track_caller]
fn taken(case: &mut Case, path: &Path, env: &[(&str, &str)], owner: u32) -> Ran {
    let ran = under(case, path, env);
    ran.exits(0).verdict("pass");
    fs::remove_file(case.path("started")).unwrap();
    let policy = &ran.report()["session"]["policy"];
    assert_eq!(policy["files"][0]["path"], path.to_str().unwrap());
    assert_eq!(policy["files"][0]["owner"], owner);
    let text = fs::read(path).unwrap();
    assert_eq!(policy["files"][0]["sha256"], trustrun_policy::sha256(&text), "of the file");
    assert_ne!(policy["files"][0]["sha256"], policy["sha256"], "of the canonical form");
    ran
}

/// A case with a policy in a folder of its own.
fn policy() -> Option<(Case, PathBuf, PathBuf)> {
    let case = Case::new()?;
    let folder = case.path("policies");
    fs::create_dir(&folder).unwrap();
    mode(&folder, 0o755);
    let file = case.file("policies/p.yaml", BLOCK);
    mode(&file, 0o644);
    Some((case, folder, file))
}

#[test]
fn roots_own_policy_counts_and_the_report_says_whose_it_was() {
    let Some((mut case, _, file)) = policy() else { return };
    taken(&mut case, &file, &[], 0);
}

#[test]
fn a_policy_that_another_user_owns_does_not() {
    let Some((mut case, folder, file)) = policy() else { return };
    own(&file, ALICE);
    refused(&mut case, &file, &[], &["uid 4242", "mode 0644", "chown root:root", file.to_str().unwrap()]);
    own(&file, 0);
    own(&folder, ALICE);
    refused(&mut case, &file, &[], &["the folder", "uid 4242", "/etc/trustrun"]);
}

#[test]
fn a_policy_that_others_may_write_does_not() {
    let Some((mut case, folder, file)) = policy() else { return };
    for bits in [0o666, 0o646] {
        mode(&file, bits);
        refused(&mut case, &file, &[], &["root (uid 0)", &format!("mode {bits:04o}"), "chmod go-w"]);
    }
    mode(&file, 0o664);
    chown(&file, None, Some(ALICE)).unwrap();
    refused(&mut case, &file, &[], &["mode 0664", "chmod go-w"]);
    mode(&file, 0o644);
    for bits in [0o777, 0o757] {
        mode(&folder, bits);
        refused(&mut case, &file, &[], &["the folder", &format!("mode {bits:04o}"), "chmod go-w"]);
    }
    mode(&folder, 0o1777);
    taken(&mut case, &file, &[], 0);
}

#[test]
fn a_link_counts_where_nobody_else_could_have_put_it_or_what_it_leads_to() {
    let Some((mut case, folder, file)) = policy() else { return };
    let (link, mine) = (case.path("link.yaml"), case.path("mine"));
    symlink(&file, &link).unwrap();
    taken(&mut case, &link, &[], 0);
    fs::create_dir(&mine).unwrap();
    symlink(&file, mine.join("p.yaml")).unwrap();
    own(&mine, ALICE);
    refused(&mut case, &mine.join("p.yaml"), &[], &["the folder", mine.to_str().unwrap()]);
    // In a folder that all may write to, a link of somebody else's leads to a policy of root's: their choice.
    own(&mine, 0);
    mode(&mine, 0o1777);
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        &mine.join("p.yaml"),
        Some(ALICE.into()),
        None,
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    refused(&mut case, &mine.join("p.yaml"), &[], &["the link", "uid 4242"]);
    own(&file, ALICE);
    refused(&mut case, &link, &[], &["the file", "uid 4242"]);
    own(&file, 0);
    let beyond = case.path("folder/p.yaml");
    symlink(&folder, case.path("folder")).unwrap();
    taken(&mut case, &beyond, &[], 0);
    own(&folder, ALICE);
    refused(&mut case, &beyond, &[], &["the folder", folder.to_str().unwrap()]);
}

#[test]
fn under_sudo_the_policy_of_who_ran_it_counts_too_and_no_third_users() {
    let Some((mut case, folder, file)) = policy() else { return };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw().to_string(), nobody.gid.as_raw().to_string());
    let sudo = [("SUDO_UID", uid.as_str()), ("SUDO_GID", gid.as_str())];
    mode(case.folder(), 0o777);
    mode(case.folder(), 0o1777);
    for owned in [vec![], vec![&file], vec![&file, &folder]] {
        owned.iter().for_each(|p| own(p, nobody.uid.as_raw()));
        taken(&mut case, &file, &sudo, if owned.is_empty() { 0 } else { nobody.uid.as_raw() });
    }
    own(&file, ALICE);
    refused(&mut case, &file, &sudo, &["uid 4242", "nobody", "who ran sudo"]);
    // By root itself, and by root as that user, it is not their word.
    own(&file, nobody.uid.as_raw());
    refused(&mut case, &file, &[], &["nobody"]);
}

#[test]
fn under_sudo_nothing_is_told_of_a_file_that_only_root_may_read() {
    let Some((mut case, _, file)) = policy() else { return };
    let sudo = [("SUDO_UID", "65534"), ("SUDO_GID", "65534")];
    mode(case.folder(), 0o1777);
    let secret = case.file("policies/secret", "root:$6$salt$digest:20000:0:99999:7:::\n");
    mode(&secret, 0o600);
    let ran = under(&mut case, &secret, &sudo);
    ran.exits(125).says("is no policy").says("may not read it");
    assert!(!ran.stderr.contains("salt") && !ran.stderr.contains("99999"), "{}", ran.stderr);
    let mut check = std::process::Command::new(harness::TRUSTRUN);
    let out = check.args(["policy", "check"]).arg(&secret).envs(sudo).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("ermission denied") && !said.contains("salt"), "{said}");
    mode(&file, 0o600);
    taken(&mut case, &file, &sudo, 0);
}

#[test]
fn a_policy_from_a_pipe_is_its_makers_word() {
    let Some(case) = Case::new() else { return };
    let case =
        case.inside(r#"exec bash -c 'exec "$@" < <(printf "version: 1\nname: piped\ndefault: block\n")' bash \"#);
    let case = case.with(&["--policy", "/dev/stdin"]);
    let ran = case.sh("exit 0");
    ran.exits(0).verdict("pass");
    assert_eq!(ran.report()["session"]["policy"]["files"][0]["owner"], 0);
}
