//! The loop of the engine process: ring buffer in; store, event lines and orders to the guard out.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, mpsc::Receiver},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, SockaddrIn, SockaddrIn6, sendto},
};
use trustrun_common::counter;
use trustrun_guard::{Changed, EngineLink, GuardError, Note, Order, locks::Held};
use trustrun_model::Observation;
use trustrun_observe::{Clock, decode};

use crate::{
    Engine, Facts, Final, Judge, LostHook, Outputs, Reaction, negative,
    record::{Recorder, Stored},
    settle::{Counts, Readings, settle},
    tcp_resolver::{self, Lookup},
};

/// Most records that are taken before the guard is listened to again.
const BATCH: usize = 4096;
/// Why the engine could not make its report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guard is gone: nobody can tell what the kernel counted.
    #[error("the guard ended before the session did")]
    GuardLost,
    /// The guard could not be told.
    #[error("telling the guard: {0}")]
    Tell(#[source] std::io::Error),
    /// The report could not be written.
    #[error("writing the report: {0}")]
    Report(#[source] std::io::Error),
    /// Privileges could not be dropped.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

struct Runner<'a> {
    engine: Engine,
    /// From the resolver for DNS over TCP.
    lookups: Option<Receiver<Lookup>>,
    /// Those that wait for their place between the ring's events.
    waiting: VecDeque<Lookup>,
    link: EngineLink,
    recorder: Recorder,
    facts: &'a Facts,
    clock: Clock,
    received: u64,
    /// Events that no sensor sent: the resolver's lookups.
    own: u64,
    undecoded: u64,
    held: Held,
}

/// Runs the session until the guard says that it is over, and writes the report.
///
/// # Errors
/// If the guard is lost or the report cannot be written.
pub fn run(mut link: EngineLink, mut judge: Judge, facts: &Facts, outputs: Outputs) -> Result<(), RunError> {
    judge.cgroup.clone_from(&link.cgroup);
    link.guard.order(Order::Ready).map_err(RunError::Tell)?;
    let clock = Clock::new();
    let lookups = resolver(&mut link, &judge, clock)?;
    let mut runner = Runner {
        engine: Engine::new(judge),
        lookups,
        waiting: VecDeque::new(),
        link,
        recorder: Recorder::new(outputs, &facts.id),
        facts,
        clock,
        received: 0,
        own: 0,
        undecoded: 0,
        held: Held::default(),
    };
    let told = runner.until_finished()?;
    runner.finish(told)
}

/// Starts the resolver for DNS over TCP, where there is a policy to judge by.
fn resolver(link: &mut EngineLink, judge: &Judge, clock: Clock) -> Result<Option<Receiver<Lookup>>, RunError> {
    let Some(policy) = &judge.policy else { return Ok(None) };
    let binder = link.binder.take().ok_or(RunError::GuardLost)?;
    let listeners = std::mem::take(&mut link.dns);
    Ok(Some(tcp_resolver::serve(listeners, Arc::clone(policy), judge, binder, clock)))
}

/// What the guard told.
struct Told {
    counters: [u64; counter::COUNT as usize],
    status: Option<i32>,
    leftovers: Vec<u32>,
    lost_hooks: Vec<LostHook>,
    changed: Vec<Changed>,
}

impl Readings for Runner<'_> {
    fn take_out(&mut self) -> u64 {
        self.drain_all();
        self.received
    }

    fn count(&mut self) -> Option<Counts> {
        self.link.guard.order(Order::Count).ok()?;
        // It has said everything else by now.
        match self.link.guard.receive() {
            Some(Note::Counters(counters)) => Some(counters),
            _ => None,
        }
    }
}

impl Runner<'_> {
    fn until_finished(&mut self) -> Result<Told, RunError> {
        let mut told = Told {
            counters: [0; counter::COUNT as usize],
            status: None,
            leftovers: Vec::new(),
            lost_hooks: Vec::new(),
            changed: Vec::new(),
        };
        let mut busy = false;
        loop {
            self.wait(busy);
            busy = self.drain() > 0;
            self.recorder.flush();
            loop {
                match self.link.guard.try_receive() {
                    Ok(Some(Note::Counters(c))) => told.counters = c,
                    Ok(Some(Note::Leftover { tgid })) => told.leftovers.push(tgid),
                    Ok(Some(Note::HookLost { hook })) => {
                        told.lost_hooks.push(LostHook { hook, noticed_ns: self.clock.now().wall_ns });
                    }
                    Ok(Some(Note::Changed(c))) => told.changed.push(c),
                    Ok(Some(Note::Locked { held })) => self.held = Held::known(held),
                    Ok(Some(Note::Final(f))) => {
                        // What was told about this connection before must be folded first.
                        self.drain_all();
                        let now = self.clock.now();
                        self.engine.closed(f.flow, f.peer, f.sent, f.received, now);
                    }
                    Ok(Some(Note::Finish { status })) => {
                        told.counters = settle(self, told.counters);
                        told.status = status;
                        return Ok(told);
                    }
                    Ok(Some(Note::Go | Note::Done { .. })) => {}
                    Ok(None) => break,
                    Err(_) => return Err(RunError::GuardLost),
                }
            }
        }
    }

    /// Waits for events or the guard. While events come, it lets them gather for a millisecond: waking for each one
    /// costs both sides more than reading it. The kernel
    /// programs wake it for what it may have to act on only (`emit::wake`).
    fn wait(&self, busy: bool) {
        let guard = PollFd::new(self.link.guard.as_fd(), PollFlags::POLLIN);
        if busy {
            let _ = poll(&mut [guard], PollTimeout::from(1u8));
        } else {
            let ring = PollFd::new(self.link.ring.as_fd(), PollFlags::POLLIN);
            let _ = poll(&mut [guard, ring], PollTimeout::from(50u8));
        }
    }

    fn drain_all(&mut self) {
        while self.drain() > 0 {}
        self.recorder.flush();
    }

    fn drain(&mut self) -> usize {
        let mut records: Vec<Result<Observation, _>> = Vec::new();
        let clock = self.clock;
        // What the resolver told before the ring is read here, the ring's events before it are read with it; what it
        // told since may still wait for its connection's event.
        self.hear();
        let before = self.waiting.len();
        let n = self.link.ring.drain(BATCH, |bytes| records.push(decode(bytes, &clock)));
        self.hear();
        let mut told = 0;
        for record in records {
            self.received += 1;
            match record {
                Ok(o) => {
                    while let Some(l) = self.waiting.pop_front_if(|l| l.at < o.at) {
                        self.look_up(&l);
                        told += 1;
                    }
                    self.take(&o);
                }
                Err(_) => self.undecoded += 1,
            }
        }
        if n < BATCH {
            for l in self.waiting.drain(..before.saturating_sub(told)).collect::<Vec<_>>() {
                self.look_up(&l);
            }
        }
        n
    }

    fn hear(&mut self) {
        if let Some(lookups) = &self.lookups {
            self.waiting.extend(lookups.try_iter());
        }
    }

    fn look_up(&mut self, l: &Lookup) {
        for o in self.engine.looked_up(l.at, l.client, &l.query, l.answer.as_deref()) {
            self.own += 1;
            self.recorder.record(&o, &self.engine);
        }
    }

    fn take(&mut self, o: &Observation) {
        let reaction = self.engine.observe(o);
        if let Some(r) = reaction {
            self.react(r);
        }
        self.recorder.record(o, &self.engine);
    }

    fn react(&mut self, reaction: Reaction) {
        match reaction {
            Reaction::Kill => drop(self.link.guard.order(Order::Kill)),
            Reaction::End { tgid } => drop(self.link.guard.order(Order::End { tgid })),
            Reaction::Destroy { flow, local, peer } => {
                drop(self.link.guard.order(Order::Destroy { flow, local, peer }));
            }
            Reaction::Answer { client, server, message } => {
                if !negative::awaited(client) {
                    return;
                }
                let Some(packet) = negative::datagram(server, client, &message) else { return };
                let [v4, v6] = &self.link.raw;
                // Best effort: a client that ignores the EPERM of its own send waits for its timeout otherwise.
                match client {
                    std::net::SocketAddr::V4(a) => {
                        let fd = v4.as_ref();
                        let _ = fd.map(|fd| sendto(fd.as_raw_fd(), &packet, &SockaddrIn::from(a), MsgFlags::empty()));
                    }
                    std::net::SocketAddr::V6(mut a) => {
                        a.set_port(0); // EINVAL for a raw socket otherwise
                        let fd = v6.as_ref();
                        let _ = fd.map(|fd| sendto(fd.as_raw_fd(), &packet, &SockaddrIn6::from(a), MsgFlags::empty()));
                    }
                }
            }
        }
    }

    fn finish(mut self, told: Told) -> Result<(), RunError> {
        let Stored { stored, dropped } = self.recorder.settle(&mut self.engine);
        let last = Final {
            watched: true,
            status: told.status,
            counters: told.counters,
            received: self.received,
            own: self.own,
            undecoded: self.undecoded,
            stored,
            dropped,
            leftovers: told.leftovers,
            lost_hooks: told.lost_hooks,
            changed: told.changed,
            held: self.held,
            unix: self.link.unix,
            border: self.link.border,
            packets: self.link.packets,
            attached_ns: self.link.attached_ns,
            no_scope: self.link.no_scope.take(),
            at: self.clock.now(),
        };
        let report = self.engine.finish(self.facts, &last);
        self.recorder.report(&report, last.at.wall_ns).map_err(RunError::Report)
    }
}
