//! `trustrun run -- true` over bare `true`, and what of it is loading the kernel programs.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};
use serde_json::json;
use trustrun_guard::{Loaded, Sizes};

use crate::{
    arms::Place,
    cpu,
    rows::order,
    stats::Estimate,
    table::{Met, Row, show, value},
};

const ROUNDS: usize = 40;
/// As `trustrun run` has it.
const RING: u32 = 64 << 20;

pub(crate) fn measure(place: &Place, scale: usize) -> Result<Vec<Row>> {
    let rounds = cpu::anywhere(|| rounds(place, (ROUNDS / scale).max(6)))??;
    let estimate = |f: fn(&[f64; 3]) -> f64| Estimate::of(rounds.iter().map(f)).map(|s| s * 1000.0);
    let bare = estimate(|[bare, _, _]| *bare);
    let total = estimate(|[bare, run, _]| run - bare);
    let load = estimate(|[_, _, load]| *load);
    let rest = estimate(|[bare, run, load]| run - bare - load);
    let row = |key, what: &str, bar: Option<f64>, e: Estimate| Row {
        key,
        what: what.into(),
        bar: bar.map_or("-".into(), |b| format!("<= {b:.0} ms")),
        measured: format!("{} ms", show(e, 1)),
        met: bar.map_or(Met::None, |b| Met::at_most(e, b)),
        values: json!({"unit": "ms", "value": value(e), "bare": value(bare)}),
    };
    Ok(vec![
        row("start_load", "`trustrun run -- true`: loading programs (the same, in this process)", Some(150.0), load),
        row("start_rest", "`trustrun run -- true` over bare `true`, besides loading", Some(60.0), rest),
        row("start_total", "  together", None, total),
    ])
}

/// Seconds: bare, under trustrun, loading alone.
fn rounds(place: &Place, rounds: usize) -> Result<Vec<[f64; 3]>> {
    let timed = |mut command: Command| -> Result<f64> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = command.status()?;
        let took = begun.elapsed();
        ensure!(status.success(), "{command:?}: {status}");
        Ok(took.as_secs_f64())
    };
    let mut out = Vec::new();
    for round in 0..=rounds {
        let mut times = [0.0; 3];
        for way in order(round, 3) {
            let time = match way {
                0 => timed(Command::new("true"))?,
                1 => timed(place.trustrun(&["true"]))?,
                _ => {
                    let begun = Instant::now();
                    let loaded = Loaded::load(None, &Sizes { ring_bytes: RING, tables: Vec::new() })?;
                    let took = begun.elapsed().as_secs_f64();
                    drop(loaded);
                    took
                }
            };
            if let Some(slot) = times.get_mut(way) {
                *slot = time;
            }
        }
        if round > 0 {
            out.push(times);
        }
    }
    Ok(out)
}
