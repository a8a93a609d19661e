//! A large policy: 100,000 rules of names and 100,000 of networks, read, composed and compiled, and what a decision by it
//! takes. In processor time, since it is the work of one thread, and in memory at its highest.

use std::{fmt::Write as _, fs, hint::black_box};

use anyhow::{Result, anyhow};
use serde_json::json;
use trustrun_policy::{Composer, Named, NoFiles, Policy};

use crate::{
    arms::Place,
    stats::Estimate,
    table::{Met, Row, show, value},
};

const RULES: u32 = 100_000;
const ROUNDS: usize = 12;
const DECISIONS: u32 = 200_000;

/// What one round took.
struct Round {
    check_ms: f64,
    compile_ms: f64,
    megabytes: f64,
    decide_ns: f64,
}

pub(crate) fn measure(_: &Place, scale: usize) -> Result<Vec<Row>> {
    let rounds = (ROUNDS / scale).max(6);
    let mut rows = Vec::new();
    let shapes = [("policy_each", "a rule for each", each()), ("policy_lists", "in two rules", lists())];
    for (key, shape, text) in shapes {
        let named = [Named::Text("bench.yaml".into(), text.into_bytes())];
        let rounds = (0..rounds).map(|_| round(&named)).collect::<Result<Vec<_>>>()?;
        let estimate = |f: fn(&Round) -> f64| Estimate::of(rounds.iter().map(f));
        let check = estimate(|r| r.check_ms);
        let whole = estimate(|r| r.check_ms + r.compile_ms);
        let memory = estimate(|r| r.megabytes);
        let decide = estimate(|r| r.decide_ns);
        let what = format!("100,000 names and 100,000 networks, {shape}: check and compile");
        let mut row = |what: String, bar: f64, unit: &str, e: Estimate| {
            let (bar_shown, measured) = (format!("<= {bar:.0} {unit}"), format!("{} {unit}", show(e, 0)));
            let values = json!({"unit": unit, "value": value(e), "check_ms": value(check)});
            rows.push(Row { key, what, bar: bar_shown, measured, met: Met::at_most(e, bar), values });
        };
        row(what, 1000.0, "ms", whole);
        row("  memory at its highest".into(), 200.0, "MB", memory);
        row("  deciding about a destination".into(), 200.0, "ns", decide);
    }
    Ok(rows)
}

fn name(i: u32) -> String {
    format!("host-{i}.dept-{}.example.org:443", i % 97)
}

fn network(i: u32) -> String {
    format!("10.{}.{}.{}/31", i >> 15, i >> 7 & 255, (i & 127) * 2)
}

/// A rule with a name for each of them: what takes most.
fn each() -> String {
    let mut text = "version: 1\nname: each\ndefault: block\nrules:\n".to_owned();
    for i in 0..RULES {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  - name: name {i}\n    allow: [\"{}\"]", name(i));
        let _ = writeln!(text, "  - name: network {i}\n    allow: [\"{}\"]", network(i));
    }
    text
}

fn lists() -> String {
    let list = |what: fn(u32) -> String| (0..RULES).map(|i| format!("      - \"{}\"\n", what(i))).collect::<String>();
    format!(
        "version: 1\nname: lists\ndefault: block\nrules:\n  - name: names\n    allow:\n{}  - name: networks\n    allow:\n{}",
        list(name),
        list(network)
    )
}

fn round(named: &[Named]) -> Result<Round> {
    let resident = kilobytes("VmRSS:")?;
    // From here on the highest is counted anew.
    fs::write("/proc/self/clear_refs", "5")?;
    let begun = processor_ns()?;
    let policy = Composer::new(&mut NoFiles, jiff::civil::date(2026, 11, 21)).compose(named)?;
    let checked = processor_ns()?;
    let (matcher, tables) = (policy.compile(), policy.tables()?);
    let compiled = processor_ns()?;
    let highest = kilobytes("VmHWM:")?;
    black_box(&tables);
    let decided = decide(&policy, &matcher)?;
    Ok(Round {
        check_ms: (checked - begun) / 1e6,
        compile_ms: (compiled - checked) / 1e6,
        megabytes: (highest - resident) / 1024.0,
        decide_ns: decided / f64::from(DECISIONS),
    })
}

/// Processor time of so many decisions, half of them about what no rule names.
fn decide(policy: &Policy, matcher: &trustrun_policy::Matcher) -> Result<f64> {
    let names: Vec<String> = (0..1000).map(|i| format!("host-{}.dept-{}.example.org", i * 97, i % 2)).collect();
    black_box(policy.default);
    let begun = processor_ns()?;
    for i in 0..DECISIONS {
        let address = std::net::Ipv4Addr::from_bits(0xcb00_7100 + i).into();
        let name = names[i as usize % names.len()].as_str();
        black_box(matcher.decide(Some(name), Some(address), 443, trustrun_model::Protocol::Tcp));
    }
    Ok(processor_ns()? - begun)
}

/// Processor time of this process.
fn processor_ns() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split(' ').next().ok_or_else(|| anyhow!("schedstat is empty"))?.parse()?)
}

fn kilobytes(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or_else(|| anyhow!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
