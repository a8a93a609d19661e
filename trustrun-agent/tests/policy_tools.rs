//! `trustrun policy …`: the real binary, its answers word by word, and its exit codes. None needs root.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::{Case, TRUSTRUN};
use serde_json::{Value, json};

/// Runs `trustrun policy` in the case's folder.
fn policy(case: &Case, words: &[&str]) -> Output {
    let mut command = Command::new(TRUSTRUN);
    command.arg("policy").args(words).current_dir(case.folder()).stdin(Stdio::null());
    command.env_remove("TRUSTRUN_ENVIRONMENT").env_remove("SUDO_UID").output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn says(case: &Case, words: &[&str], code: i32, expected: &str) {
    let output = policy(case, words);
    assert_eq!(text(&output), expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code));
}

#[track_caller]
fn json_of(case: &Case, words: &[&str], code: i32) -> Value {
    let output = policy(case, &[words, &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const NOTEBOOK: &str = "version: 1\nname: notebook\nextends:\n  - preset: deny/public-llm\n    except:\n      - {destination: api.openai.com, \
     reason: signed, expires: 2099-01-01}\n  - deny/telemetry\ndefault: block\nrules:\n  - name: our model\n    allow: [\"api.openai.com:443\"]\n    \
     when: {exe: \"/usr/bin/python3*\"}\n  - {name: lab, allow: [\"10.20.0.0/16\"]}\n";

fn case() -> Case {
    let case = Case::anyone();
    case.file("notebook.yaml", NOTEBOOK);
    case
}

#[test]
fn presets_are_listed_and_shown() {
    let case = Case::anyone();
    let list = text(&policy(&case, &["presets"]));
    assert!(
        list.lines().any(|l| l.starts_with("baa/aws-bedrock ") && l.ends_with("(wants endpoint, region)")),
        "{list}"
    );
    let value = json_of(&case, &["presets"], 0);
    let presets = value["presets"].as_array().unwrap();
    assert!(presets.len() >= 27);
    let azure = presets.iter().find(|preset| preset["name"] == "baa/azure-openai").unwrap();
    assert_eq!((&azure["kind"], &azure["form"]), (&json!("baa"), &json!("tenant")));
    assert_eq!(azure["parameters"][0]["name"], "resource");
    assert!(azure["checked_on"].as_str().unwrap().starts_with("202"));
    let shown = text(&policy(&case, &["presets", "deny/telemetry"]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/deny/telemetry.yaml");
    assert_eq!(shown, std::fs::read_to_string(file).unwrap(), "the very text");
    let none = policy(&case, &["presets", "deny/x"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no preset `deny/x`"));
}

#[test]
fn explain_says_who_won_where_it_is_written_and_what_holds_it() {
    let case = case();
    says(
        &case,
        &["explain", "api.openai.com", "--policy", "notebook.yaml", "--as", "/usr/bin/python3.11,ann"],
        0,
        "allow  api.openai.com:443\n  because of rule `our model` by \"api.openai.com:443\" (notebook.yaml:10)\n  (no port was written: 443 is meant)\n  \
         other rules that match:\n    block  rule `deny/public-llm/OpenAI` by \"api.openai.com\" (deny/public-llm:16, \"no business associate agreement \
         by default\"); is silent by an exception: \"signed\", until 2099-01-01 (notebook.yaml:6)\n  a lookup of the name: allow (rule `our model`)\n  \
         held by: connect (the kernel decides in connect and sendmsg, by names that it saw the resolver give; packets follow that)\n  \
         with a literal address that no rule names, instead of the name: block\n",
    );
    let curl =
        json_of(&case, &["explain", "api.openai.com:443", "--policy", "notebook.yaml", "--as", "/usr/bin/curl"], 0);
    assert_eq!((&curl["action"], &curl["rule"], &curl["source"]), (&json!("block"), &json!("default"), &Value::Null));
    assert_eq!(curl["lock"], "dns-lookup");
    let wandb = json_of(&case, &["explain", "api.wandb.ai", "--policy", "notebook.yaml"], 0);
    assert_eq!(
        (&wandb["action"], &wandb["remedy"], &wandb["lock"]),
        (&json!("alert"), &json!("WANDB_MODE=disabled"), &json!("none"))
    );
    assert!(wandb["source"].as_str().unwrap().starts_with("deny/telemetry:"), "{wandb}");
    let lab = json_of(&case, &["explain", "10.20.1.2:22", "--policy", "notebook.yaml"], 0);
    assert_eq!(
        (&lab["rule"], &lab["lock"], &lab["source"]),
        (&json!("lab"), &json!("connect"), &json!("notebook.yaml:13"))
    );
    for (wrong, why) in [("10.0.0.0/8", "more than one destination"), ("a_b@", "wanted"), ("exa mple.org", "space")] {
        let refused = policy(&case, &["explain", wrong, "--policy", "notebook.yaml"]);
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(why) || !said.is_empty(), "{said}");
    }
}

#[test]
fn diff_says_what_newly_passes_and_what_is_newly_refused() {
    let case = case();
    case.file(
        "new.yaml",
        &NOTEBOOK.replace("10.20.0.0/16", "10.20.0.0/17").replace("[\"api.openai.com:443\"]", "[\"api.openai.com\"]"),
    );
    let expected = "newly let through:\n  allow  api.openai.com with a public address tcp/0-442 for (exe=/usr/bin/python3*), was block\n         \
                    by rule `our model` (new.yaml:10)\n  allow  api.openai.com with a public address tcp/444-65535 for (exe=/usr/bin/python3*), was block\n         \
                    by rule `our model` (new.yaml:10)\nnewly refused:\n  block  10.20.0.0/16 tcp, was allow\n         by the default\n";
    says(&case, &["diff", "notebook.yaml", "new.yaml"], 0, expected);
    says(
        &case,
        &["diff", "notebook.yaml", "notebook.yaml", "--exit-code"],
        0,
        "The policies decide the same about every destination.\n",
    );
    let value = json_of(&case, &["diff", "notebook.yaml", "new.yaml", "--exit-code"], 1);
    assert_eq!(value["destinations"].as_array().unwrap().len(), 3);
    assert_eq!(value["complete"], true);
    let refused =
        value["destinations"].as_array().unwrap().iter().find(|row| row["change"] == "newly-refused").unwrap();
    assert_eq!((&refused["before"]["rule"], &refused["after"]["rule"]), (&json!("lab"), &json!("default")));
}

#[test]
fn a_file_of_expectations_holds_or_says_which_does_not() {
    let case = case();
    case.file("t.yaml", "policy: notebook.yaml\nexpect:\n  - {destination: \"10.20.1.2:22\", action: allow, rule: lab}\n  - {destination: api.openai.com, as: /usr/bin/python3, action: allow}\n");
    says(&case, &["test", "t.yaml"], 0, "2 expectations, 0 do not hold\n");
    case.file("u.yaml", "policy: ./notebook.yaml\nexpect: [{destination: example.org, action: allow}]\n");
    let expected =
        "u.yaml:2: example.org:443: expected allow, found block by `default`\n1 expectations, 1 do not hold\n";
    says(&case, &["test", "u.yaml"], 1, expected);
    assert_eq!(json_of(&case, &["test", "u.yaml"], 1)["failed"], 1);
    case.file("v.yaml", "policy: notebook.yaml\nexpect: [{destination: example.org, action: alow}]\n");
    let wrong = policy(&case, &["test", "v.yaml"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `allow`?"));
}

#[test]
fn check_tells_all_mistakes_and_what_was_hardly_meant() {
    let case = case();
    case.file("bad.yaml", "version: 1\ndefualt: block\nrules: [{allow: [\"a b\"]}]\n");
    let value = json_of(&case, &["check", "notebook.yaml", "bad.yaml"], 2);
    let [good, bad] = &value["policies"].as_array().unwrap()[..] else { panic!("{value}") };
    assert_eq!((&good["valid"], &bad["valid"]), (&json!(true), &json!(false)));
    assert!(bad["errors"].as_array().unwrap().len() >= 2, "{bad}");
    assert_eq!(bad["errors"][0]["line"], 2);
    case.file("wide.yaml", "version: 1\ndefault: block\nrules: [{allow: [\"*.amazonaws.com\"]}]\n");
    let wide = json_of(&case, &["check", "wide.yaml", "--strict"], 1);
    assert_eq!(wide["policies"][0]["lints"][0]["kind"], "over-broad", "{wide}");
}

#[test]
fn where_no_policy_is_named_the_active_one_is_meant_and_why_is_said() {
    let case = case();
    std::fs::create_dir_all(case.path("config/trustrun")).unwrap();
    let settings = format!("policy: [\"{}\"]\n", case.path("notebook.yaml").display());
    case.file("config/trustrun/trustrun.yaml", &settings);
    let ask = |words: &[&str]| {
        let mut command = Command::new(TRUSTRUN);
        command.arg("policy").args(words).args(["--format", "json"]).current_dir(case.folder()).env_remove("SUDO_UID");
        let output = command.env("XDG_CONFIG_HOME", case.path("config")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let checked = ask(&["check"]);
    assert_eq!(checked["policies"][0]["name"], "notebook");
    assert!(checked["policies"][0]["why"][0].as_str().unwrap().contains("trustrun.yaml names"), "{checked}");
    assert_eq!(ask(&["explain", "10.20.1.2:22"])["rule"], "lab");
}

/// A report as a session writes it, with what matters here.
fn report() -> Value {
    let destination = |host: Option<&str>, evidence: &str, address: &str, port: u16, exe: &str| {
        json!({"host": host, "evidence": evidence, "sni": null, "address": address, "port": port, "protocol": "tcp",
            "direction": "out", "local": "", "action": "allow", "rule": "default", "baa": null, "connections": 2,
            "bytes_sent": 120, "bytes_received": 34_000, "first_seen": "", "last_seen": "",
            "processes": [{"pid": 7, "exe": exe, "argv": ["x"]}]})
    };
    let query = |name: &str| json!({"name": name, "type": "A", "resolver": "10.0.0.53:53", "action": "allow", "answers": ["192.0.2.1"], "count": 1});
    json!({
        "schema": "trustrun.report/1", "tool": {"version": "", "sha256": ""},
        "session": {"id": "s-1", "labels": {}, "command": [], "exe_sha256": "", "user": "ann", "operator": {"uid": 0, "login_uid": 0, "name": ""},
            "host": "", "boot_id": "", "kernel": "", "sensor": "ebpf", "assurance": "observed", "policy": null, "started_at": "", "ended_at": "",
            "exit": {"code": 0, "signal": null}},
        "verdict": "observed", "coverage": {"hooks": [], "self_test": "passed", "resolvers": []},
        "destinations": [
            destination(Some("files.example.org"), "dns+sni", "192.0.2.1", 443, "/usr/bin/curl"),
            destination(Some("claimed.example.org"), "claim", "192.0.2.9", 443, "/usr/bin/curl"),
            destination(None, "none", "10.20.1.2", 22, "/usr/bin/ssh"),
        ],
        "queries": [query("files.example.org"), query("asked.example.org")],
        "violations": [], "gaps": [], "limits": [], "counters": {"emitted": 0, "stored": 0, "dropped": {}}
    })
}

#[test]
fn replay_says_what_a_policy_would_have_done_and_what_cannot_be_known() {
    let case = case();
    case.file("report.json", &report().to_string());
    let expected = "session s-1 under policy notebook:\n  would be refused:\n    block  192.0.2.9:443, 2 times by /usr/bin/curl: was allow, rule `default`\n    \
                    block  files.example.org@192.0.2.1:443, 2 times by /usr/bin/curl: was allow, rule `default`\n  would be refused:\n    \
                    block  lookup of asked.example.org, once: was allow, rule `default`\n    block  lookup of files.example.org, once: was allow, rule \
                    `default`\n  unchanged: 1 destinations, 0 lookups\n  cannot be known:\n    - connections whose name only the program claims: they \
                    are judged by their address (claimed.example.org at 192.0.2.9)\n    - what the program would have done after a refusal: it may try \
                    elsewhere, or end\n";
    says(&case, &["replay", "report.json", "--policy", "notebook.yaml"], 0, expected);
    let value = json_of(&case, &["replay", "report.json", "--policy", "notebook.yaml"], 0);
    let outcomes: Vec<&str> =
        value["connections"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["newly-refused", "newly-refused", "unchanged"]);
}

#[test]
fn learn_writes_a_policy_under_which_the_session_has_no_violation_and_a_second_time_nothing() {
    let case = case();
    case.file("report.json", &report().to_string());
    let expected = "# Learned by trustrun: what sessions reached, and nothing else. Read it before you rely on it.\nversion: 1\nname: \"learned\"\n\
                    default: block\nrules:\n  - name: \"learned, curl\"\n    allow:\n      - \"files.example.org:443\" # 2 times, 120 B out, 34 kB in, by \
                    /usr/bin/curl, session s-1\n      - \"192.0.2.9:443\" # 2 times, 120 B out, 34 kB in, by /usr/bin/curl, session s-1\n  - name: \
                    \"learned, ssh\"\n    allow:\n      - \"10.20.1.2:22\" # 2 times, 120 B out, 34 kB in, by /usr/bin/ssh, session s-1\n  - name: \
                    \"learned, names asked for alone\"\n    allow:\n      - \"udp/asked.example.org:9\" # asked for, not connected to, session s-1\n";
    says(&case, &["learn", "report.json", "--accept-all"], 0, expected);
    says(&case, &["learn", "report.json", "--accept-all", "--format", "yaml"], 0, expected);
    assert!(!expected.contains("claimed"), "a claim is no name");
    case.file("learned.yaml", expected);
    let replay = json_of(&case, &["replay", "report.json", "--policy", "learned.yaml"], 0);
    for row in replay["connections"].as_array().unwrap().iter().chain(replay["lookups"].as_array().unwrap()) {
        assert_eq!(row["after"], "allow", "{row}");
    }
    let again = json_of(&case, &["learn", "report.json", "--accept-all", "--base", "learned.yaml"], 0);
    assert_eq!(again["lines"], json!([]), "a second time there is nothing new");
    assert!(again["policy"].as_str().unwrap().contains("/learned.yaml\"]"), "{again}");
    // Nobody can review here.
    let none = policy(&case, &["learn", "report.json"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--accept-all"));
}

#[test]
fn the_schema_is_json_schema_of_2020() {
    let case = Case::anyone();
    let schema: Value = serde_json::from_str(&text(&policy(&case, &["schema"]))).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["required"], json!(["version"]));
}
