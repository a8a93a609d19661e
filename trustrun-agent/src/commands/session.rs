//! `trustrun session list|show|report`: what earlier sessions found.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use trustrun_model::{Report, Untrusted, inert_json, rfc3339};
use trustrun_session::summary::{Style, render};
use trustrun_store::{Reader, SessionRow, SessionState, StoreError, readable_path};

use crate::caller;

/// Look at earlier sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
    /// The database [default: the system's where it can be read, else your own].
    #[arg(long, value_name = "FILE", global = true)]
    db: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List sessions, the latest first.
    List {
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show all that a session found.
    Show {
        /// Its id, a unique beginning of it, or `last`.
        id: String,
    },
    /// Print a session's report, JSON.
    Report {
        /// Its id, a unique beginning of it, or `last`.
        id: String,
        /// Write it to a new file instead (mode 0600); an existing one is replaced.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why a session cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The session has no report.
    #[error("session {id} has no report: {}", state.explain())]
    NoReport {
        /// The session.
        id: String,
        /// Why it has none.
        state: SessionState,
    },
    /// The report in the database is no report.
    #[error("the stored report of session {id} cannot be read: {source}")]
    Unreadable {
        /// The session.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The output.
    #[error("cannot write {}: {source}", Untrusted::new(path.to_string_lossy()))]
    Output {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs `trustrun session …`.
///
/// # Errors
/// If there is no such session or database, or the output cannot be written.
pub(crate) fn run(args: &SessionArgs) -> Result<ExitCode, SessionError> {
    let path = args.db.clone().unwrap_or_else(|| readable_path().path);
    let reader = Reader::open(&path)?;
    let text = match (&args.command, args.format) {
        (SessionCommand::List { limit }, Format::Text) => table(&reader.sessions(*limit, None)?),
        (SessionCommand::List { limit }, Format::Json) => {
            let rows: Vec<_> = reader.sessions(*limit, None)?.iter().map(json).collect();
            pretty(&serde_json::json!({"schema": "trustrun.sessions/1", "sessions": rows}))
        }
        (SessionCommand::Show { id }, Format::Text) => show(&reader, id)?,
        (SessionCommand::Show { id }, Format::Json) => report(&reader, id)?,
        (SessionCommand::Report { id, output: None }, _) => report(&reader, id)?,
        (SessionCommand::Report { id, output: Some(path) }, _) => {
            let text = report(&reader, id)?;
            caller::replace(path, text.as_bytes())
                .map_err(|source| SessionError::Output { path: path.clone(), source })?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), SessionError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(SessionError::Output { path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    inert_json(format!("{value:#}\n"))
}

/// The report as it was stored, readable; fields that this version does not know stay.
fn report(reader: &Reader, id: &str) -> Result<String, SessionError> {
    let session = reader.session(id)?;
    let text = reader.report(&session.id)?;
    let text = text.ok_or(SessionError::NoReport { id: session.id.clone(), state: session.state })?;
    let value = serde_json::from_str(&text).map_err(|source| SessionError::Unreadable { id: session.id, source })?;
    Ok(pretty(&value))
}

fn show(reader: &Reader, id: &str) -> Result<String, SessionError> {
    let session = reader.session(id)?;
    let Some(text) = reader.report(&session.id)? else { return Ok(unfinished(&session)) };
    let report: Report =
        serde_json::from_str(&text).map_err(|source| SessionError::Unreadable { id: session.id, source })?;
    let terminal = io::stdout().is_terminal();
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    Ok(render(&report, Style { color, width: 0, full: true, db: None }))
}

/// What is known of a session without a report.
fn unfinished(session: &SessionRow) -> String {
    format!(
        "INCOMPLETE  {}\n  session {}, started {}, {}\n  {}\n",
        session.state.explain(),
        Untrusted::new(&session.id),
        rfc3339(session.started_ns),
        session.policy.as_ref().map_or("no policy".into(), |p| format!("policy {}", Untrusted::new(&p.name))),
        Untrusted::new(session.command.join(" "))
    )
}

/// Columns as wide as they must be; the command last, since it may be long.
fn table(sessions: &[SessionRow]) -> String {
    if sessions.is_empty() {
        return "No sessions yet. Begin with: trustrun run -- CMD\n".into();
    }
    let header = ["ID", "STARTED", "VERDICT", "VIOLATIONS", "POLICY", "COMMAND"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(sessions.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    rows.iter().fold(String::new(), |mut table, row| {
        for (cell, width) in row.iter().zip(widths) {
            table.push_str(&format!("{cell:<width$}  "));
        }
        table.push_str(&row[5]);
        table.push('\n');
        table
    })
}

fn cells(session: &SessionRow) -> [String; 6] {
    let verdict = match session.state {
        SessionState::Finished => session.verdict.to_string(),
        SessionState::Running => "running".into(),
        SessionState::Lost => "incomplete (lost)".into(),
    };
    let shown = |text: &str, max: usize| {
        let text = Untrusted::new(text).to_string();
        if text.chars().count() <= max { text } else { text.chars().take(max - 1).chain(['…']).collect() }
    };
    [
        shown(&session.id, 40),
        rfc3339(session.started_ns).chars().take(19).chain(['Z']).collect(),
        verdict,
        session.violations.map_or_else(|| "-".into(), |v| v.to_string()),
        session.policy.as_ref().map_or_else(|| "-".into(), |p| shown(&p.name, 30)),
        shown(&session.command.join(" "), 80),
    ]
}

fn json(session: &SessionRow) -> serde_json::Value {
    serde_json::json!({
        "id": session.id,
        "started_at": rfc3339(session.started_ns),
        "ended_at": session.ended_ns.map(rfc3339),
        "verdict": session.verdict,
        "state": match session.state {
            SessionState::Running => "running",
            SessionState::Finished => "finished",
            SessionState::Lost => "lost",
        },
        "reason": session.state.explain(),
        "command": session.command,
        "user": session.user,
        "policy": session.policy,
        "sensor": session.sensor,
        "assurance": session.assurance,
        "host": session.host,
        "labels": session.labels,
        "violations": session.violations,
        "counters": session.counters,
    })
}
