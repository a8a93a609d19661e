//! Queries, on a connection of their own that can write nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, config::DbConfig, params};
use trustrun_model::{Counters, FlowId, Instants, PolicyRef, ProcessId, Protocol, Untrusted, Verdict};

use crate::{EventKind, EventRow, SessionRow, SessionState, StoreError, insert::SEQUENCE_BITS, liveness, open, words};

const SESSION: &str = "SELECT key, id, started_ns, ended_ns, verdict, reason, command, user, policy_name, policy_sha256, \
     sensor, assurance, host, boot_id, agent_pid, agent_start, labels, violations, emitted, stored, dropped FROM sessions";
const EVENT: &str = "SELECT key, boot_ns, wall_ns, kind, tgid, tid, uid, cookie, flow_sequence, protocol, direction, \
     local_addr, local_port, peer_addr, peer_port, action, decided_by, enforced, rule, host, sent, received, detail \
     FROM events WHERE key > ? AND key < ? ORDER BY key LIMIT ?";

/// Most rows of one page, whatever is asked for.
const PAGE_MAX: usize = 10_000;

/// A view of a database that another process may be writing to.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the database at `path` for reading.
    ///
    /// # Errors
    /// If it is missing, may not be read, is damaged, newer, or somebody else's.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let failed = |e| StoreError::sqlite(path, "read", e);
        let conn = match connect(path, false).map_err(failed) {
            // A log that is not there is empty, but whoever may not write the directory cannot make it anew. Then
            // nobody is writing, and the file alone is the database.
            Err(StoreError::Access { .. }) if !log_of(path).exists() => connect(path, true).map_err(failed)?,
            other => other?,
        };
        open::check(&conn, path)?;
        Ok(Self { conn, path: path.to_owned() })
    }

    /// Sessions, the latest first; those before `before` (a [`SessionRow::key`]) where it is given.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn sessions(&self, limit: usize, before: Option<i64>) -> Result<Vec<SessionRow>, StoreError> {
        let sql = format!("{SESSION} WHERE key < ? ORDER BY key DESC LIMIT ?");
        self.rows(&sql, params![before.unwrap_or(i64::MAX), page(limit)], session)
    }

    /// The session that is called `name`, or whose name alone begins so, or `last`.
    ///
    /// # Errors
    /// [`StoreError::NoSession`], [`StoreError::Ambiguous`], or the database cannot be read.
    pub fn session(&self, name: &str) -> Result<SessionRow, StoreError> {
        let mut found = if name == "last" {
            self.sessions(1, None)?
        } else {
            let sql = format!("{SESSION} WHERE id >= ?1 AND substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 4");
            self.rows(&sql, params![name], session)?
        };
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(StoreError::NoSession { wanted: name.to_owned() }),
            _ if found[0].id == name => Ok(found.remove(0)),
            _ => Err(StoreError::Ambiguous {
                wanted: name.to_owned(),
                found: found.iter().map(|s| Untrusted::new(&s.id).to_string()).collect(),
            }),
        }
    }

    /// The report of a session as it was stored, JSON; `None` while there is none.
    ///
    /// # Errors
    /// As [`Reader::session`].
    pub fn report(&self, name: &str) -> Result<Option<String>, StoreError> {
        let key = self.session(name)?.key;
        let query = self.conn.query_row("SELECT report FROM sessions WHERE key = ?", [key], |r| r.get(0)).optional();
        Ok(query.map_err(|e| self.failed(e))?.flatten())
    }

    /// Events of a session in their order, those after sequence `after` (0 for all).
    ///
    /// # Errors
    /// As [`Reader::session`].
    pub fn events(&self, name: &str, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let first = self.session(name)?.key << SEQUENCE_BITS;
        let last = first + (1 << SEQUENCE_BITS);
        let after = first.saturating_add_unsigned(after);
        self.rows(EVENT, params![after, last, page(limit)], event)
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        decode: fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql).map_err(|e| self.failed(e))?;
        let mut rows = statement.query(params).map_err(|e| self.failed(e))?;
        let mut decoded = Vec::new();
        while let Some(row) = rows.next().map_err(|e| self.failed(e))? {
            decoded.push(decode(row)?);
        }
        Ok(decoded)
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, "read", error)
    }
}

fn page(limit: usize) -> i64 {
    i64::try_from(limit.min(PAGE_MAX)).unwrap_or(i64::MAX)
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Opens, and reads once, since only that touches the log.
fn connect(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = if immutable {
        let uri = format!("file:{}?immutable=1", percent_encoded(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    conn.busy_timeout(open::BUSY)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// For the path of a `file:` URI.
fn percent_encoded(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A column, or what makes no sense about it.
fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError> {
    row.get(column).map_err(|e| StoreError::Decode { column, found: e.to_string() })
}

fn word<T>(column: &'static str, value: impl ToString, decoded: Option<T>) -> Result<T, StoreError> {
    decoded.ok_or_else(|| StoreError::Decode { column, found: value.to_string() })
}

fn json<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Decode { column, found: e.to_string() })
}

fn session(row: &Row<'_>) -> Result<SessionRow, StoreError> {
    let finished = get::<String>(row, "reason")? == "finished";
    let verdict: String = get(row, "verdict")?;
    let assurance: String = get(row, "assurance")?;
    let boot_id: String = get(row, "boot_id")?;
    let agent_pid: u32 = get(row, "agent_pid")?;
    let agent_start = get::<Option<i64>>(row, "agent_start")?.map(i64::cast_unsigned);
    let state = match finished {
        true => SessionState::Finished,
        false if liveness::lives(agent_pid, agent_start, &boot_id) => SessionState::Running,
        false => SessionState::Lost,
    };
    let policy_name: Option<String> = get(row, "policy_name")?;
    let policy_sha256: Option<String> = get(row, "policy_sha256")?;
    Ok(SessionRow {
        key: get(row, "key")?,
        id: get(row, "id")?,
        started_ns: get(row, "started_ns")?,
        ended_ns: get(row, "ended_ns")?,
        // The table's own check says the same; nothing that has not finished is ever shown as passed.
        verdict: if finished { word("verdict", &verdict, words::verdict(&verdict))? } else { Verdict::Incomplete },
        state,
        command: json("command", &get::<String>(row, "command")?)?,
        user: get(row, "user")?,
        policy: policy_name.map(|name| PolicyRef {
            name,
            sha256: policy_sha256.unwrap_or_default(),
            ..PolicyRef::default()
        }),
        sensor: get(row, "sensor")?,
        assurance: word("assurance", &assurance, words::assurance(&assurance))?,
        host: get(row, "host")?,
        boot_id,
        agent_pid,
        labels: json("labels", &get::<String>(row, "labels")?)?,
        violations: get::<Option<i64>>(row, "violations")?.map(i64::cast_unsigned),
        counters: counters(row)?,
    })
}

fn counters(row: &Row<'_>) -> Result<Option<Counters>, StoreError> {
    let Some(dropped) = get::<Option<String>>(row, "dropped")? else { return Ok(None) };
    Ok(Some(Counters {
        emitted: get::<i64>(row, "emitted")?.cast_unsigned(),
        stored: get::<i64>(row, "stored")?.cast_unsigned(),
        dropped: json("dropped", &dropped)?,
    }))
}

fn event(row: &Row<'_>) -> Result<EventRow, StoreError> {
    let number = |column| get::<Option<i64>>(row, column);
    let kind: i64 = get(row, "kind")?;
    let flow = match (number("cookie")?, get(row, "flow_sequence")?) {
        (Some(cookie), Some(sequence)) => Some(FlowId { cookie: cookie.cast_unsigned(), sequence }),
        _ => None,
    };
    Ok(EventRow {
        seq: (get::<i64>(row, "key")? & ((1 << SEQUENCE_BITS) - 1)).cast_unsigned(),
        at: Instants { boot_ns: get::<i64>(row, "boot_ns")?.cast_unsigned(), wall_ns: get(row, "wall_ns")? },
        kind: word("kind", kind, EventKind::from_number(kind))?,
        process: ProcessId { tgid: get(row, "tgid")?, tid: get(row, "tid")?, uid: get(row, "uid")?, class: 0 },
        flow,
        protocol: get::<Option<u8>>(row, "protocol")?.map(Protocol::from_number),
        direction: number("direction")?.map(|n| word("direction", n, words::direction(n))).transpose()?,
        local: address(row, "local_addr", "local_port")?,
        peer: address(row, "peer_addr", "peer_port")?,
        action: number("action")?.map(|n| word("action", n, words::action(n))).transpose()?,
        reason: number("decided_by")?.map(|n| word("decided_by", n, words::reason(n))).transpose()?,
        enforced: get::<Option<bool>>(row, "enforced")?.unwrap_or(false),
        rule: get::<Option<String>>(row, "rule")?.map(Into::into),
        host: get::<Option<String>>(row, "host")?.map(Into::into),
        sent: number("sent")?.map(i64::cast_unsigned),
        received: number("received")?.map(i64::cast_unsigned),
        detail: get::<Option<String>>(row, "detail")?.map(Into::into),
    })
}

fn address(row: &Row<'_>, addr: &'static str, port: &'static str) -> Result<Option<SocketAddr>, StoreError> {
    let Some(octets) = get::<Option<Vec<u8>>>(row, addr)? else { return Ok(None) };
    let ip = match (<[u8; 4]>::try_from(octets.as_slice()), <[u8; 16]>::try_from(octets.as_slice())) {
        (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
        (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)),
        _ => return Err(StoreError::Decode { column: addr, found: format!("{} bytes", octets.len()) }),
    };
    Ok(Some(SocketAddr::new(ip, get(row, port)?)))
}
