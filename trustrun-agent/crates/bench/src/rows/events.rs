//! How much the agent can take: made events at a fixed rate, and as many real connections as the processors make.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{Backlog, listen};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    arms::{Place, Policy},
    cpu,
    noop::Generator,
    table::{Met, Row},
};

const RATE: u64 = 200_000;
const SECONDS: u64 = 10;
/// Events that one packet makes.
const BURST: u64 = 200;
/// Their queues hold what comes while whoever empties them waits for a processor.
const LISTENERS: usize = 16;

pub(crate) fn measure(place: &Place, scale: usize) -> Result<Vec<Row>> {
    let seconds = (SECONDS / scale as u64).max(2);
    Ok(vec![synthetic(place, seconds)?, storm(place, seconds)?])
}

/// What a session's report says of its events.
struct Counted {
    emitted: u64,
    stored: u64,
    dropped: Value,
    gaps: Vec<String>,
}

impl Counted {
    fn of(report: &Value) -> Result<Self> {
        let counters = report.get("counters").context("no counters in the report")?;
        let number = |name: &str| counters.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
        let gaps = report.get("gaps").and_then(Value::as_array).into_iter().flatten();
        let gap = |g: &Value| format!("{} x{}", g["kind"].as_str().unwrap_or("?"), g["count"]);
        Ok(Self {
            emitted: number("emitted")?,
            stored: number("stored")?,
            dropped: counters.get("dropped").cloned().unwrap_or_default(),
            gaps: gaps.map(gap).collect(),
        })
    }

    fn lost(&self) -> u64 {
        self.dropped.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum()
    }

    fn words(&self) -> String {
        let gaps = if self.gaps.is_empty() { String::new() } else { format!("; gaps: {}", self.gaps.join(", ")) };
        let dropped = if self.lost() == 0 { "nothing dropped".into() } else { format!("dropped {}", self.dropped) };
        format!("{} events, {dropped}{gaps}", self.emitted)
    }
}

fn row(key: &'static str, what: String, measured: String, share: f64, counted: &Counted, extra: Value) -> Row {
    let met =
        if counted.lost() == 0 && counted.stored == counted.emitted && share <= 100.0 { Met::Yes } else { Met::No };
    Row {
        key,
        what,
        bar: "nothing dropped, <= 100 % of a core".into(),
        measured: format!("{measured}; agent {share:.0} % of a core; {}", counted.words()),
        met,
        values: json!({"agent_percent": share, "emitted": counted.emitted, "stored": counted.stored,
            "dropped": counted.dropped, "gaps": counted.gaps, "rate": extra}),
    }
}

/// A kernel program makes the events, so that they take the whole road: ring, engine, store.
fn synthetic(place: &Place, seconds: u64) -> Result<Row> {
    let mut client = place.guarded(Policy::None, true, true)?;
    let agent = Agent::of(client.pid())?;
    let tgid = u32::try_from(client.ask("pid")?.first().copied().context("no pid")?)?;
    let mut generator = Generator::start(agent.map("EVENTS")?, agent.map("COUNTERS")?, tgid)?;
    let (begun, before) = (Instant::now(), agent.cpu()?);
    let (mut made, total) = (0, RATE * seconds);
    while made < total {
        let due = (begun.elapsed().as_secs_f64() * RATE as f64) as u64;
        while made + BURST <= due.min(total) {
            generator.make(made, BURST)?;
            made += BURST;
        }
        thread::sleep(Duration::from_micros(500));
    }
    let took = begun.elapsed().as_secs_f64();
    // What it still has to do belongs to it.
    thread::sleep(Duration::from_millis(500));
    let share = (agent.cpu()? - before) / 1e9 / took * 100.0;
    drop(generator);
    let counted = Counted::of(&client.end()?)?;
    ensure!(counted.emitted >= total, "{} events were made, {} counted", total, counted.emitted);
    let rate = made as f64 / took;
    let what = format!("{RATE} synthetic events/s for {seconds} s, through ring, engine and store");
    Ok(row("synthetic", what, format!("{:.0} events/s", rate), share, &counted, json!({"events_per_second": rate})))
}

/// A thread on each processor connects, and resets, as fast as it can, under an enforcing policy.
fn storm(place: &Place, seconds: u64) -> Result<Row> {
    let listeners: Vec<TcpListener> =
        place.lab.inside(|| (0..LISTENERS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>())??;
    let mut ports = Vec::new();
    for listener in &listeners {
        listen(listener, Backlog::new(4096)?)?;
        listener.set_nonblocking(true)?;
        ports.push(listener.local_addr()?.port().to_string());
    }
    let order = format!("storm {} {seconds}", ports.join(","));
    let stop = AtomicBool::new(false);
    let empty = || {
        while !stop.load(Ordering::Relaxed) {
            listeners.iter().for_each(|l| while l.accept().is_ok() {});
            thread::sleep(Duration::from_millis(1));
        }
    };
    let work = || -> Result<(f64, f64, f64, Counted)> {
        let mut bare = place.bare(None, false)?;
        let alone = bare.number(&order)? / seconds as f64;
        bare.end()?;
        let mut client = place.guarded(Policy::Enforcing, false, true)?;
        let agent = Agent::of(client.pid())?;
        let (begun, before) = (Instant::now(), agent.cpu()?);
        let rate = client.number(&order)? / seconds as f64;
        let took = begun.elapsed().as_secs_f64();
        thread::sleep(Duration::from_millis(500));
        let share = (agent.cpu()? - before) / 1e9 / took * 100.0;
        Ok((alone, rate, share, Counted::of(&client.end()?)?))
    };
    let (alone, rate, share, counted) = thread::scope(|scope| {
        scope.spawn(|| cpu::anywhere(empty));
        let out = cpu::anywhere(work);
        stop.store(true, Ordering::Relaxed);
        out
    })??;
    let what = format!("connects as fast as {} processors make them, for {seconds} s", cpu::count());
    let measured = format!("{rate:.0} connects/s (bare: {alone:.0})");
    Ok(row("storm", what, measured, share, &counted, json!({"connects_per_second": rate, "bare": alone})))
}
