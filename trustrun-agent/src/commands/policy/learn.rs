//! `trustrun policy learn SESSION...`, and what `run --learn` writes.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};
use trustrun_model::{Report, Untrusted};
use trustrun_policy::{Line, Profile, Reader, Review, write_profile};

use super::{
    ToolError, compose,
    output::{self, Format},
    review, sessions,
};
use crate::{caller, policies::PolicyOptions};

/// Propose a policy from what sessions reached.
///
/// On a terminal each line is reviewed; elsewhere say --accept-all. Names come from DNS answers that were believed, never
/// from what a program claims.
#[derive(Debug, Args)]
pub(super) struct LearnArgs {
    /// Ids, unique beginnings of them, `last`, or reports' files.
    #[arg(value_name = "SESSION|REPORT", required = true)]
    sessions: Vec<String>,
    /// Take every line without review.
    #[arg(long)]
    accept_all: bool,
    /// Only what this policy does not let through yet; the result extends it.
    #[arg(long, value_name = "FILE|PRESET")]
    base: Vec<PathBuf>,
    /// Write the policy to this file; an existing one is replaced.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The policy's name.
    #[arg(long, default_value = "learned")]
    name: String,
    /// The events database.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
}

pub(super) fn run(args: &LearnArgs, format: Format) -> Result<ExitCode, ToolError> {
    let mut profile = Profile::default();
    for session in &args.sessions {
        profile.add_report(&sessions::report(session, args.db.as_ref())?);
    }
    let mut lines = profile.lines();
    if !args.base.is_empty() {
        let base = compose(&PolicyOptions { named: args.base.clone(), ..PolicyOptions::default() })?;
        let reader = Reader::new(&base);
        lines.retain(|line| !line.is_in(&reader));
    }
    if !args.accept_all && !lines.is_empty() {
        if !io::stdin().is_terminal() {
            return Err(ToolError::NoTerminal);
        }
        lines = review::review(lines)?;
    }
    let text = write_profile(&args.name, &lines, &extends(args));
    match (&args.output, format) {
        (Some(path), _) => {
            caller::replace(path, text.as_bytes()).map_err(|source| ToolError::File {
                what: "cannot write",
                path: path.clone(),
                source,
            })?;
            eprintln!("trustrun: {} lines in {}", lines.len(), Untrusted::new(path.to_string_lossy()));
        }
        (None, Format::Json) => output::json(&value(&lines, &text))?,
        (None, _) => output::write(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the policy is to extend, found from where it is written: a file by its whole path, a preset by its name.
fn extends(args: &LearnArgs) -> Vec<String> {
    let one = |path: &PathBuf| match path.is_file() {
        true => std::path::absolute(path).unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned(),
        false => path.to_string_lossy().into_owned(),
    };
    args.base.iter().map(one).collect()
}

fn value(lines: &[Line], text: &str) -> Value {
    let each = lines.iter().map(|line| {
        json!({
            "pattern": line.pattern.to_string(),
            "review": if line.review == Review::Deny { "deny" } else { "approve" },
            "asked_only": line.asked,
            "connections": line.count,
            "bytes_sent": line.sent,
            "bytes_received": line.received,
            "executables": line.exes,
            "sessions": line.sessions,
            "note": line.note,
        })
    });
    json!({"schema": "trustrun.policy.learn/1", "lines": each.collect::<Vec<_>>(), "policy": text})
}

/// Writes a policy that allows what a session did.
pub(crate) fn write(path: &Path, report: &Report) {
    let mut profile = Profile::default();
    profile.add_report(report);
    let name = path.file_stem().map_or_else(|| "learned".into(), |stem| stem.to_string_lossy().into_owned());
    let text = write_profile(&name, &profile.lines(), &[]);
    match caller::replace(path, text.as_bytes()) {
        Ok(()) => eprintln!("trustrun: learned a policy: {}", Untrusted::new(path.to_string_lossy())),
        Err(e) => eprintln!("trustrun: writing the policy: {e}"),
    }
}
