//! The owner thread: gathers rows, and writes them in short transactions.
//!
//! Rows wait in memory, not in an open transaction: another session's agent may write to the same database between
//! our commits. A commit falls when 8,192 rows wait or the oldest has waited 200 ms, so that a crash loses at most
//! the last second. When a commit fails its rows stay and are tried again a second later; only what arrives beyond
//! the bound is dropped, and counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use trustrun_model::Report;

use crate::{EventRow, MAX_BATCH, SessionStart, insert};

const COMMIT_ROWS: usize = 8_192;
const COMMIT_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a failing database may hold back in memory.
const PENDING_MAX: usize = COMMIT_ROWS + 16 * MAX_BATCH;

/// What the owner thread is asked.
pub(crate) enum Message {
    Rows(Vec<EventRow>),
    /// Commit all that came before.
    Sync(SyncSender<rusqlite::Result<()>>),
    /// Commit all that came before and the report.
    Finish(Box<Finish>, SyncSender<rusqlite::Result<()>>),
}

/// How a session ended.
pub(crate) struct Finish {
    pub(crate) ended_ns: i64,
    pub(crate) report: Report,
    pub(crate) text: String,
}

/// Counts that both sides of the channel share. Rows only; each is offered once and then stored or dropped once.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) offered: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) dropped_channel: AtomicU64,
    pub(crate) dropped_store: AtomicU64,
    pub(crate) commits: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// The database's only writer in this process.
pub(crate) struct Writer {
    conn: Connection,
    session: SessionStart,
    /// The session's row, once it is committed.
    key: Option<i64>,
    pending: Vec<Vec<EventRow>>,
    pending_rows: usize,
    oldest: Option<Instant>,
    retry_at: Option<Instant>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Stores the session's row, or leaves that to the next commit.
    pub(crate) fn new(conn: Connection, session: SessionStart, counts: Arc<Counts>) -> Self {
        let mut writer = Self {
            conn,
            session,
            key: None,
            pending: Vec::new(),
            pending_rows: 0,
            oldest: None,
            retry_at: None,
            counts,
        };
        let _ = writer.commit();
        writer
    }

    /// Until every sender is gone.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(self.patience()) {
                Ok(Message::Rows(rows)) => self.take(rows),
                Ok(Message::Sync(reply)) => {
                    let _ = reply.try_send(self.settle());
                }
                Ok(Message::Finish(finish, reply)) => {
                    let _ = reply.try_send(self.finish(&finish));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.due() {
                let _ = self.commit();
            }
        }
        let _ = self.settle();
    }

    fn take(&mut self, rows: Vec<EventRow>) {
        if self.pending_rows + rows.len() > PENDING_MAX {
            self.counts.dropped_store.fetch_add(rows.len() as u64, Ordering::Relaxed);
            return;
        }
        self.oldest.get_or_insert_with(Instant::now);
        self.pending_rows += rows.len();
        self.pending.push(rows);
    }

    /// How long nothing has to be done.
    fn patience(&self) -> Duration {
        let due = self.oldest.map(|oldest| oldest + COMMIT_AFTER).max(self.retry_at);
        due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()))
    }

    fn due(&self) -> bool {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        let missing_session = self.key.is_none() && self.retry_at.is_some();
        let aged = self.oldest.is_some_and(|oldest| now >= oldest + COMMIT_AFTER);
        missing_session || aged || self.pending_rows >= COMMIT_ROWS
    }

    /// Writes what waits. On failure everything is rolled back and waits on.
    fn commit(&mut self) -> rusqlite::Result<()> {
        let result = self.write();
        match &result {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    self.counts.set_last_error(None);
                }
            }
            Err(error) => {
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                self.counts.set_last_error(Some(error.to_string()));
            }
        }
        result
    }

    fn write(&mut self) -> rusqlite::Result<()> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let key = match self.key {
            Some(key) => key,
            None => insert::session(&tx, &self.session)?,
        };
        let inserted = insert::events(&tx, key, &self.pending)?;
        tx.commit()?;
        self.key = Some(key);
        self.counts.stored.fetch_add(inserted.stored, Ordering::Relaxed);
        self.counts.dropped_store.fetch_add(inserted.refused, Ordering::Relaxed);
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.pending.clear();
        (self.pending_rows, self.oldest) = (0, None);
    }

    /// Writes what waits, and if that fails gives it up: afterwards every row is stored or dropped.
    fn settle(&mut self) -> rusqlite::Result<()> {
        if self.key.is_some() && self.pending_rows == 0 {
            return Ok(());
        }
        let result = self.commit();
        if result.is_err() {
            self.counts.dropped_store.fetch_add(self.pending_rows as u64, Ordering::Relaxed);
            self.forget();
        }
        result
    }

    fn finish(&mut self, finish: &Finish) -> rusqlite::Result<()> {
        let settled = self.settle();
        // Rows that do not fit are no reason to leave out the report, which may.
        let Some(key) = self.key else { return settled.and(Err(rusqlite::Error::QueryReturnedNoRows)) };
        if !insert::finish(&self.conn, key, finish.ended_ns, &finish.report, &finish.text)? {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        }
        // Into the main file, so that what is left to the next opener is small; a reader may hinder it, no matter.
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        Ok(())
    }
}
