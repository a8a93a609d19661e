//! How long explaining and comparing take at 100,000 rules: `cargo run --release -p trustrun-policy --example tools`.

use std::{
    error::Error,
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use jiff::civil::date;
use trustrun_policy::{Destination, Policy, Who};

const RULES: u32 = 100_000;
/// Of so many, the middle one is told.
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let before = policy(RULES, "")?;
    let one = policy(RULES, "  - {name: new, block: [\"*.dept-7.example.org\"]}\n")?;
    let net = policy(RULES, "  - {name: new, block: [\"10.0.0.0/8\"]}\n")?;
    let half = policy(RULES / 2, "")?;
    let destination: Destination = "host-5000.dept-53.example.org:443".parse()?;
    let day = date(2026, 11, 21);
    println!("explain: {:?}", middle(|| drop(black_box(before.explain(&destination, &Who::default(), day)))));
    for (name, after) in [("one wildcard more", &one), ("one network more", &net), ("half of them gone", &half)] {
        let rows = before.compare(after).rows.len();
        println!("diff, {name}: {:?} ({rows} rows)", middle(|| drop(black_box(before.compare(after)))));
    }
    Ok(())
}

fn policy(rules: u32, more: &str) -> Result<Policy, Box<dyn Error>> {
    let mut text = "version: 1\nname: scale\ndefault: block\nrules:\n".to_owned();
    for i in 0..rules {
        match i % 4 {
            0 => writeln!(text, "  - {{name: rule {i}, allow: [\"10.{}.{}.0/24\"]}}", i / 256 % 256, i % 256)?,
            _ => writeln!(text, "  - {{name: rule {i}, allow: [\"host-{i}.dept-{}.example.org:443\"]}}", i % 97)?,
        }
    }
    text.push_str(more);
    Ok(Policy::parse("scale.yaml", text.as_bytes())?)
}

fn middle(run: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}
