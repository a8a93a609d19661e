//! What the agent uses while its command does nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use crate::{
    agent::Agent,
    arms::{Place, Policy},
    stats::Estimate,
    table::{Met, Row, show, value},
};

const SECONDS: usize = 20;

pub(crate) fn measure(place: &Place, scale: usize) -> Result<Vec<Row>> {
    let client = place.guarded(Policy::Enforcing, true, true)?;
    let agent = Agent::of(client.pid())?;
    thread::sleep(Duration::from_secs(1));
    let mut shares = Vec::new();
    for _ in 0..(SECONDS / scale).max(6) {
        let (begun, before) = (Instant::now(), agent.cpu()?);
        thread::sleep(Duration::from_secs(1));
        shares.push((agent.cpu()? - before) / begun.elapsed().as_nanos() as f64 * 100.0);
    }
    let (once, added) = agent.resident()?;
    client.end()?;
    let share = Estimate::of(shares);
    let mb = |bytes: f64| bytes / 1e6;
    Ok(vec![
        Row {
            key: "idle_cpu",
            what: "agent idle: processor (all three processes)".into(),
            bar: "< 0.5 % of a core".into(),
            measured: format!("{} %", show(share, 3)),
            met: Met::at_most(share, 0.5),
            values: json!({"unit": "% of a core", "value": value(share)}),
        },
        Row {
            key: "idle_memory",
            what: "agent idle: resident, besides the mapped ring".into(),
            bar: "< 30 MB".into(),
            measured: format!("{:.1} MB (Pss; Rss of the three added up: {:.1} MB)", mb(once), mb(added)),
            met: if mb(once) < 30.0 { Met::Yes } else { Met::No },
            values: json!({"unit": "MB", "pss": mb(once), "rss_sum": mb(added)}),
        },
    ])
}
