//! The policy that applies where none is named, environments, and what a policy promises that nobody can keep yet.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
};

use harness::Case;

/// A case whose settings, of the user who runs trustrun, are these.
fn with_settings(settings: &str) -> Option<Case> {
    let case = Case::new()?;
    fs::set_permissions(case.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(case.path("config/trustrun")).unwrap();
    case.file("config/trustrun/trustrun.yaml", settings);
    let config = case.path("config").to_str().unwrap().to_owned();
    Some(case.env("XDG_CONFIG_HOME", &config))
}

/// A lookup that a policy can refuse.
const ASK: &str = "getent hosts api.allowed.test >/dev/null; true";

#[test]
fn the_policy_of_the_settings_applies_where_none_is_named_and_is_said() {
    let Some(case) = with_settings("policy: ./hospital.yaml\nenvironment: staging\n") else { return };
    case.file(
        "config/trustrun/hospital.yaml",
        "version: 1\nname: hospital\ndefault: block\noverlays: {staging: {rules: [{allow: [10.0.0.0/8]}]}}\n",
    );
    let ran = case.sh(ASK);
    ran.says("under the active policy hospital: ").says("/config/trustrun/trustrun.yaml names ").verdict("fail");
    let policy = &ran.report()["session"]["policy"];
    assert_eq!(policy["settings"], case.path("config/trustrun/trustrun.yaml").to_str().unwrap());
    assert_eq!(policy["environment"], "staging");
    assert!(policy["files"][0]["path"].as_str().unwrap().ends_with("/hospital.yaml"));
    // What is named goes before it.
    let named = case.policy("version: 1\nname: named\ndefault: alert\n");
    let ran = named.sh("true");
    assert!(!ran.stderr.contains("active policy"), "{}", ran.stderr);
    assert_eq!(ran.report()["session"]["policy"]["settings"], serde_json::Value::Null);
}

#[test]
fn settings_of_a_folder_only_tighten() {
    let Some(case) = with_settings("policy: ./hospital.yaml\n") else { return };
    case.file("config/trustrun/hospital.yaml", "version: 1\nname: hospital\ndefault: block\n");
    case.file(
        "theirs.yaml",
        "version: 1\nname: theirs\ndefault: allow\nrules: [{allow: [\"*\", \"any/*\"]}, {kill: [evil.test]}]\n",
    );
    case.file("trustrun.yaml", "policy: theirs.yaml\n");
    let ran = case.sh(ASK);
    ran.says("./trustrun.yaml adds ").says("2 patterns of").verdict("fail");
    assert_eq!(ran.report()["session"]["policy"]["name"], "hospital+theirs");
    // Somebody else's do not count, and that is said.
    chown(case.path("trustrun.yaml"), Some(4242), Some(4242)).unwrap();
    let ran = case.sh("true");
    ran.says("settings that do not count: ").says("uid 4242");
    assert_eq!(ran.report()["session"]["policy"]["name"], "hospital");
}

#[test]
fn extended_files_count_as_named_ones_do() {
    let Some(case) = Case::new() else { return };
    fs::set_permissions(case.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let lib = case.file("lib.yaml", "version: 1\nrules: [{name: x, allow: [a.test]}]\n");
    let case = case.policy("version: 1\nname: main\ndefault: block\nextends: [./lib.yaml]\n");
    let ran = case.sh("true");
    ran.exits(0);
    assert_eq!(ran.report()["session"]["policy"]["files"].as_array().unwrap().len(), 2);
    chown(&lib, Some(4242), Some(4242)).unwrap();
    case.sh("true").exits(125).says("lib.yaml").says("uid 4242").says("extends: [./lib.yaml]");
}

#[test]
fn what_has_expired_is_in_the_report_and_content_is_not_promised() {
    let Some(case) = Case::new() else { return };
    let old = "version: 1\nname: old\ndefault: alert\nrules: [{name: gone, allow: [a.test], expires: 2020-01-01}]\n";
    let ran = case.policy(old).sh("true");
    let expired = &ran.report()["session"]["policy"]["expired"][0];
    assert_eq!(
        (&expired["on"], &expired["what"]),
        (&"2020-01-01".into(), &"the rule `gone` expired on 2020-01-01 and is left out".into())
    );
    let Some(case) = Case::new() else { return };
    let ran = case.policy("version: 1\ndefault: block\ncapture: full\n").sh("true");
    ran.exits(125).says("the policy says `capture: full`, and no content of connections is captured yet");
}
