//! Throughput: a large transfer, and many small requests, against the bare speed of the same client.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    arms::{Client, Place, Policy},
    noop::Noop,
    rows::order,
    stats::Estimate,
    table::{Met, Row, show, value},
};

const GIGABYTE: u64 = 1_000_000_000;
const TRANSFERS: usize = 24;
/// Ten rounds of a thousand are the ten thousand requests.
const REQUESTS: usize = 1_000;
const REQUEST_ROUNDS: usize = 10;
const HOST: &str = "api.allowed.test";

pub(crate) fn measure(place: &Place, scale: usize) -> Result<Vec<Row>> {
    let listener = place.lab.inside(|| TcpListener::bind("127.0.0.1:0"))??;
    let to = listener.local_addr()?;
    thread::spawn(move || serve(&listener));
    let noop = Noop::attach()?;
    let mut clients =
        [place.bare(None, true)?, place.bare(Some(&noop.cgroup), true)?, place.guarded(Policy::Enforcing, true, true)?];
    let bytes = GIGABYTE / scale as u64;
    let mut compare = |key, what: &str, bar: Option<f64>, rounds, asked: &str| {
        let rounds = rounds_of(&mut clients, rounds, asked)?;
        anyhow::Ok(row(key, what, bar, &rounds))
    };
    let requests = REQUESTS / scale;
    Ok(vec![
        compare("transfer_in", "1 GB received on loopback", Some(0.97), TRANSFERS, &format!("get {to} {bytes}"))?,
        compare("transfer_out", "1 GB sent on loopback", Some(0.97), TRANSFERS, &format!("put {to} {bytes}"))?,
        compare(
            "https",
            "10,000 small HTTPS requests, each on a new connection",
            Some(0.95),
            REQUEST_ROUNDS,
            &format!("https {HOST} {requests}"),
        )?,
        compare(
            "https_kept",
            "  the same on a connection that is kept",
            None,
            REQUEST_ROUNDS,
            &format!("https-kept {HOST} {requests}"),
        )?,
    ])
}

fn rounds_of(clients: &mut [Client; 3], rounds: usize, asked: &str) -> Result<Vec<[f64; 3]>> {
    let mut out = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let mut times = [0.0; 3];
        for who in order(round, 3) {
            if let (Some(client), Some(time)) = (clients.get_mut(who), times.get_mut(who)) {
                *time = client.number(asked)?;
            }
        }
        if round > 0 {
            out.push(times);
        }
    }
    Ok(out)
}

fn row(key: &'static str, what: &str, bar: Option<f64>, rounds: &[[f64; 3]]) -> Row {
    let ours = Estimate::of(rounds.iter().map(|[bare, _, ours]| bare / ours));
    let noop = Estimate::of(rounds.iter().map(|[bare, noop, _]| bare / noop));
    let seconds = Estimate::of(rounds.iter().map(|[bare, _, _]| bare / 1e9));
    let percent = |e: Estimate| show(e.map(|v| v * 100.0), 1);
    Row {
        key,
        what: what.into(),
        bar: bar.map_or("-".into(), |b| format!(">= {:.0} % of bare", b * 100.0)),
        measured: format!("{} %; no-op {} %; bare {:.3} s", percent(ours), percent(noop), seconds.median),
        met: bar.map_or(Met::None, |b| Met::at_least(ours, b)),
        values: json!({"unit": "of the bare speed", "speed": value(ours), "noop": value(noop),
            "bare_seconds": value(seconds)}),
    }
}

/// Sends and takes what clients want, one after another.
fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        // A client that went away will say so itself.
        let _ = one(stream);
    }
}

fn one(mut stream: TcpStream) -> Result<()> {
    let mut order = [0; 9];
    stream.read_exact(&mut order)?;
    let [what, bytes @ ..] = order;
    let mut left = u64::from_be_bytes(bytes);
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).context("the buffer")?;
        let n = if what == b'g' { stream.write(part)? } else { stream.read(part)? };
        anyhow::ensure!(n > 0, "it broke off");
        left -= n as u64;
    }
    if what == b'p' {
        stream.write_all(&[0])?;
    }
    Ok(())
}
