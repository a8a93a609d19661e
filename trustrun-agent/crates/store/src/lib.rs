//! The database of sessions and events: SQLite in WAL mode with one owner thread.
//!
//! Writing: [`Store::open_or_memory`] opens every file while the caller still may, [`Store::start`] hands the
//! connection to the owner thread, and [`StoreHandle`] appends without ever waiting for a disk. Every row is
//! counted: `offered = stored + dropped` once [`StoreHandle::sync`] has answered, and a row counts as stored only
//! after its COMMIT succeeded. Reading: [`Reader`], in any process.
//!
//! Nothing here knows HTTP, decides anything, or stores payload.

mod error;
mod handle;
mod id;
mod insert;
mod liveness;
mod open;
mod place;
mod reader;
mod row;
mod session;
mod words;
mod writer;

pub use error::StoreError;
pub use handle::{Full, Stats, StoreHandle};
pub use id::SessionId;
pub use liveness::agent_start;
pub use open::Store;
pub use place::{Readable, default_path, readable_path};
pub use reader::Reader;
pub use row::EventRow;
pub use session::{SessionRow, SessionStart, SessionState};
pub use words::EventKind;

/// Most rows in one message to the owner thread; longer batches are split.
pub const MAX_BATCH: usize = 512;
