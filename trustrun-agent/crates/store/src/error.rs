//! What can go wrong with the database, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use rusqlite::ErrorCode;
use trustrun_model::Untrusted;

/// Every way in which the store can fail. The database's file is never deleted or overwritten because of one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory of the database is missing and cannot be made.
    #[error("cannot make the directory {} for the database: {source}", shown(path))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database's file cannot be made.
    #[error("cannot make the database {}: {source}", shown(path))]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such database.
    #[error("there is no database at {}; `trustrun run` makes one, and --db names another", shown(path))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database of something else.
    #[error("{} is a database, but not one of TrustRun's; name another with --db", shown(path))]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error("{} was written by a newer TrustRun; update this one, or name another file with --db", shown(path))]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The file is empty, or was made by an older version and nothing has written to it since.
    #[error(
        "{} holds no sessions yet, or is an older TrustRun's; the next `trustrun run` brings it up to date",
        shown(path)
    )]
    Older {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or no database at all.
    #[error(
        "the database {} is damaged or not a database ({source}); it was left as it is: move it away to start anew, \
         or recover it with `sqlite3 FILE .recover`",
        shown(path)
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Somebody else holds the database for longer than the busy timeout.
    #[error("the database {} is locked by another process ({doing})", shown(path))]
    Locked {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// The file or its directory may not be read or written.
    #[error("cannot {doing} {}: {source}; check that the file and its directory may be read and written", shown(path))]
    Access {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The disk is full, or fails.
    #[error("cannot {doing} {}: {source}; is the disk full?", shown(path))]
    Disk {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Anything else that SQLite says.
    #[error("cannot {doing} {}: {source}", shown(path))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The owner thread could not be started.
    #[error("cannot start the store's thread: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The owner thread did not answer in time.
    #[error("the database did not {doing} within {waited:?}")]
    Timeout {
        /// What was asked.
        doing: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The owner thread is gone.
    #[error("the store's thread has ended; cannot {doing}")]
    Gone {
        /// What was asked.
        doing: &'static str,
    },
    /// A report that cannot be written as JSON, or read from it.
    #[error("the report of session {} is not readable: {source}", Untrusted::new(id))]
    Report {
        /// The session.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No session of that name.
    #[error("no session `{}`; `trustrun session list` names them", Untrusted::new(wanted))]
    NoSession {
        /// What was asked for.
        wanted: String,
    },
    /// More than one session begins so.
    #[error("more than one session begins with `{}`: {}", Untrusted::new(wanted), found.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Some that begin so.
        found: Vec<String>,
    },
    /// A stored value that means nothing.
    #[error("the database holds {found} in {column}, which means nothing; is it damaged?")]
    Decode {
        /// The column.
        column: &'static str,
        /// What is there.
        found: String,
    },
}

impl StoreError {
    /// Sorts what SQLite says by what a person can do about it.
    pub(crate) fn sqlite(path: &std::path::Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { path, source },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path, doing },
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Access { path, doing, source }
            }
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => Self::Disk { path, doing, source },
            _ => Self::Sqlite { path, doing, source },
        }
    }
}

fn shown(path: &std::path::Path) -> String {
    Untrusted::new(path.to_string_lossy()).to_string()
}
