//! The statements that write. Each runs inside a transaction of the owner thread.

use std::net::{IpAddr, SocketAddr};

use rusqlite::{CachedStatement, Connection, ErrorCode, Transaction, params};
use serde_json::json;
use trustrun_model::Report;

use crate::{EventRow, SessionStart, agent_start, words};

/// A sequence has 40 bits of the events' key, a session's key the 23 above.
pub(crate) const SEQUENCE_BITS: u32 = 40;

const EVENT: &str = "INSERT INTO events (key, boot_ns, wall_ns, kind, tgid, tid, uid, cookie, flow_sequence, protocol, \
     direction, local_addr, local_port, peer_addr, peer_port, action, decided_by, enforced, rule, host, sent, \
     received, detail) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// Rows of one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inserted {
    pub(crate) stored: u64,
    /// Rows that the database refuses whatever is done: a sequence used twice or out of range.
    pub(crate) refused: u64,
}

/// The key of the session's row.
pub(crate) fn session(tx: &Transaction<'_>, start: &SessionStart) -> rusqlite::Result<i64> {
    tx.execute(
        "INSERT INTO sessions (id, started_ns, verdict, reason, command, user, policy_name, policy_sha256, sensor, \
         assurance, host, boot_id, agent_pid, agent_start, labels) \
         VALUES (?, ?, 'incomplete', 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            start.id,
            start.started_ns,
            json!(start.command).to_string(),
            start.user,
            start.policy.as_ref().map(|p| p.name.as_str()),
            start.policy.as_ref().map(|p| p.sha256.as_str()),
            start.sensor,
            words::assurance_word(start.assurance),
            start.host,
            start.boot_id,
            start.agent_pid,
            agent_start(start.agent_pid).map(u64::cast_signed),
            json!(start.labels).to_string(),
        ],
    )?;
    Ok(tx.last_insert_rowid())
}

/// Replaces verdict, reason and report at once; says whether the session was there.
pub(crate) fn finish(
    conn: &Connection,
    key: i64,
    ended_ns: i64,
    report: &Report,
    text: &str,
) -> rusqlite::Result<bool> {
    let violations: u64 = report.violations.iter().map(|v| v.count).sum();
    let changed = conn.execute(
        "UPDATE sessions SET ended_ns = ?, verdict = ?, reason = 'finished', assurance = ?, violations = ?, \
         emitted = ?, stored = ?, dropped = ?, report = ? WHERE key = ?",
        params![
            ended_ns,
            report.verdict.to_string(),
            words::assurance_word(report.session.assurance),
            violations.cast_signed(),
            report.counters.emitted.cast_signed(),
            report.counters.stored.cast_signed(),
            json!(report.counters.dropped).to_string(),
            text,
            key,
        ],
    )?;
    Ok(changed == 1)
}

/// Inserts every row that can be inserted at all.
pub(crate) fn events(tx: &Transaction<'_>, session: i64, batches: &[Vec<EventRow>]) -> rusqlite::Result<Inserted> {
    let mut insert = tx.prepare_cached(EVENT)?;
    let mut inserted = Inserted::default();
    for row in batches.iter().flatten() {
        if row.seq >> SEQUENCE_BITS != 0 {
            inserted.refused += 1;
            continue;
        }
        bind(&mut insert, session << SEQUENCE_BITS | row.seq.cast_signed(), row)?;
        match insert.raw_execute() {
            Ok(_) => inserted.stored += 1,
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => inserted.refused += 1,
            Err(e) => return Err(e),
        }
    }
    Ok(inserted)
}

/// In the order of [`EVENT`]'s columns.
fn bind(insert: &mut CachedStatement<'_>, key: i64, row: &EventRow) -> rusqlite::Result<()> {
    let local = row.local.map(|a| (Octets::of(a), a.port()));
    let peer = row.peer.map(|a| (Octets::of(a), a.port()));
    insert.raw_bind_parameter(1, key)?;
    insert.raw_bind_parameter(2, row.at.boot_ns.cast_signed())?;
    insert.raw_bind_parameter(3, row.at.wall_ns)?;
    insert.raw_bind_parameter(4, row.kind as u8)?;
    insert.raw_bind_parameter(5, row.process.tgid)?;
    insert.raw_bind_parameter(6, row.process.tid)?;
    insert.raw_bind_parameter(7, row.process.uid)?;
    insert.raw_bind_parameter(8, row.flow.map(|f| f.cookie.cast_signed()))?;
    insert.raw_bind_parameter(9, row.flow.map(|f| f.sequence))?;
    insert.raw_bind_parameter(10, row.protocol.map(|p| p.number()))?;
    insert.raw_bind_parameter(11, row.direction.map(words::direction_number))?;
    insert.raw_bind_parameter(12, local.as_ref().map(|(octets, _)| octets.bytes()))?;
    insert.raw_bind_parameter(13, local.as_ref().map(|(_, port)| *port))?;
    insert.raw_bind_parameter(14, peer.as_ref().map(|(octets, _)| octets.bytes()))?;
    insert.raw_bind_parameter(15, peer.as_ref().map(|(_, port)| *port))?;
    insert.raw_bind_parameter(16, row.action.map(words::action_number))?;
    insert.raw_bind_parameter(17, row.reason.map(words::reason_number))?;
    insert.raw_bind_parameter(18, row.action.map(|_| row.enforced))?;
    insert.raw_bind_parameter(19, row.rule.as_deref())?;
    insert.raw_bind_parameter(20, row.host.as_deref())?;
    insert.raw_bind_parameter(21, row.sent.map(u64::cast_signed))?;
    insert.raw_bind_parameter(22, row.received.map(u64::cast_signed))?;
    insert.raw_bind_parameter(23, row.detail.as_deref())
}

/// An address as the database holds it, without an allocation.
struct Octets {
    bytes: [u8; 16],
    len: usize,
}

impl Octets {
    fn of(addr: SocketAddr) -> Self {
        match addr.ip() {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                Self { bytes, len: 4 }
            }
            IpAddr::V6(v6) => Self { bytes: v6.octets(), len: 16 },
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
