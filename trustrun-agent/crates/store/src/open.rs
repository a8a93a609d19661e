//! Opening the database: every file of it, now, because the caller may give up its rights right after.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Group};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use rusqlite_migration::{Error as MigrationError, M, MigrationDefinitionError, Migrations};

use crate::{SessionStart, StoreError, StoreHandle};

/// How long any statement waits for another process.
pub(crate) const BUSY: Duration = Duration::from_secs(2);
/// `TRun` in the file's header, so that a database of something else is never written to.
const APPLICATION_ID: i32 = 0x5452_756e;
/// The group that may read what root stores.
const GROUP: &str = "trustrun";
/// Pages of an in-memory store (128 MiB): a run without a disk must not eat the machine. Beyond it rows are dropped
/// and counted.
const MEMORY_PAGES: i64 = 32_768;

const STEPS: &[M<'static>] = &[M::up(include_str!("../migrations/0001_sessions_and_events.sql"))];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// An open database that nobody writes to yet. All its files are open: no path is opened again after this, so that
/// the process may change its user before [`Store::start`]. It must not fork between the two (SQLite's locks belong
/// to the process).
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    path: Option<PathBuf>,
}

impl Store {
    /// Opens the database at `path`, or makes it with mode 0640 and its directory with 0750; both get the group
    /// `trustrun` if there is one. Waits at most about 2 s for another process.
    ///
    /// # Errors
    /// Whatever keeps the database from being written. The file is left as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = prepare(path)?;
        let deadline = Instant::now() + BUSY;
        loop {
            match open_file(&path) {
                // Switching a new file to WAL does not honour the busy timeout while another process does the same.
                Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
                Ok(conn) => return Ok(Self { conn, path: Some(path) }),
            }
        }
    }

    /// As [`Store::open`]; where that fails a store in memory, and the reason, which is to be said aloud.
    ///
    /// # Errors
    /// Only if SQLite has no memory at all.
    pub fn open_or_memory(path: &Path) -> Result<(Self, Option<StoreError>), StoreError> {
        match Self::open(path) {
            Ok(store) => Ok((store, None)),
            Err(reason) => Ok((Self::memory()?, Some(reason))),
        }
    }

    /// A store in memory, bounded to 128 MiB, gone with the process.
    ///
    /// # Errors
    /// Only if SQLite has no memory at all.
    pub fn memory() -> Result<Self, StoreError> {
        let place = Path::new(":memory:");
        let mut conn = Connection::open_in_memory().map_err(|e| StoreError::sqlite(place, "open", e))?;
        configure(&conn).map_err(|e| StoreError::sqlite(place, "configure", e))?;
        migrate(&mut conn, place)?;
        conn.pragma_update(None, "max_page_count", MEMORY_PAGES).map_err(|e| StoreError::sqlite(place, "bound", e))?;
        Ok(Self { conn, path: None })
    }

    /// The file; `None` for a store in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Stores the session as `incomplete` because it runs, and hands the database to its owner thread. If the
    /// session cannot be stored now it is tried again with every commit; [`StoreHandle::stats`] tells.
    ///
    /// # Errors
    /// [`StoreError::Thread`]; without a thread there is no store.
    pub fn start(self, session: SessionStart) -> Result<StoreHandle, StoreError> {
        StoreHandle::start(self.conn, self.path.unwrap_or_else(|| ":memory:".into()), session)
    }
}

/// Makes directory and file where they are missing, and says where the file really is: SQLite is told not to follow
/// a symbolic link, which would refuse one in the directory's path too.
fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = |source| StoreError::Directory { path: parent.to_owned(), source };
    let group = Group::from_name(GROUP).ok().flatten().map(|g| g.gid);
    if !parent.exists() {
        DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(directory)?;
        give(parent, group);
    }
    let parent = parent.canonicalize().map_err(directory)?;
    let name = path.file_name().ok_or_else(|| StoreError::Create {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "this names no file"),
    })?;
    let path = parent.join(name);
    create(&path, group).map_err(|source| StoreError::Create { path: path.clone(), source })?;
    Ok(path)
}

/// Makes the file if it is missing. An existing one is not opened here: closing any descriptor of it would drop the
/// locks that another connection of this process holds.
fn create(path: &Path, group: Option<Gid>) -> io::Result<()> {
    let flags = nix::libc::O_NOFOLLOW;
    match OpenOptions::new().write(true).create_new(true).mode(0o640).custom_flags(flags).open(path) {
        Ok(file) => {
            // The umask may have taken bits; SQLite gives -wal and -shm the mode and the owners of this file.
            file.set_permissions(PermissionsExt::from_mode(0o640))?;
            give(path, group);
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Without the right to give it to the group, it stays with its maker.
fn give(path: &Path, group: Option<Gid>) {
    if let Some(gid) = group {
        let _ = std::os::unix::fs::lchown(path, None, Some(gid.as_raw()));
    }
}

fn open_file(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let failed = |doing| move |e| StoreError::sqlite(path, doing, e);
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed("open"))?;
    configure(&conn).map_err(failed("configure"))?;
    match check(&conn, path) {
        Ok(()) | Err(StoreError::Older { .. }) => {}
        Err(error) => return Err(error),
    }
    switch_to_wal(&conn).map_err(failed("write to"))?;
    touch(&mut conn).map_err(failed("write to"))?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// What holds for every writing connection.
fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Closing must not remove -wal and -shm: without them a reader that may not write the directory cannot open the
    // database, and after a change of user they could not be removed anyway.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // No temporary file is ever opened: the process may have no rights left by then.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "page_size", 4096)?;
    Ok(())
}

/// Whether the file is new and empty or one that we made, and of which version.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let path = path.to_owned();
    let pending = MIGRATIONS.pending_migrations(conn);
    match (ours(conn), pending) {
        (Err(source), _) => Err(StoreError::sqlite(&path, "read", source)),
        (Ok(true), Ok(0)) => Ok(()),
        (Ok(true), Ok(n)) if n < 0 => Err(StoreError::Newer { path }),
        // Empty, or of an older version: the next session brings it up to date.
        (Ok(true), Ok(_)) => Err(StoreError::Older { path }),
        (Ok(true), Err(_)) | (Ok(false), _) => Err(StoreError::Foreign { path }),
    }
}

/// Whether the file is new and empty, or one that we made.
fn ours(conn: &Connection) -> rusqlite::Result<bool> {
    let id: i32 = conn.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    Ok(id == APPLICATION_ID || (id == 0 && objects == 0))
}

fn switch_to_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // 16 MB of log between checkpoints: a checkpoint syncs twice, and at 200,000 events a second the usual 4 MB
    // would mean eight syncs a second.
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 4_000, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    match MIGRATIONS.to_latest(conn) {
        Ok(()) => Ok(()),
        Err(MigrationError::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead)) => {
            Err(StoreError::Newer { path: path.to_owned() })
        }
        // Another process may have migrated since the version was read; then there is nothing left to do.
        Err(error) => match (MIGRATIONS.pending_migrations(conn), error) {
            (Ok(0), _) => Ok(()),
            (_, MigrationError::RusqliteError { err, .. }) => Err(StoreError::sqlite(path, "migrate", err)),
            _ => Err(StoreError::Foreign { path: path.to_owned() }),
        },
    }
}

/// Commits a write, which opens -wal and -shm for good and shows at once if the disk is full or read-only.
fn touch(conn: &mut Connection) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()
}
