//! What a session leaves for a person and for other programs: report, events, database, a learned policy.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;

use std::{
    fs,
    process::{Command, Stdio},
};

use harness::{BLOCK, Case, FarEnd, Running, TRUSTRUN, have};
use serde_json::Value;
use trustrun_lab::{Lab, skip};

/// What a field has to be.
type Fits<'a> = &'a dyn Fn(&Value) -> bool;

/// The shape of `trustrun.report/1` (design 8): every field, with what it has to be.
fn assert_report(report: &Value) {
    let text = Value::is_string;
    let count = Value::is_u64;
    let list = Value::is_array;
    let check = |of: &Value, name: &str, fits: Fits<'_>| {
        let value = of.get(name).unwrap_or_else(|| panic!("no {name} in {of}"));
        assert!(fits(value), "{name} is {value}");
    };
    let all = |of: &Value, fields: &[(&str, Fits<'_>)]| {
        fields.iter().for_each(|(name, fits)| check(of, name, fits));
    };
    let or_null = |v: &Value| v.is_string() || v.is_null();
    let moment = |v: &Value| v.as_str().is_some_and(|t| t.len() >= 20 && t.ends_with('Z') && t.as_bytes()[10] == b'T');
    let action = |v: &Value| ["allow", "alert", "block", "kill"].contains(&v.as_str().unwrap_or_default());
    assert_eq!(report["schema"], "trustrun.report/1");
    all(&report["tool"], &[("version", &text), ("sha256", &|v| v.as_str().is_some_and(|s| s.len() == 64))]);
    let session = &report["session"];
    all(
        session,
        &[
            ("id", &text),
            ("labels", &Value::is_object),
            ("command", &list),
            ("exe_sha256", &text),
            ("user", &text),
            ("host", &text),
            ("boot_id", &text),
            ("kernel", &text),
            ("sensor", &|v| v == "ebpf"),
            ("assurance", &|v| ["contained", "enforced", "observed", "sampled"].contains(&v.as_str().unwrap())),
            ("started_at", &moment),
            ("ended_at", &moment),
        ],
    );
    all(&session["operator"], &[("uid", &count), ("login_uid", &count), ("name", &text)]);
    if !session["policy"].is_null() {
        all(&session["policy"], &[("name", &text), ("sha256", &|v| v.as_str().is_some_and(|s| s.len() == 64))]);
    }
    let int_or_null = |v: &Value| v.is_i64() || v.is_null();
    all(&session["exit"], &[("code", &int_or_null), ("signal", &int_or_null)]);
    check(report, "verdict", &|v| ["pass", "fail", "incomplete", "observed"].contains(&v.as_str().unwrap()));
    let coverage = &report["coverage"];
    all(
        coverage,
        &[("self_test", &|v| ["passed", "failed", "none"].contains(&v.as_str().unwrap())), ("resolvers", &list)],
    );
    for hook in coverage["hooks"].as_array().unwrap() {
        all(hook, &[("name", &text), ("attached_at", &moment), ("detached_at", &moment)]);
    }
    for d in report["destinations"].as_array().unwrap() {
        all(
            d,
            &[
                ("host", &or_null),
                ("evidence", &|v| ["dns+sni", "dns", "claim", "none"].contains(&v.as_str().unwrap())),
                ("sni", &or_null),
                ("address", &text),
                ("port", &count),
                ("protocol", &text),
                ("direction", &|v| v == "out" || v == "in"),
                ("local", &|v| v.is_string() || v.is_null()),
                ("action", &action),
                ("rule", &text),
                ("baa", &|_| true),
                ("connections", &count),
                ("bytes_sent", &count),
                ("bytes_received", &count),
                ("first_seen", &moment),
                ("last_seen", &moment),
            ],
        );
        for p in d["processes"].as_array().unwrap() {
            all(p, &[("pid", &count), ("exe", &text), ("argv", &list)]);
        }
    }
    for q in report["queries"].as_array().unwrap() {
        all(
            q,
            &[
                ("name", &text),
                ("type", &text),
                ("resolver", &text),
                ("action", &action),
                ("answers", &list),
                ("count", &count),
            ],
        );
    }
    for v in report["violations"].as_array().unwrap() {
        all(
            v,
            &[
                ("at", &moment),
                ("action", &action),
                ("host", &or_null),
                ("address", &or_null),
                ("port", &count),
                ("protocol", &text),
                ("rule", &text),
                ("process", &|p| p.is_object() || p.is_null()),
                ("suggestion", &text),
            ],
        );
    }
    for g in report["gaps"].as_array().unwrap() {
        all(g, &[("kind", &text), ("count", &count), ("detail", &text)]);
    }
    for l in report["limits"].as_array().unwrap() {
        all(l, &[("kind", &text), ("detail", &text)]);
    }
    let counters = &report["counters"];
    all(counters, &[("emitted", &count), ("stored", &count), ("dropped", &Value::is_object)]);
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counters["emitted"].as_u64().unwrap(), counters["stored"].as_u64().unwrap() + dropped, "{counters}");
}

#[test]
fn the_report_has_every_field_and_its_counters_add_up() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy(BLOCK);
    let ran = case.sh(&format!("{}; kill -9 $$", far.connect()));
    let report = ran.verdict("fail").report();
    assert_report(report);
    assert_eq!(report["violations"][0]["port"], far.port());
    assert!(report["coverage"]["hooks"].as_array().unwrap().len() >= 8);
    assert_eq!(report["coverage"]["self_test"], "passed");
    assert_eq!(report["session"]["exit"]["signal"], 9);
    assert!(report["counters"]["emitted"].as_u64().unwrap() > 0);
    let ran = Case::anyone().sh("exit 3");
    assert_report(ran.verdict("observed").report());
}

#[test]
fn sessions_are_listed_shown_and_reported() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy(BLOCK);
    case.session(&["list"]).exits(2).says("no database");
    let pass = case.run(&["true"]).verdict("pass").session();
    let fail = case.sh(&far.connect()).verdict("fail").session();
    let list = case.session(&["list"]);
    let text = list.exits(0).out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with(&fail) && lines[1].contains("fail"), "the latest first: {text}");
    assert!(lines[2].starts_with(&pass) && lines[2].contains("pass"), "{text}");
    let shown = case.session(&["show", &fail]);
    assert!(shown.exits(0).out().starts_with("FAIL"), "{}", shown.out());
    let report: Value = serde_json::from_slice(&case.session(&["report", "last"]).exits(0).stdout).unwrap();
    assert_report(&report);
    let written: Value = serde_json::from_slice(&fs::read(case.path("report.json")).unwrap()).unwrap();
    assert_eq!(report, written, "the database holds the report that was written");
    case.session(&["report", &pass, "--output", case.path("old.json").to_str().unwrap()]).exits(0);
    let old: Value = serde_json::from_str(&case.read("old.json")).unwrap();
    assert_eq!(old["session"]["id"], *pass);
    case.session(&["show", "no-such"]).exits(2).says("no session");
    let json: Value = serde_json::from_slice(&case.session(&["list", "--format", "json"]).exits(0).stdout).unwrap();
    assert_eq!(json["sessions"].as_array().unwrap().len(), 2);
}

#[test]
fn every_line_of_events_is_json_and_all_are_there() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n").with(&["--events", "-"]);
    let ran = case.sh(&format!("{} >&2; /bin/true", far.connect()));
    ran.exits(0).verdict("fail");
    let out = ran.out();
    let events: Vec<Value> =
        out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    assert_eq!(events.len() as u64, ran.report()["counters"]["emitted"].as_u64().unwrap());
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["schema"], "trustrun.event/1");
        assert_eq!(event["seq"], n as u64 + 1);
        assert_eq!(event["session"], ran.session().as_str());
    }
    let of = |kind: &str| events.iter().filter(|e| e["kind"].as_str().unwrap().contains(kind)).count();
    assert!(of("exec") >= 3, "{out}");
    assert!(events.iter().any(|e| e["action"] == "alert" && e["peer"] == format!("127.0.0.1:{}", far.port())), "{out}");
}

#[test]
fn events_into_a_pipe_that_ends_do_not_hold_the_command_up() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK).with(&["--events", "-"]);
    let mut command = case.command(&["sh", "-c", "for i in $(seq 200); do /bin/true; done; exit 3"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    assert_eq!(report["gaps"][0]["kind"], "event-lines-lost");
    assert_eq!(report["verdict"], "incomplete");
}

#[test]
fn a_learned_policy_is_a_policy_under_which_the_same_command_passes() {
    let Some(case) = Case::new() else { return };
    if !have(&["curl"]) {
        return;
    }
    let lab = match Lab::start() {
        Ok(lab) => lab,
        Err(e) if e.is_permission() => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let fetch = [
        "sh",
        "-c",
        "curl -sS http://api.allowed.test/ && curl -sS https://two.allowed.test/ && curl -sS http://203.0.113.77/",
    ];
    let inside = |case: &Case| {
        let plain = case.command(&fetch);
        let mut c = lab.command(plain.get_program());
        c.args(plain.get_args()).current_dir(case.folder()).env("NO_COLOR", "1").stdin(Stdio::null());
        Running::spawn(&mut c, case.path("report.json")).end()
    };
    let learned = case.path("learned.yaml");
    let case = case.with(&["--learn", learned.to_str().unwrap()]);
    inside(&case).exits(0).verdict("observed").says("learned");
    let check = Command::new(TRUSTRUN).args(["policy", "check"]).arg(&learned).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && said.contains("enforcing"), "{said}{}", String::from_utf8_lossy(&check.stderr));
    let text = fs::read_to_string(&learned).unwrap();
    for host in ["api.allowed.test", "two.allowed.test", "203.0.113.77"] {
        assert!(text.contains(host), "{text}");
    }
    let again = Case::anyone().with(&["--policy", learned.to_str().unwrap()]);
    inside(&again).exits(0).verdict("pass");
    // From the database it is the same, and beside itself there is nothing to learn.
    let learn = |words: &[&str]| {
        let mut command = Command::new(TRUSTRUN);
        command.args(["policy", "learn", "last", "--accept-all", "--name", "learned"]).args(words);
        String::from_utf8(command.arg("--db").arg(again.db()).stdin(Stdio::null()).output().unwrap().stdout).unwrap()
    };
    let patterns = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("- \""));
        lines.filter_map(|line| line.split('"').next()).map(str::to_owned).collect()
    };
    assert_eq!(patterns(&learn(&[])), patterns(&text));
    assert_eq!(patterns(&learn(&["--base", learned.to_str().unwrap()])), Vec::<String>::new());
    // And nothing else does.
    let plain = again.command(&["curl", "-sS", "http://evil.test/"]);
    let mut c = lab.command(plain.get_program());
    c.args(plain.get_args()).current_dir(again.folder()).stdin(Stdio::null());
    Running::spawn(&mut c, again.path("report.json")).end().verdict("fail");
}

#[test]
fn a_lookup_of_the_machines_own_name_is_told_with_what_to_do() {
    let Some(case) = have(&["unshare", "hostname", "getent"]).then(Case::new).flatten() else { return };
    let named = |case: Case| case.inside("exec unshare -u sh -c 'hostname pc7-of-test && exec \"$@\"' sh \\");
    // As git does without an identity.
    let ran = named(case.policy(BLOCK)).sh("getent ahosts pc7-of-test; exit 0");
    let violations = ran.exits(0).report()["violations"].as_array().unwrap();
    assert!(violations.iter().any(|v| v["host"] == "pc7-of-test"), "{violations:?}");
    for v in violations {
        let suggestion = v["suggestion"].as_str().unwrap();
        assert!(suggestion.contains("this machine's own name") && suggestion.contains("/etc/hosts"), "{v}");
    }
    ran.verdict("fail").says("own name");
    // With an entry in /etc/hosts nobody is asked.
    let Some(case) = Case::new() else { return };
    let hosts = case.file("hosts", "127.0.1.1 pc7-of-test\n");
    let hosts = format!("mount --bind {} /etc/hosts && hostname pc7-of-test", hosts.display());
    let case = case.policy(BLOCK).inside(&format!("exec unshare -mu sh -c '{hosts} && exec \"$@\"' sh \\"));
    let ran = case.sh("getent ahosts pc7-of-test");
    ran.exits(0).verdict("pass");
}
