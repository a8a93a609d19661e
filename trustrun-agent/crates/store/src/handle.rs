//! The caller's end of the store.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use trustrun_model::Report;

use crate::{
    EventRow, MAX_BATCH, SessionStart, StoreError,
    writer::{Counts, Finish, Message, Writer},
};

/// Batches that may wait for the owner thread: with full ones 131,072 rows, 0.6 s at 200,000 rows a second, which
/// outlasts a checkpoint's sync.
const CHANNEL: usize = 256;
/// What the end of a handle waits for the owner thread.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// The channel was full, or the owner thread gone: these rows were dropped, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} events dropped: the store does not keep up")]
pub struct Full {
    /// How many.
    pub rows: u64,
}

/// What became of the rows that were offered: `offered = stored + dropped + waiting`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows given to the handle.
    pub offered: u64,
    /// Rows whose COMMIT succeeded.
    pub stored: u64,
    /// Rows that found the channel full.
    pub dropped_channel: u64,
    /// Rows that the database did not take.
    pub dropped_store: u64,
    /// Rows of which neither is known yet; 0 after [`StoreHandle::sync`] has answered.
    pub waiting: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Why the database takes nothing at present.
    pub last_error: Option<String>,
}

impl Stats {
    /// By stage, as the report counts: `channel` and `store`, without zeroes. Rows still waiting count as `store`:
    /// when nothing more will be asked, what is not known to be stored is not stored.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        [("channel", self.dropped_channel), ("store", self.dropped_store + self.waiting)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(stage, count)| (stage.to_owned(), count))
            .collect()
    }
}

/// Appends to the running session. Never waits for a disk, except in [`StoreHandle::sync`] and
/// [`StoreHandle::finish`], which have a timeout. Ending it waits at most 3 s for what was appended.
#[derive(Debug)]
pub struct StoreHandle {
    /// `None` only while being dropped.
    messages: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    path: PathBuf,
}

impl StoreHandle {
    pub(crate) fn start(conn: Connection, path: PathBuf, session: SessionStart) -> Result<Self, StoreError> {
        let counts = Arc::new(Counts::default());
        let (messages, received) = mpsc::sync_channel(CHANNEL);
        let writer = Writer::new(conn, session, Arc::clone(&counts));
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&received))
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self { messages: Some(messages), thread: Some(thread), counts, path })
    }

    /// Appends one row. Batches are much cheaper.
    ///
    /// # Errors
    /// [`Full`] if it was dropped.
    pub fn try_append(&self, row: EventRow) -> Result<(), Full> {
        self.append(vec![row])
    }

    /// Appends rows, best up to [`MAX_BATCH`] at a time.
    ///
    /// # Errors
    /// [`Full`] says how many of them were dropped.
    pub fn append(&self, rows: Vec<EventRow>) -> Result<(), Full> {
        if rows.is_empty() {
            return Ok(());
        }
        self.counts.offered.fetch_add(rows.len() as u64, Ordering::Relaxed);
        if rows.len() <= MAX_BATCH {
            return self.send(rows);
        }
        let mut rows = rows.into_iter();
        let mut dropped = 0;
        loop {
            let batch: Vec<EventRow> = rows.by_ref().take(MAX_BATCH).collect();
            if batch.is_empty() {
                return if dropped == 0 { Ok(()) } else { Err(Full { rows: dropped }) };
            }
            dropped += self.send(batch).err().map_or(0, |full| full.rows);
        }
    }

    fn send(&self, rows: Vec<EventRow>) -> Result<(), Full> {
        let count = rows.len() as u64;
        let stage = match self.messages.as_ref().map(|m| m.try_send(Message::Rows(rows))) {
            Some(Ok(())) => return Ok(()),
            Some(Err(TrySendError::Full(_))) => &self.counts.dropped_channel,
            Some(Err(TrySendError::Disconnected(_))) | None => &self.counts.dropped_store,
        };
        stage.fetch_add(count, Ordering::Relaxed);
        Err(Full { rows: count })
    }

    /// What became of the rows until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let stored = read(&self.counts.stored);
        let dropped_channel = read(&self.counts.dropped_channel);
        let dropped_store = read(&self.counts.dropped_store);
        let offered = read(&self.counts.offered);
        Stats {
            offered,
            stored,
            dropped_channel,
            dropped_store,
            waiting: offered.saturating_sub(stored + dropped_channel + dropped_store),
            commits: read(&self.counts.commits),
            last_error: self.counts.last_error(),
        }
    }

    /// Waits until every row appended so far is stored or dropped, and tells the counts: the report is made from
    /// these. The second value says why rows were dropped for good, or that there was no answer in time; the counts
    /// hold either way ([`Stats::dropped`] takes what waits for lost).
    pub fn sync(&self, timeout: Duration) -> (Stats, Option<StoreError>) {
        let outcome = self.ask("commit", timeout, Message::Sync).err();
        (self.stats(), outcome)
    }

    /// Stores what was appended, and the report with its verdict. Until this has answered, the session stays
    /// `incomplete` in the database.
    ///
    /// # Errors
    /// If the report is not stored, for the caller to say aloud. After [`StoreError::Timeout`] it may yet be.
    pub fn finish(&self, report: &Report, ended_ns: i64, timeout: Duration) -> Result<(), StoreError> {
        let text = serde_json::to_string(report)
            .map_err(|source| StoreError::Report { id: report.session.id.clone(), source })?;
        let finish = Box::new(Finish { ended_ns, report: report.clone(), text });
        self.ask("store the report", timeout, |reply| Message::Finish(finish, reply))
    }

    fn ask(
        &self,
        doing: &'static str,
        timeout: Duration,
        message: impl FnOnce(SyncSender<rusqlite::Result<()>>) -> Message,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + timeout;
        let (reply, answer) = mpsc::sync_channel(1);
        let mut message = message(reply);
        loop {
            match self.messages.as_ref().map(|m| m.try_send(message)) {
                Some(Ok(())) => break,
                Some(Err(TrySendError::Full(_))) if Instant::now() >= deadline => {
                    return Err(StoreError::Timeout { doing, waited: timeout });
                }
                Some(Err(TrySendError::Full(back))) => message = back,
                Some(Err(TrySendError::Disconnected(_))) | None => return Err(StoreError::Gone { doing }),
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.wait(&answer, doing, timeout, deadline)
    }

    fn wait(
        &self,
        answer: &Receiver<rusqlite::Result<()>>,
        doing: &'static str,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result.map_err(|e| StoreError::sqlite(&self.path, doing, e)),
            Err(RecvTimeoutError::Timeout) => Err(StoreError::Timeout { doing, waited: timeout }),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Gone { doing }),
        }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.messages = None;
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LAST_WAIT;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // A panic there has been printed, and its rows are counted as not stored.
            let _ = thread.join();
        }
    }
}
