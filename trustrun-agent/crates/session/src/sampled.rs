//! A session of a sensor that polls: looks at the socket table until it is told to stop, and makes the same report.
//!
//! There is no guard: nothing is refused, nothing needs privilege. What lives and dies between two looks is not seen, and
//! the report says how far apart they were, and how many connections there were in all in that network namespace.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use trustrun_model::{Action, Direction, Fact, Observation, Protocol, Report};
use trustrun_observe::{
    Clock,
    sockets::{Changes, Look},
};

use crate::{Engine, Facts, Final, Judge, Outputs, record::Recorder};

/// What looks at the table.
pub trait Source {
    /// The target now; none when it has ended.
    fn look(&mut self) -> Option<Look>;
    /// Lines of the table that could not be read, so far.
    fn unreadable(&self) -> usize;
    /// TCP connections that were opened so far in the target's network namespaces, by whomever; none where nobody counts.
    fn opened_by_all(&mut self) -> Option<u64>;
}

/// Looks are at least this far apart.
const SHORTEST: Duration = Duration::from_millis(20);
/// And at most so far.
const LONGEST: Duration = Duration::from_secs(1);
/// A look may take this share of the time: 1 / 60 of a processor.
const SHARE: u32 = 60;

/// A session that polls.
#[derive(Debug)]
pub struct Sampling<'a> {
    engine: Engine,
    recorder: Recorder,
    facts: &'a Facts,
    clock: Clock,
    changes: Changes,
    received: u64,
    looks: u64,
    last: Option<Instant>,
    /// The longest time between two looks.
    apart: Duration,
    /// Connections of everybody at the first look.
    before: Option<u64>,
    /// Processes whose sockets may not be read.
    blind: HashSet<u32>,
    news: Vec<News>,
    told: HashSet<(Option<String>, SocketAddr, Protocol, Action)>,
}

/// A destination that was not seen before in this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What the policy says about it; none without a policy.
    pub action: Option<Action>,
    /// Its name, where it is known.
    pub host: Option<String>,
    /// The other end.
    pub peer: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub direction: Direction,
    /// The rule.
    pub rule: String,
    /// Whose it is: the file name of its executable and its number.
    pub process: Option<(String, u32)>,
}

/// Most destinations that are remembered as told; beyond, each connection is news.
const MOST_TOLD: usize = 100_000;

impl<'a> Sampling<'a> {
    /// A session that has not looked yet.
    #[must_use]
    pub fn new(judge: Judge, facts: &'a Facts, outputs: Outputs) -> Self {
        Self {
            engine: Engine::new(judge),
            recorder: Recorder::new(outputs, &facts.id),
            facts,
            clock: Clock::new(),
            changes: Changes::default(),
            received: 0,
            looks: 0,
            last: None,
            apart: Duration::ZERO,
            before: None,
            blind: HashSet::new(),
            news: Vec::new(),
            told: HashSet::new(),
        }
    }

    /// Looks once; whether the target is still there, and how long to wait before the next look.
    pub fn look(&mut self, source: &mut dyn Source) -> Option<Duration> {
        if self.looks == 0 {
            self.before = source.opened_by_all();
        }
        let begun = Instant::now();
        let look = source.look()?;
        self.looks += 1;
        if let Some(last) = self.last.replace(begun) {
            self.apart = self.apart.max(begun - last);
        }
        for (tgid, why) in &look.blind {
            if self.blind.insert(*tgid) {
                let ledger = &mut self.engine.ledger;
                ledger.gap("process-unreadable", 1, || format!("the sockets of process {tgid} may not be read: {why}"));
            }
        }
        let at = self.clock.now();
        let told = self.changes.since(look, at);
        self.take(&told);
        Some((begun.elapsed() * SHARE).clamp(SHORTEST, LONGEST))
    }

    /// Destinations that were seen for the first time since this was last asked.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn take(&mut self, told: &[Observation]) {
        for observation in told {
            // Nothing can be refused here, so nothing is to be done about it.
            let _ = self.engine.observe(observation);
            self.received += 1;
            if let Fact::Opened { flow, .. } = &observation.fact
                && let Some(news) = self.engine.news(flow)
                && (self.told.len() >= MOST_TOLD
                    || self.told.insert((
                        news.host.clone(),
                        news.peer,
                        news.protocol,
                        news.action.unwrap_or(Action::Allow),
                    )))
            {
                self.news.push(news);
            }
            self.recorder.record(observation, &self.engine);
        }
        self.recorder.flush();
    }

    /// Ends the session and writes the report.
    ///
    /// # Errors
    /// If the report's file cannot be written.
    pub fn finish(mut self, source: &mut dyn Source) -> std::io::Result<Report> {
        let at = self.clock.now();
        let told = self.changes.close(at);
        self.take(&told);
        self.gaps(source);
        let stored = self.recorder.settle(&mut self.engine);
        let last = Final { stored: stored.stored, dropped: stored.dropped, ..Final::without_kernel(self.received, at) };
        let report = self.engine.finish(self.facts, &last);
        self.recorder.report(&report, at.wall_ns)?;
        Ok(report)
    }

    /// What polling may have missed.
    fn gaps(&mut self, source: &mut dyn Source) {
        let all = self.before.zip(source.opened_by_all()).map(|(before, now)| now.saturating_sub(before));
        let seen = self.changes.opened_tcp;
        let (looks, apart) = (self.looks, self.apart.as_millis());
        let ledger = &mut self.engine.ledger;
        ledger.gap("sampled", 1, || {
            let most = all.map_or_else(String::new, |all| {
                format!(
                    "; {all} TCP connections were opened meanwhile by all programs of its network, {seen} of which were \
                     seen to be the target's, so at most {} were missed",
                    all.saturating_sub(seen)
                )
            });
            format!("the socket table was looked at {looks} times, at most {apart} ms apart: what was shorter may be missed{most}")
        });
        let peers = self.changes.unconnected_seen;
        if peers > 0 {
            ledger.gap("udp-peers-unseen", peers, || {
                "UDP sockets without a peer: whom they send to is not in the socket table".into()
            });
        }
        let lines = source.unreadable() as u64;
        if lines > 0 {
            ledger.gap("table-unreadable", lines, || "lines of the socket table that could not be read".into());
        }
    }
}
