//! `trustrun policy diff A B`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use trustrun_policy::{Change, DiffRow, Difference, Word};

use super::{
    ToolError, compose,
    output::{self, Format, Page, place},
};
use crate::policies::PolicyOptions;

/// Say what a second policy lets through or refuses that a first does not.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The policy as it was.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The policy as it is to be.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Take the overlays of this name.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Exit with 1 where they differ.
    #[arg(long)]
    exit_code: bool,
}

/// The kinds of change, with their words.
const KINDS: [(Change, &str, &str); 3] = [
    (Change::Passes, "newly-passes", "newly let through:"),
    (Change::Refused, "newly-refused", "newly refused:"),
    (Change::Severity, "changed", "changed:"),
];

pub(super) fn run(args: &DiffArgs, format: Format) -> Result<ExitCode, ToolError> {
    let one = |path: &PathBuf| {
        let options = PolicyOptions {
            named: vec![path.clone()],
            environment: args.environment.clone(),
            ..PolicyOptions::default()
        };
        compose(&options)
    };
    let difference = one(&args.before)?.compare(&one(&args.after)?);
    match format {
        Format::Json => output::json(&value(&difference))?,
        _ => text(&difference)?,
    }
    Ok(if args.exit_code && !is_none(&difference) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn is_none(d: &Difference) -> bool {
    d.rows.is_empty() && d.listen.is_empty() && d.sockets_added.is_empty() && d.sockets_removed.is_empty()
}

fn text(difference: &Difference) -> Result<(), ToolError> {
    let mut page = Page::new();
    if is_none(difference) {
        page.line("The policies decide the same about every destination.");
    }
    for (rows, what) in [(&difference.rows, ""), (&difference.listen, "accepted from ")] {
        for (change, _, title) in KINDS {
            let rows: Vec<&DiffRow> = rows.iter().filter(|row| row.change() == change).collect();
            if rows.is_empty() {
                continue;
            }
            page.line(title);
            for row in rows {
                page.action(2, row.after.action, format!("{what}{}, was {}", shown(row), said(&row.before)));
                page.line(format!("         by {}", by(&row.after)));
            }
        }
    }
    for (sockets, word) in [(&difference.sockets_added, "let in"), (&difference.sockets_removed, "no longer let in")] {
        for socket in sockets {
            page.line(format!("socket {word}: {}", socket.to_string_lossy()));
        }
    }
    if !difference.complete {
        page.line(
            "More names and networks meet than were compared: there may be more differences where both are known.",
        );
    }
    page.print()
}

fn shown(row: &DiffRow) -> String {
    let protocol = row.protocol.map_or_else(|| "every other protocol".to_owned(), |p| p.to_string());
    let ports = match row.ports {
        (0, u16::MAX) => protocol,
        (lo, hi) if lo == hi => format!("{protocol}/{lo}"),
        (lo, hi) => format!("{protocol}/{lo}-{hi}"),
    };
    let default = row.before.rule.is_none() && row.after.rule.is_none() && row.protocol.is_none();
    let ports = if default { "any protocol".to_owned() } else { ports };
    let side = row.side.map(|side| format!(" with {side}")).unwrap_or_default();
    let processes = row.processes.as_ref().map(|who| format!(" for {who}")).unwrap_or_default();
    format!("{}{side} {ports}{processes}", row.destination)
}

fn said(word: &Word) -> String {
    let severity = word.severity.map(|severity| format!(", {severity}")).unwrap_or_default();
    format!("{}{severity}", word.action)
}

fn by(word: &Word) -> String {
    word.rule
        .as_ref()
        .map_or_else(|| "the default".to_owned(), |(rule, origin)| format!("rule `{rule}` ({})", place(origin)))
}

fn value(difference: &Difference) -> Value {
    let rows = |rows: &[DiffRow]| rows.iter().map(row).collect::<Vec<_>>();
    json!({
        "schema": "trustrun.policy.diff/1",
        "differs": !is_none(difference),
        "complete": difference.complete,
        "destinations": rows(&difference.rows),
        "listen": rows(&difference.listen),
        "unix_sockets_added": difference.sockets_added,
        "unix_sockets_removed": difference.sockets_removed,
    })
}

fn row(row: &DiffRow) -> Value {
    let change = KINDS.iter().find(|(change, ..)| *change == row.change()).map_or("changed", |(_, word, _)| word);
    let word = |word: &Word| {
        let rule = word.rule.as_ref();
        json!({
            "action": word.action.as_str(),
            "rule": rule.map_or("default", |(rule, _)| rule.as_str()),
            "source": rule.map(|(_, origin)| place(origin)),
            "severity": word.severity.map(|severity| severity.to_string()),
        })
    };
    json!({
        "change": change,
        "destination": row.destination,
        "protocol": row.protocol.map(|protocol| protocol.to_string()),
        "ports": [row.ports.0, row.ports.1],
        "processes": row.processes,
        "address": row.side,
        "before": word(&row.before),
        "after": word(&row.after),
        "example": {"host": row.example.host, "address": row.example.address, "port": row.example.port, "protocol": row.example.protocol.to_string()},
    })
}
