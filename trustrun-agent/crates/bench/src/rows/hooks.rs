//! What the hooks add to a connect and to a packet: bare, with programs that do nothing, and enforcing a policy.

use std::net::{TcpListener, UdpSocket};

use anyhow::Result;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt::RcvBufForce};
use serde_json::json;

use crate::{
    arms::{Client, Place, Policy},
    client::DATAGRAM,
    noop::Noop,
    rows::order,
    stats::Estimate,
    table::{Met, Row, show, value},
};

const ROUNDS: usize = 400;
/// Connects of a round: few enough for the listener's queue, which is emptied between rounds.
const CONNECTS: usize = 200;
/// Datagrams of a round: as many as an ordinary socket's buffer holds (208 KiB, 768 bytes for each).
const PACKETS: usize = 250;

/// One way to do something, three times: bare, no-op, trustrun. Nanoseconds.
type Rounds = Vec<[f64; 3]>;

struct Arms {
    clients: [Client; 3],
    _noop: Noop,
}

impl Arms {
    /// Asks all three in turn; nanoseconds of each answer's first number.
    fn rounds(&mut self, rounds: usize, mut one: impl FnMut(&mut Client) -> Result<f64>) -> Result<Rounds> {
        let mut out = Vec::with_capacity(rounds);
        for round in 0..rounds + 3 {
            let mut times = [0.0; 3];
            for who in order(round, 3) {
                if let (Some(client), Some(time)) = (self.clients.get_mut(who), times.get_mut(who)) {
                    *time = one(client)?;
                }
            }
            // The first ones warm caches.
            if round >= 3 {
                out.push(times);
            }
        }
        Ok(out)
    }
}

pub(crate) fn measure(place: &Place, scale: usize) -> Result<Vec<Row>> {
    let rounds = ROUNDS / scale;
    let noop = Noop::attach()?;
    let clients = [
        place.bare(None, true)?,
        place.bare(Some(&noop.cgroup), true)?,
        place.guarded(Policy::Enforcing, true, false)?,
    ];
    let mut arms = Arms { clients, _noop: noop };
    let listener = place.lab.inside(|| TcpListener::bind("127.0.0.1:0"))??;
    listen(&listener, Backlog::new(4096)?)?;
    listener.set_nonblocking(true)?;
    let to = listener.local_addr()?;
    let empty = || while listener.accept().is_ok() {};
    let outside = arms.rounds(rounds, |c| {
        let time = c.number(&format!("connect {to} {CONNECTS}"));
        empty();
        time
    })?;
    let cycle = arms.rounds(rounds / 2, |c| {
        let times = c.ask(&format!("connect {to} {CONNECTS}"))?;
        empty();
        Ok(times.get(1).copied().unwrap_or(0) as f64)
    })?;
    let inside = arms.rounds(rounds / 2, |c| c.number(&format!("connect-own {CONNECTS}")))?;

    let inbox = place.lab.inside(|| UdpSocket::bind("127.0.0.1:0"))??;
    setsockopt(&inbox, RcvBufForce, &(8 << 20))?;
    inbox.set_nonblocking(true)?;
    let to = inbox.local_addr()?;
    let empty = || while inbox.recv(&mut [0; DATAGRAM]).is_ok() {};
    let egress = arms.rounds(rounds, |c| {
        let time = c.number(&format!("send {to} {PACKETS}"));
        empty();
        time
    })?;
    let sendto = arms.rounds(rounds / 2, |c| {
        let time = c.number(&format!("sendto {to} {PACKETS}"));
        empty();
        time
    })?;
    // A client of its own, without any program, sends to the inboxes of the three.
    let mut sender = place.bare(None, true)?;
    let ingress = arms.rounds(rounds, |c| {
        let port = c.number("port")?;
        let time = sender.number(&format!("send 127.0.0.1:{port} {PACKETS}"));
        c.ask("drain")?;
        time
    })?;
    let (times, plus) = ("2x no-op + 1.00 us", 1000.0);
    Ok(vec![
        row("connect", "added to a TCP connect, to a listener outside", &outside, Some((2.0, plus, times))),
        row("connect_own", "added to a TCP connect, to the session's own listener", &inside, Some((2.0, plus, times))),
        row("connect_cycle", "  socket, connect, close together", &cycle, None),
        row("udp_egress", "added to a UDP packet, egress", &egress, Some((1.0, 150.0, "no-op + 0.15 us"))),
        row("udp_sendto", "  unconnected sendto: sendmsg and egress hooks", &sendto, None),
        row("udp_ingress", "added to a UDP packet, ingress", &ingress, Some((1.0, 60.0, "no-op + 0.06 us"))),
    ])
}

/// The bar is `factor` times what no-op programs add, `plus` nanoseconds; judged within each round.
fn row(key: &'static str, what: &str, rounds: &Rounds, bar: Option<(f64, f64, &str)>) -> Row {
    let estimate = |f: fn(&[f64; 3]) -> f64| Estimate::of(rounds.iter().map(f)).map(|ns| ns / 1000.0);
    let bare = estimate(|[bare, _, _]| *bare);
    let noop = estimate(|[bare, noop, _]| noop - bare);
    let ours = estimate(|[bare, _, ours]| ours - bare);
    let (factor, plus, words) = bar.unwrap_or((0.0, 0.0, "-"));
    let over = Estimate::of(rounds.iter().map(|[bare, noop, ours]| ours - bare - factor * (noop - bare) - plus));
    let over = over.map(|ns| ns / 1000.0);
    let sure = if bar.is_some() { Met::at_most(over, 0.0) } else { Met::None };
    Row {
        key,
        what: what.into(),
        bar: match bar {
            Some(_) => format!("{words} = {:.2} us", factor * noop.median + plus / 1000.0),
            None => "-".into(),
        },
        measured: format!("{} us; no-op {}; bare {:.2}", show(ours, 2), show(noop, 2), bare.median),
        met: sure,
        values: json!({"unit": "us", "added": value(ours), "noop": value(noop), "bare": value(bare),
            "over_bar": bar.map(|_| value(over))}),
    }
}
