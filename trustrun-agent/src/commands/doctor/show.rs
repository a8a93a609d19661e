//! What was found, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};
use trustrun_guard::probe::HookState;
use trustrun_model::{Untrusted, inert_json};

use super::{checks::State, diagnosis::Diagnosis};

/// Columns of the text.
const WIDTH: usize = 100;
/// Sensors that are thought of and are not built.
const UNBUILT: [&str; 2] = ["pcap", "sockets"];

/// For people; the last line is the assurance.
pub(super) fn text(d: &Diagnosis) -> String {
    let mut out = String::from("Host\n");
    for c in &d.checks {
        row(&mut out, c.state, c.name, &c.found);
        if let Some(todo) = &c.todo {
            wrap(&mut out, &format!("{:27}-> ", ""), todo);
        }
    }
    hooks(&mut out, d);
    locks(&mut out, d);
    out.push_str("\nLimits\n");
    for (kind, detail) in &d.limits {
        wrap(&mut out, &format!("  {kind:25}"), detail);
    }
    if !d.reasons.is_empty() {
        out.push_str("\nWhy not more\n");
        d.reasons.iter().for_each(|why| wrap(&mut out, "  ", why));
    }
    let sensor = d.sensor.unwrap_or("none");
    let _ = writeln!(out, "\nsensor: {sensor} (pcap and sockets are not built yet)");
    let mut last = format!("assurance: {}", d.word());
    if let Some(first) = d.reasons.first() {
        let more = d.reasons.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        let room = WIDTH - last.len() - more.len() - 2;
        let first = Untrusted::new(first.lines().next().unwrap_or_default()).to_string();
        let cut: String = first.chars().take(room - 1).collect();
        let dots = if cut.len() < first.len() { "…" } else { "" };
        let _ = write!(last, ": {cut}{dots}{more}");
    }
    out + &last + "\n"
}

fn hooks(out: &mut String, d: &Diagnosis) {
    let count = |f: fn(&HookState) -> bool| d.hooks.iter().filter(|h| f(h)).count();
    let (attached, seen, all) = (count(|h| h.attached), count(|h| h.seen), d.hooks.len());
    let _ = writeln!(out, "\nHooks: {attached} of {all} attached, {seen} saw the test connection");
    let good: Vec<&str> = d.hooks.iter().filter(|h| hook_state(h) == State::Ok).map(|h| h.name).collect();
    if !good.is_empty() {
        row(out, State::Ok, "", &good.join(" "));
    }
    let untried: Vec<&str> = d.hooks.iter().filter(|h| !h.attached && h.refused.is_none()).map(|h| h.name).collect();
    if !untried.is_empty() {
        row(out, State::Missing, "not attached", &untried.join(" "));
    }
    for h in d.hooks.iter().filter(|h| hook_state(h) != State::Ok) {
        if let Some(why) = &h.refused {
            row(out, hook_state(h), h.name, why);
        }
    }
}

/// A hook that was attached and has nothing to see here lacks nothing.
fn hook_state(h: &HookState) -> State {
    match (h.attached && (h.seen || h.refused.as_deref() == Some("no IPv6 here to see")), h.optional) {
        (true, _) => State::Ok,
        (false, true) => State::Limit,
        (false, false) => State::Missing,
    }
}

fn locks(out: &mut String, d: &Diagnosis) {
    let user = Untrusted::new(&d.user);
    let _ = writeln!(out, "\nLocks of an enforced command, as {user} and as root");
    let both = |row: &&super::diagnosis::LockRow| row.user.0 == State::Ok && row.root.0 == State::Ok;
    let good: Vec<&str> = d.locks.iter().filter(both).map(|row| row.name).collect();
    if !good.is_empty() {
        row(out, State::Ok, "", &good.join(" "));
    }
    // Locks that lack for one reason are one row.
    let mut rest: Vec<(Vec<&str>, State, String)> = Vec::new();
    for lock in d.locks.iter().filter(|row| !both(row)) {
        let why = |side: &(State, Option<String>)| side.1.clone().unwrap_or_else(|| "holds".into());
        let (state, why) = if lock.user == lock.root {
            (lock.user.0, why(&lock.user))
        } else {
            let worse = if lock.user.0 == State::Ok { lock.root.0 } else { lock.user.0 };
            (worse, format!("as {user}: {}; as root: {}", why(&lock.user), why(&lock.root)))
        };
        match rest.iter_mut().find(|r| r.1 == state && r.2 == why) {
            Some(row) => row.0.push(lock.name),
            None => rest.push((vec![lock.name], state, why)),
        }
    }
    for (names, state, why) in rest {
        match names.as_slice() {
            [name] => row(out, state, name, &why),
            names => {
                row(out, state, "", &names.join(" "));
                wrap(out, &format!("{:10}- ", ""), &why);
            }
        }
    }
}

fn row(out: &mut String, state: State, name: &str, found: &str) {
    let start =
        if name.is_empty() { format!("  {:8}", state.word()) } else { format!("  {:8}{name:17}", state.word()) };
    wrap(out, &start, found);
}

/// Text after a beginning, its further lines below its first.
fn wrap(out: &mut String, start: &str, text: &str) {
    let (indent, mut line, mut empty) = (start.chars().count(), start.to_owned(), true);
    for word in text.split_whitespace() {
        let word = Untrusted::new(word).to_string();
        let mut rest: Vec<char> = word.chars().collect();
        if !empty && line.chars().count() + 1 + rest.len() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            (line, empty) = (" ".repeat(indent), true);
        }
        if !empty {
            line.push(' ');
        }
        // A path may be longer than a line.
        while line.chars().count() + rest.len() > WIDTH {
            let tail = rest.split_off(WIDTH - line.chars().count());
            line.extend(&rest);
            out.push_str(&line);
            out.push('\n');
            (line, rest) = (" ".repeat(indent), tail);
        }
        line.extend(&rest);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// For programs: `trustrun.doctor/1`.
pub(super) fn json(d: &Diagnosis) -> String {
    let side = |(state, why): &(State, Option<String>)| json!({ "state": state.word(), "reason": why });
    let hook = |h: &HookState| {
        json!({
            "name": h.name, "state": hook_state(h).word(), "optional": h.optional, "attached": h.attached,
            "seen": h.seen, "reason": h.refused,
        })
    };
    let unbuilt = UNBUILT.map(|name| json!({ "name": name, "usable": false, "reason": "not built yet" }));
    let sensors = [json!({ "name": "ebpf", "usable": d.sensor.is_some(), "reason": null })];
    let whole = json!({
        "schema": "trustrun.doctor/1",
        "kernel": d.release,
        "sensor": d.sensor,
        "sensors": sensors.into_iter().chain(unbuilt).collect::<Vec<Value>>(),
        "checks": d.checks.iter().map(|c| json!({
            "name": c.name, "state": c.state.word(), "found": c.found, "todo": c.todo,
        })).collect::<Vec<_>>(),
        "hooks": d.hooks.iter().map(hook).collect::<Vec<_>>(),
        "user": d.user,
        "locks": d.locks.iter().map(|l| json!({
            "name": l.name, "closes": l.closes, "since": l.since, "user": side(&l.user), "root": side(&l.root),
        })).collect::<Vec<_>>(),
        "limits": d.limits.iter().map(|(kind, detail)| json!({ "kind": kind, "detail": detail })).collect::<Vec<_>>(),
        "assurance": d.word(),
        "reasons": d.reasons,
    });
    inert_json(format!("{whole:#}")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::{
        diagnosis::Diagnosis,
        host::{Host, Inside},
        tried::Tried,
    };
    use super::*;

    /// A host on which nothing works, with what text of others could do to a terminal.
    fn bare() -> Diagnosis {
        let inside = vec![Inside::Kubernetes, Inside::Wsl { interop: true }, Inside::Ci("a CI")];
        let host = Host { uid: 1000, release: "4.18.0-\u{1b}[2J".into(), inside, ..Host::default() };
        Diagnosis::new(&host, Tried::nothing("no\u{1b}body", &"x".repeat(300)))
    }

    #[test]
    fn a_host_without_anything_is_told_in_100_columns() {
        let text = text(&bare());
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("assurance: none: "), "{last}");
        for said in
            ["sudo trustrun doctor", "5.10 or newer", "CONFIG_DEBUG_INFO_BTF", "mount -t cgroup2", "/etc/wsl.conf"]
        {
            assert!(text.contains(said), "{said}\n{text}");
        }
    }

    #[test]
    fn programs_get_the_same() {
        let d = bare();
        let parsed: Value = serde_json::from_str(&json(&d)).unwrap();
        assert_eq!(parsed["assurance"], "none");
        assert_eq!(parsed["sensor"], Value::Null);
        assert_eq!(parsed["hooks"].as_array().unwrap().len(), 18);
        assert!(!d.enforces());
    }
}
