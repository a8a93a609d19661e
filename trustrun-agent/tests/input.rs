//! What bad input and a machine that lacks something get: a clear error and 125 before the command starts, and never a
//! character that acts on a terminal.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use harness::{BLOCK, Case, FarEnd, Ran, Running, SOON, TRUSTRUN, have, left_behind, sessions};
use trustrun_lab::{Lab, skip};

/// The command leaves this mark if it ever runs.
const MARK: &str = ": > \"$DIR/started\"";

#[track_caller]
fn refused(case: &Case) -> Ran {
    let ran = case.sh(MARK);
    ran.exits(125);
    assert!(!case.path("started").exists(), "the command ran");
    assert!(ran.stderr.starts_with("trustrun: ") && ran.stdout.is_empty(), "{}", ran.stderr);
    assert!(ran.report.is_none());
    ran
}

// --- Policies ---

#[track_caller]
fn policy_refused(text: &str, at: &str, why: &str) {
    let case = Case::anyone().policy(text);
    let ran = refused(&case);
    ran.says(&format!("{}:{at}:", case.path("policy.yaml").display())).says(why);
}

#[test]
fn a_bad_policy_is_refused_with_line_and_column_before_the_command_starts() {
    policy_refused("version: 1\ndefault: block\ndefautl: block\n", "3:1", "unknown key `defautl`");
    policy_refused("version: 1\ndefault: block\ndefault: allow\n", "3:1", "a second time");
    policy_refused("version: 1\ndefault: [\n", "2:10", "");
    policy_refused("\tversion: 1\n", "1:1", "");
    policy_refused("just words\n", "1:1", "");
    policy_refused("", "1:1", "");
    let rule = |pattern: &str| format!("version: 1\ndefault: block\nrules:\n  - allow: [\"{pattern}\"]\n");
    policy_refused(&rule("10.0.0.0/33"), "4:13", "10.0.0.0/33");
    policy_refused(&rule("2001:db8::/129"), "4:13", "2001:db8::/129");
    policy_refused(&rule("api.example.com:https"), "4:13", "https");
    policy_refused(&rule("api.example.com:65536"), "4:13", "65536");
    let long = vec!["a".repeat(62); 4].join(".") + ".aa";
    assert_eq!(long.len(), 254);
    policy_refused(&rule(&long), "4:13", "253");
    policy_refused(
        "version: 1\ndefault: block\nextends: [baa/azure-openai]\n",
        "3:11",
        "the parameter `resource` of baa/azure-openai is missing",
    );
}

#[test]
fn the_longest_name_is_a_policy() {
    let long = vec!["a".repeat(62); 4].join(".") + ".a";
    assert_eq!(long.len(), 253);
    let Some(case) = Case::new() else { return };
    let case =
        case.policy(&format!("version: 1\ndefault: block\nrules:\n  - allow: [\"{long}\", \"*.{}\"]\n", &long[63..]));
    case.sh("exit 0").exits(0).verdict("pass");
}

#[test]
fn a_policy_file_that_cannot_be_read_is_named() {
    let case = Case::anyone().with(&["--policy", "no-such.yaml"]);
    refused(&case).says("no-such.yaml").says("No such file");
    let case = Case::anyone().with(&["--policy", "/"]);
    refused(&case).says("/");
    let case = Case::anyone();
    fs::write(case.path("binary"), [0xff, 0xfe, 0, 1, 2, 3]).unwrap();
    refused(&case.with(&["--policy", "binary"])).says("binary");
    let case = Case::anyone();
    refused(&case.with(&["--policy", "new\n\u{1b}[31mline\u{202e}.yaml"])).says("\\u{1b}");
}

#[test]
fn a_policy_of_one_gigabyte_is_refused_at_once() {
    let case = Case::anyone();
    fs::File::create(case.path("big.yaml")).unwrap().set_len(1 << 30).unwrap();
    let begin = Instant::now();
    refused(&case.with(&["--policy", "big.yaml"])).says("big.yaml");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // One that never ends.
    let begin = Instant::now();
    refused(&Case::anyone().with(&["--policy", "/dev/zero"])).says("/dev/zero");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_policy_of_a_hundred_thousand_rules_works() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let mut text = String::from("version: 1\nname: many\ndefault: block\nrules:\n");
    for n in 0..99_999 {
        text.push_str(&format!("  - allow: [\"host{n}.example{}.test:{}\"]\n", n % 1000, 1 + n % 60_000));
    }
    text.push_str(&format!("  - name: the last\n    allow: [\"127.0.0.1:{}\"]\n", far.port()));
    let case = case.policy(&text);
    let begin = Instant::now();
    let ran = case.start(&["sh", "-c", &far.connect()]).end_within(Duration::from_secs(120));
    ran.exits(0).verdict("pass");
    assert_eq!(far.arrived(), 1);
    assert_eq!(ran.report()["destinations"][0]["rule"], "the last");
    // 3 s on an idle machine; a debug build on a loaded one is slower.
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
}

// --- The command line ---

#[test]
fn a_wrong_command_line_is_our_failure() {
    for words in [
        &["run"][..],
        &["run", "--"],
        &["run", "--no-such-option", "--", "true"],
        &["run", "--strict", "--observe", "true"],
    ] {
        let out = Command::new(TRUSTRUN).args(words).stdin(Stdio::null()).output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{words:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("--help"), "{words:?}");
        assert!(out.stdout.is_empty());
    }
    let out = Command::new(TRUSTRUN).args(["run", "--a\u{1b}[31m\u{202e}b", "true"]).output().unwrap();
    assert_inert(&String::from_utf8(out.stderr).unwrap());
    let out = Command::new(TRUSTRUN).args(["run", "--help"]).output().unwrap();
    assert!(out.status.success() && !out.stdout.is_empty());
}

#[test]
fn arguments_that_are_no_text_reach_the_command() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let Some(case) = Case::new() else { return };
    let words =
        [OsStr::new("printf"), OsStr::new("%s|"), OsStr::from_bytes(b"\xff\xfe"), OsStr::new(""), OsStr::new("--")];
    let ran = case.run(&words);
    assert_eq!(ran.exits(0).stdout, b"\xff\xfe||--|");
}

#[test]
fn strict_refuses_whatever_no_rule_allows() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    for text in [None, Some("version: 1\ndefault: allow\n")] {
        let case = Case::anyone().with(&["--strict", "--run-as", "nobody"]);
        let case = if let Some(text) = text { case.policy(text) } else { case };
        assert_ne!(case.sh(&far.connect()).status.code(), Some(0));
    }
    drop(case);
    assert_eq!(far.arrived(), 0);
}

// --- A machine that lacks something ---

/// The binary where any user may run it.
fn copied(case: &Case) -> PathBuf {
    let copy = case.path("trustrun");
    fs::copy(TRUSTRUN, &copy).unwrap();
    copy
}

/// Another binary runs with the words that follow.
fn as_nobody(mut case: Case) -> Case {
    let copy = copied(&case);
    fs::set_permissions(case.folder(), fs::Permissions::from_mode(0o777)).unwrap();
    let inside = format!(
        "shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent {} \\",
        copy.display()
    );
    case.shell = Some(inside);
    case
}

#[test]
fn without_root_the_command_does_not_start_and_the_way_out_is_said() {
    let Some(case) = Case::new() else { return };
    if !have(&["setpriv"]) {
        return;
    }
    refused(&as_nobody(case)).says("root").says("sudo").says("uid 65534");
    refused(&as_nobody(Case::anyone()).policy(BLOCK)).says("sudo");
}

#[test]
fn best_effort_without_root_runs_and_claims_nothing() {
    let Some(case) = Case::new() else { return };
    if !have(&["setpriv"]) {
        return;
    }
    let case = as_nobody(case).policy(BLOCK).with(&["--best-effort"]);
    let ran = case.sh("echo out; id -u; exit 7");
    assert_eq!(ran.exits(7).out(), "out\n65534\n");
    ran.says("INCOMPLETE").says("sudo").verdict("incomplete");
    assert_eq!(ran.gaps(), ["best-effort", "unwatched"]);
    assert_eq!(ran.report()["coverage"]["self_test"], "none");
    assert_eq!(ran.report()["coverage"]["hooks"].as_array().unwrap().len(), 0);
    case.run(&["no-such-command"]).exits(127);
    case.run(&["/etc"]).exits(126);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(case.sh("kill -TERM $$").status.signal(), Some(15));
    case.with(&["--exit-verdict"]).sh("exit 0").exits(122);
}

fn in_private_mounts(case: Case, change: &str) -> Case {
    let inside = format!("exec unshare -m sh -c '{change}; exec \"$@\"' sh \\");
    case.inside(&inside)
}

#[test]
fn without_cgroup2_the_command_does_not_start() {
    let Some(case) = Case::new() else { return };
    let places: Vec<String> = harness::cgroup2().iter().map(|p| format!("umount -l {}", p.display())).collect();
    let case = in_private_mounts(case, &places.join("; "));
    refused(&case).says("no cgroup v2").says("mount -t cgroup2");
    let ran = case.with(&["--best-effort"]).sh("exit 4");
    ran.exits(4).says("INCOMPLETE").verdict("incomplete");
}

#[test]
fn without_type_information_the_command_does_not_start() {
    let Some(case) = Case::new() else { return };
    case.file("empty", "");
    let case = in_private_mounts(case, "mount --bind \"$DIR/empty\" /sys/kernel/btf/vmlinux").policy(BLOCK);
    refused(&case).says("/sys/kernel/btf/vmlinux").says("CONFIG_DEBUG_INFO_BTF");
}

#[test]
fn what_could_not_be_set_up_leaves_nothing() {
    let Some(case) = Case::new() else { return };
    case.file("empty", "");
    let before = sessions();
    let case = in_private_mounts(case, "mount --bind \"$DIR/empty\" /sys/kernel/btf/vmlinux");
    refused(&case);
    let new = || sessions().into_iter().filter(|s| !before.contains(s)).collect::<Vec<_>>();
    // Others' sessions come and go.
    assert!(trustrun_lab::wait_until(SOON, || new().iter().all(|s| left_behind(s).len() != 1)), "{:?}", new());
}

// --- Hostile text ---

/// Characters that move a cursor, fake a line or reorder one.
fn acts(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn assert_inert(text: &str) {
    let found: Vec<char> = text.chars().filter(|c| acts(*c)).collect();
    assert!(found.is_empty(), "{found:?} in:\n{text:?}");
}

const HOSTILE: &str = "ev\u{1b}[2Jil\nFAKED\u{202e}\u{9b}31m";

#[test]
fn hostile_names_and_arguments_never_reach_a_terminal_raw() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n");
    let case = case.with(&["--events", "events.ndjson"]);
    let program = case.program(HOSTILE, &format!("#!/bin/bash\n{}\nexit 0\n", far.connect()));
    let ran = case.run(&[
        "bash",
        "-c",
        "exec -a \"$1\" bash -c '. \"$0\"' \"$2\"",
        "bash",
        HOSTILE,
        program.to_str().unwrap(),
    ]);
    ran.exits(0).verdict("fail");
    assert_eq!(far.arrived(), 1);
    assert_everything_inert(&case, &ran);
    // Its own name, and one that is not there.
    let ran = case.run(&[program.to_str().unwrap(), HOSTILE]);
    ran.exits(0);
    assert_everything_inert(&case, &ran);
    assert!(ran.report()["session"]["command"][1].as_str().unwrap().contains('\u{202e}'), "the text itself is kept");
    assert_inert(&case.run(&[HOSTILE]).exits(127).stderr);
    assert_inert(&case.with(&["--run-as", HOSTILE]).sh("true").exits(125).stderr);
}

#[track_caller]
fn assert_everything_inert(case: &Case, ran: &Ran) {
    assert_inert(&ran.stderr);
    assert!(!ran.stderr.lines().any(|l| l.starts_with("FAKED")), "a line was faked:\n{}", ran.stderr);
    assert_inert(&case.read("report.json"));
    let events = case.read("events.ndjson");
    assert_inert(&events);
    assert!(events.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "{events}");
    for words in [&["list"][..], &["show", "last"], &["report", "last"], &["list", "--format", "json"]] {
        assert_inert(&case.session(words).exits(0).out());
    }
}

#[test]
fn hostile_host_names_never_reach_a_terminal_raw() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let lab = match Lab::start() {
        Ok(lab) => lab,
        Err(e) if e.is_permission() => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    // A lookup, and a Host header, whose names hold what acts on a terminal.
    let python = r#"
import socket, struct
name = "ev\x1b[2Jil\nFAKED\u202e".encode()
query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\x04test\0" + struct.pack("!HH", 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(query, ("203.0.113.53", 53))
try: s.recv(512)
except OSError: pass
for host in (name, "ev\x9bil\u202e.test".encode()):
    t = socket.create_connection(("203.0.113.77", 80), 5); t.sendall(b"GET / HTTP/1.1\r\nHost: " + host.replace(b"\n", b"\x0b") + b"\r\n\r\n"); t.recv(100); t.close()
"#;
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n");
    let case = case.with(&["--events", "events.ndjson"]);
    let plain = case.command(&["python3", "-c", python]);
    let mut inside = lab.command(plain.get_program());
    inside.args(plain.get_args()).current_dir(case.folder()).env("NO_COLOR", "1").stdin(Stdio::null());
    let ran = Running::spawn(&mut inside, case.path("report.json")).end();
    ran.exits(0).verdict("fail");
    let names: Vec<&str> =
        ran.report()["queries"].as_array().unwrap().iter().map(|q| q["name"].as_str().unwrap()).collect();
    assert!(names.iter().any(|n| n.contains("faked")), "{names:?}");
    assert_everything_inert(&case, &ran);
}

#[test]
fn secrets_are_stored_and_shown_nowhere() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n");
    let case = case.with(&["--events", "events.ndjson"]);
    let uses = [
        "/bin/true --password=hunter2-1".to_owned(),
        "/bin/true --token hunter2-2".to_owned(),
        "/bin/true https://user:hunter2-3@h.test/".to_owned(),
        "/bin/true -H 'Authorization: Bearer hunter2-4'".to_owned(),
        "API_KEY=hunter2-5 /bin/true".to_owned(),
        "env API_KEY=hunter2-6 /bin/true".to_owned(),
        "/bin/true 'https://h.test/?access_token=hunter2-7'".to_owned(),
        format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}' x --api-key=hunter2-8", far.port()),
    ];
    let ran = case.sh(&uses.join("; "));
    ran.exits(0).verdict("fail");
    let mut places = vec![
        ("stderr", ran.stderr.clone().into_bytes()),
        ("report", fs::read(case.path("report.json")).unwrap()),
        ("events", fs::read(case.path("events.ndjson")).unwrap()),
        ("list", case.session(&["list"]).stdout),
        ("show", case.session(&["show", "last"]).stdout),
    ];
    for file in fs::read_dir(case.path("state")).unwrap().flatten() {
        places.push(("database", fs::read(file.path()).unwrap()));
    }
    assert!(places.len() >= 6);
    for (place, bytes) in places {
        let text = String::from_utf8_lossy(&bytes);
        let at = text.find("hunter2");
        assert!(
            at.is_none(),
            "a secret in the {place}: …{:?}…",
            at.map(|a| text[a.saturating_sub(80)..].chars().take(120).collect::<String>())
        );
    }
    assert!(case.read("events.ndjson").contains("--password="), "the rest of the argument stays");
}

#[test]
fn conditions_that_this_host_cannot_tell_are_refused_where_the_policy_enforces() {
    let rule = |rest: &str| format!("version: 1\ndefault: block\nrules:\n  - {{allow: [\"a.test\"], {rest}}}\n");
    for (text, why) in [
        (rule("when: {exe: /no/such/program}"), "matches no file on this host"),
        (rule("when: {user: no-such-user}"), "there is no such user"),
    ] {
        refused(&Case::anyone().policy(&text)).says(why);
    }
}
