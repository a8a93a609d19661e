//! How long 100,000 rules take, and how much memory: `cargo run --release -p trustrun-policy --example scale`. The bar is
//! that of issue 4: 100,000 rules of names and 100,000 networks checked, composed and compiled within 1 s and 200 MB.

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use jiff::civil::date;
use trustrun_model::Protocol;
use trustrun_policy::{Composer, Named, NoFiles, Policy};

const RULES: u32 = 100_000;

fn main() {
    let (mut each, mut lists) = ("version: 1\ndefault: block\nrules:\n".to_owned(), String::new());
    let mut networks = String::new();
    for i in 0..RULES {
        let name = format!("host-{i}.dept-{}.example.org:443", i % 97);
        let network = format!("10.{}.{}.{}/31", i >> 15, i >> 7 & 255, (i & 127) * 2);
        let _ = writeln!(each, "  - name: rule number {i}\n    allow: [\"{name}\"]");
        let _ = writeln!(each, "  - name: network {i}\n    allow: [\"{network}\"]");
        let _ = writeln!(lists, "      - \"{name}\"");
        let _ = writeln!(networks, "      - \"{network}\"");
    }
    let head = "version: 1\ndefault: block\nrules:\n";
    let lists = format!("{head}  - name: names\n    allow:\n{lists}  - name: networks\n    allow:\n{networks}");
    composed("two rules", lists);
    composed("a rule for each", each);
    let head = "version: 1\nname: scale\ndefault: block\nrules:\n";
    let mut separate = head.to_owned();
    let mut one = format!("{head}  - name: all\n    allow:\n");
    let mut mixed = format!("{head}  - kill: [\":25\", \"*.evil.example:1-1000\", \"10.0.0.0/8:22\"]\n");
    for i in 0..RULES {
        let _ =
            writeln!(separate, "  - name: rule number {i}\n    allow: [\"host-{i}.dept-{}.example.org:443\"]", i % 97);
        let _ = writeln!(one, "      - \"host-{i}.dept-{}.example.org:443\"", i % 97);
        let _ = match i % 3 {
            0 => writeln!(mixed, "  - block: [\"*.h{i}.example:8000-8100\"]"),
            1 => writeln!(mixed, "  - allow: [\"10.{}.{}.0/24\"]", i / 256 % 256, i % 256),
            _ => writeln!(mixed, "  - alert: [\"udp/h{i}.evil.example:53\"]"),
        };
    }
    for (name, text) in [("in one rule", one), ("in separate rules", separate), ("mixed", mixed)] {
        measure(name, &text);
    }
}

/// The bar; a rule with a name for each is what takes most.
fn composed(shape: &str, text: String) {
    let octets = text.len();
    let named = [Named::Text("scale.yaml".into(), text.into_bytes())];
    // From here on the highest is counted anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = peak();
    let start = cpu();
    let policy = match Composer::new(&mut NoFiles, date(2026, 11, 21)).compose(&named) {
        Ok(policy) => policy,
        Err(error) => return println!("composed: {error}"),
    };
    let composed = cpu();
    let after = peak();
    drop(named);
    let matcher = policy.compile();
    let compiled = cpu();
    let tables = policy.tables().map_or(0, |tables| tables.ports.len());
    let tabled = cpu();
    black_box(&matcher);
    println!(
        "{shape}: {octets} octets, {} rules, canonical {} octets; read, composed, written, read again {:?}, compile {:?}, tables \
         {:?} ({tables} ports), of processor time; peak {before} kB before, {after} kB composed, {} kB in all",
        policy.rules.len(),
        policy.canonical.len(),
        composed - start,
        compiled - composed,
        tabled - compiled,
        peak(),
    );
}

/// Processor time of the process so far: what else the machine does is not in it.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Most memory that the process ever had, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn measure(name: &str, text: &str) {
    let start = Instant::now();
    let policy = match Policy::parse("scale.yaml", text.as_bytes()) {
        Ok(policy) => policy,
        Err(error) => return println!("{name}: {error}"),
    };
    let parsed = start.elapsed();
    let start = Instant::now();
    let matcher = policy.compile();
    let compiled = start.elapsed();
    let start = Instant::now();
    let tables = match policy.tables() {
        Ok(tables) => tables,
        Err(error) => return println!("{name}: {error}"),
    };
    let tabled = start.elapsed();
    let start = Instant::now();
    let rounds = 1_000_000;
    for i in 0..rounds {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into();
        black_box(matcher.decide(Some("host-5000.dept-53.example.org"), Some(address), 443, Protocol::Tcp));
    }
    println!(
        "{name}: {} octets; parse {parsed:?}, compile {compiled:?}, tables {tabled:?} ({} names, {} nets, {} ports); \
         decide {:?}",
        text.len(),
        tables.names.len(),
        tables.nets.len(),
        tables.ports.len(),
        start.elapsed() / rounds
    );
}
