//! One line of NDJSON for each event (`--events`).

use serde_json::{Map, Value, json};
use trustrun_model::{inert_json, rfc3339};
use trustrun_store::EventRow;

/// The event as one JSON object without a newline. Absent fields are left out.
pub(crate) fn line(session: &str, row: &EventRow) -> String {
    let mut o = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            o.insert(key.into(), value);
        }
    };
    put("schema", json!("trustrun.event/1"));
    put("session", json!(session));
    put("seq", json!(row.seq));
    put("at", json!(rfc3339(row.at.wall_ns)));
    put("boot_ns", json!(row.at.boot_ns));
    put("kind", json!(row.kind.as_str()));
    put("pid", json!(row.process.tgid));
    put("tid", json!(row.process.tid));
    put("uid", json!(row.process.uid));
    if let Some(f) = row.flow {
        put("flow", json!({"cookie": f.cookie, "sequence": f.sequence}));
    }
    put("protocol", json!(row.protocol.map(|p| p.to_string())));
    put("direction", json!(row.direction));
    put("local", json!(row.local.map(|a| a.to_string())));
    put("peer", json!(row.peer.map(|a| a.to_string())));
    put("host", json!(row.host.as_deref()));
    put("action", json!(row.action));
    put("rule", json!(row.rule.as_deref()));
    put("enforced", if row.action.is_some() { json!(row.enforced) } else { Value::Null });
    put("sent", json!(row.sent));
    put("received", json!(row.received));
    put("detail", row.detail.as_deref().and_then(|d| serde_json::from_str(d).ok()).unwrap_or(Value::Null));
    // A line may go to a terminal, and names may hold what acts on it.
    inert_json(Value::Object(o).to_string())
}
