//! `trustrun policy replay SESSION`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use trustrun_policy::{Outcome, Reader, Replay, Replayed};

use super::{
    ToolError, compose,
    output::{self, Format, Page},
    sessions,
};
use crate::policies::PolicyOptions;

/// Say what a policy would have done in an earlier session.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Its id, a unique beginning of it, `last`, or a report's file.
    #[arg(value_name = "SESSION|REPORT")]
    session: String,
    #[command(flatten)]
    policy: PolicyOptions,
    /// The events database.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
}

pub(super) fn run(args: &ReplayArgs, format: Format) -> Result<ExitCode, ToolError> {
    let policy = compose(&args.policy)?;
    let report = sessions::report(&args.session, args.db.as_ref())?;
    let replay = Reader::new(&policy).replay(&report);
    match format {
        Format::Json => output::json(&value(&replay, &report.session.id))?,
        _ => text(&replay, &report.session.id, &policy.name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(replay: &Replay, session: &str, policy: &str) -> Result<(), ToolError> {
    let mut page = Page::new();
    page.line(format!("session {session} under policy {policy}:"));
    let kinds = [
        (Outcome::Refused, "would be refused:"),
        (Outcome::Allowed, "would be let through:"),
        (Outcome::Changed, "would be judged otherwise:"),
    ];
    for (rows, what) in [(&replay.connections, ""), (&replay.lookups, "lookup of ")] {
        for (outcome, title) in kinds {
            for (at, row) in rows.iter().filter(|row| row.outcome == outcome).enumerate() {
                if at == 0 {
                    page.line(format!("  {title}"));
                }
                let by: Vec<&str> = row.by.iter().map(String::as_str).collect();
                let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
                let perhaps = if row.uncertain { ", if the rule's condition holds" } else { "" };
                let times = if row.count == 1 { "once".to_owned() } else { format!("{} times", row.count) };
                let text =
                    format!("{what}{}, {times}{by}: was {}, rule `{}`{perhaps}", row.destination, row.before, row.rule);
                page.action(4, row.after, text);
            }
        }
    }
    let same = |rows: &[Replayed]| rows.iter().filter(|row| row.outcome == Outcome::Unchanged).count();
    let (connections, lookups) = (same(&replay.connections), same(&replay.lookups));
    page.line(format!("  unchanged: {connections} destinations, {lookups} lookups"));
    if !replay.unknown.is_empty() {
        page.line("  cannot be known:");
    }
    for what in &replay.unknown {
        page.line(format!("    - {what}"));
    }
    page.print()
}

fn value(replay: &Replay, session: &str) -> Value {
    let rows = |rows: &[Replayed]| rows.iter().map(row).collect::<Vec<_>>();
    json!({
        "schema": "trustrun.policy.replay/1",
        "session": session,
        "connections": rows(&replay.connections),
        "lookups": rows(&replay.lookups),
        "unknown": replay.unknown,
    })
}

fn row(row: &Replayed) -> Value {
    json!({
        "outcome": row.outcome.as_str(), "destination": row.destination, "before": row.before.as_str(),
        "after": row.after.as_str(), "rule": row.rule, "count": row.count, "by": row.by, "uncertain": row.uncertain,
    })
}
