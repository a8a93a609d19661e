//! The lab's threads: started on demand inside the network namespace, bounded, and joined at the end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::probes::Probes;
use crate::net::NetNs;

/// At most so many connections are worked on at once.
const MAX_WORKERS: usize = 384;
/// At most so many more wait for a worker; further ones wait in the kernel's backlog.
const MAX_WAITING: usize = 1024;
/// Workers need little: the largest buffers are on the heap.
const STACK: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A lock whose owner panicked is still a lock: a test's report must not die of another thread's failure.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of the lab, as its threads see it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    state: Mutex<Sockets>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Sockets {
    stopped: bool,
    next: u64,
    open: HashMap<u64, Weak<TcpStream>>,
}

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Waits for so long, or until the end. True when the time passed.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = lock(&self.state);
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Makes sure that the end reaches whoever reads from `stream`. Gives a ticket for [`Stop::forget`].
    pub(crate) fn watch(&self, stream: &Arc<TcpStream>) -> u64 {
        let mut state = lock(&self.state);
        state.next += 1;
        let ticket = state.next;
        state.open.insert(ticket, Arc::downgrade(stream));
        if state.stopped {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        ticket
    }

    pub(crate) fn forget(&self, ticket: u64) {
        lock(&self.state).open.remove(&ticket);
    }

    fn set(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        for stream in state.open.values().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.changed.notify_all();
    }
}

/// Threads inside the lab's network namespace.
pub(crate) struct Pool {
    netns: NetNs,
    stop: Arc<Stop>,
    probes: Arc<Probes>,
    queue: Arc<Queue>,
    /// Wakes a thread that waits for the network: shutting a listening socket down ends its accept.
    wakers: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    idle: usize,
    workers: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(netns: NetNs) -> Self {
        Self { netns, stop: Arc::default(), probes: Arc::default(), queue: Arc::default(), wakers: Mutex::default() }
    }

    pub(crate) fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    pub(crate) fn probes(&self) -> Arc<Probes> {
        Arc::clone(&self.probes)
    }

    /// Starts a thread of its own for `work`, which `wake` must bring to an end.
    pub(crate) fn dedicate(
        &self,
        name: &str,
        wake: impl Fn() + Send + 'static,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = self.thread(name, work)?;
        lock(&self.wakers).push(Box::new(wake));
        lock(&self.queue.state).threads.push(thread);
        Ok(())
    }

    /// Has a worker do `job`, waiting for room where there is none. Dropped when the lab has ended.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.queue.state);
        while state.jobs.len() >= MAX_WAITING && !state.closed {
            state = self.queue.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() > state.idle && state.workers < MAX_WORKERS {
            let queue = Arc::clone(&self.queue);
            // Where no thread can be had, the present ones get to the job in the end.
            if let Ok(thread) = self.thread("lab-worker", move || work(&queue)) {
                state.workers += 1;
                state.threads.push(thread);
            }
        }
        self.queue.work.notify_one();
    }

    fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let netns = self.netns.clone();
        thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
            if netns.enter().is_ok() {
                work();
            }
        })
    }
}

fn work(queue: &Queue) {
    let mut state = lock(&queue.state);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            queue.room.notify_one();
            drop(state);
            job();
            state = lock(&queue.state);
        } else if state.closed {
            return;
        } else {
            state.idle += 1;
            state = queue.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Ends the pool's threads when it goes. Apart from the pool, which those threads hold themselves.
pub(crate) struct EndOfPool(pub(crate) Arc<Pool>);

impl Drop for EndOfPool {
    fn drop(&mut self) {
        let pool = &self.0;
        let threads = {
            let mut state = lock(&pool.queue.state);
            state.closed = true;
            state.jobs.clear();
            std::mem::take(&mut state.threads)
        };
        pool.stop.set();
        pool.queue.work.notify_all();
        pool.queue.room.notify_all();
        for wake in std::mem::take(&mut *lock(&pool.wakers)) {
            wake();
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}
