//! Keeping what happened: rows for the store, lines for `--events`, and at the end the report in both. The same for every sensor.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Seek as _, Write as _},
    time::{Duration, Instant},
};

use trustrun_model::{Fact, Observation, Report, inert_json};
use trustrun_store::{EventRow, StoreHandle};

use crate::{Engine, events};

/// How long the store may take at the end.
const STORE: Duration = Duration::from_secs(20);

/// Where the engine's results go. The files were opened with the caller's credentials.
#[derive(Debug)]
pub struct Outputs {
    /// The database.
    pub store: Option<StoreHandle>,
    /// NDJSON, one line for each event.
    pub events: Option<File>,
    /// The report, as JSON.
    pub report: File,
}

/// A session's outputs while it runs.
#[derive(Debug)]
pub(crate) struct Recorder {
    store: Option<StoreHandle>,
    events: Option<BufWriter<File>>,
    report: File,
    session: String,
    rows: Vec<EventRow>,
    /// Events so far.
    recorded: u64,
    /// Event lines that could not be written.
    unwritten: u64,
    /// When waiting for the store ends.
    deadline: Option<Instant>,
}

/// What became of the rows.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) stored: u64,
    /// By stage; no zeroes.
    pub(crate) dropped: BTreeMap<String, u64>,
}

impl Recorder {
    pub(crate) fn new(outputs: Outputs, session: &str) -> Self {
        Self {
            store: outputs.store,
            events: outputs.events.map(BufWriter::new),
            report: outputs.report,
            session: session.to_owned(),
            rows: Vec::with_capacity(trustrun_store::MAX_BATCH),
            recorded: 0,
            unwritten: 0,
            deadline: None,
        }
    }

    /// Keeps an event that the engine has just taken.
    pub(crate) fn record(&mut self, o: &Observation, engine: &Engine) {
        self.recorded += 1;
        let mut row = EventRow::from_observation(self.recorded, &redacted(o));
        row.host = engine.last_host.as_deref().map(Into::into);
        row.rule = engine.last_rule.as_deref().map(Into::into);
        if let Some(w) = &mut self.events {
            self.unwritten += u64::from(writeln!(w, "{}", events::line(&self.session, &row)).is_err());
        }
        self.rows.push(row);
        if self.rows.len() >= trustrun_store::MAX_BATCH {
            self.append();
        }
    }

    fn append(&mut self) {
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(trustrun_store::MAX_BATCH));
        if let Some(store) = &self.store {
            // What does not fit is counted by the store, and becomes a gap.
            let _ = store.append(rows);
        }
    }

    /// Hands on what was kept so far.
    pub(crate) fn flush(&mut self) {
        if !self.rows.is_empty() {
            self.append();
        }
        if let Some(w) = &mut self.events {
            let _ = w.flush();
        }
    }

    /// Waits for the store, and tells the engine what was lost on the way.
    pub(crate) fn settle(&mut self, engine: &mut Engine) -> Stored {
        self.flush();
        self.deadline = Some(Instant::now() + STORE);
        let (stored, mut dropped) = match &self.store {
            Some(store) => {
                let (stats, _) = store.sync(STORE);
                (stats.stored, stats.dropped())
            }
            None => (0, BTreeMap::from([("store".to_owned(), self.recorded)])),
        };
        if self.unwritten > 0 {
            engine.ledger.gap("event-lines-lost", self.unwritten, || "--events could not be written".into());
        }
        dropped.retain(|_, n| *n > 0);
        Stored { stored, dropped }
    }

    /// Writes the report into the database and its file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn report(mut self, report: &Report, ended_ns: i64) -> std::io::Result<()> {
        let left = self.deadline.map_or(STORE, |end| end.saturating_duration_since(Instant::now()));
        if let Some(store) = &self.store
            && let Err(e) = store.finish(report, ended_ns, left)
        {
            eprintln!("trustrun: the report is not in the database: {e}");
        }
        let text = inert_json(serde_json::to_string(report)?);
        self.report.rewind()?;
        self.report.write_all(text.as_bytes())?;
        self.report.flush()
    }
}

/// Arguments without secrets, before anything is stored.
fn redacted(o: &Observation) -> std::borrow::Cow<'_, Observation> {
    let Fact::Exec { exe, argv, truncated } = &o.fact else { return std::borrow::Cow::Borrowed(o) };
    let fact = Fact::Exec { exe: exe.clone(), argv: crate::redact::redact_argv(argv), truncated: *truncated };
    std::borrow::Cow::Owned(Observation { fact, ..o.clone() })
}
