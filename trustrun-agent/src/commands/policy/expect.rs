//! `trustrun policy test FILE`

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;
use trustrun_policy::{Destination, Expectation, Expectations, Named, PolicyError, Reader, read_file};

use super::{
    ToolError, compose,
    output::{self, Format, Page},
};
use crate::{caller, policies::PolicyOptions};

/// Check that a policy does what a file of expectations says.
///
/// Exits with 0 if all hold, 1 if one does not, 2 if there is nothing to check.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// `policy: notebook.yaml` and `expect:`, a list of `{destination, action}`, with `as` and `rule` where they matter.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What came of one expectation.
struct Outcome<'e> {
    expected: &'e Expectation,
    action: trustrun_model::Action,
    rule: String,
    holds: bool,
}

pub(super) fn run(args: &TestArgs, format: Format) -> Result<ExitCode, ToolError> {
    let name = args.file.to_string_lossy();
    let file = caller::as_caller(|| File::open(&args.file)).map_err(|e| PolicyError::unreadable(&name, e))?;
    let expectations = Expectations::parse(&name, &read_file(&name, file)?)?;
    let options = PolicyOptions {
        named: expectations.policy.iter().map(|policy| beside(&args.file, policy)).collect(),
        environment: expectations.environment.clone(),
        parameters: expectations.parameters.clone(),
    };
    let policy = compose(&options)?;
    let reader = Reader::new(&policy);
    let outcomes: Vec<Outcome<'_>> = expectations.expect.iter().map(|expected| judge(&reader, expected)).collect();
    let failed = outcomes.iter().filter(|outcome| !outcome.holds).count();
    match format {
        Format::Json => output::json(&value(&outcomes, failed))?,
        _ => text(&name, &outcomes, failed)?,
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A preset by its name; a file beside the expectations.
fn beside(file: &Path, policy: &str) -> PathBuf {
    match Named::new(Path::new(policy)) {
        Named::Preset(name) => name.into(),
        _ => match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => parent.join(policy),
            // A name without a folder could be taken for a preset's.
            None => Path::new(".").join(policy),
        },
    }
}

fn judge<'e>(reader: &Reader<'_>, expected: &'e Expectation) -> Outcome<'e> {
    let (action, rule, _) = reader.decide(&expected.destination, &expected.who);
    let holds = action == expected.action && expected.rule.as_ref().is_none_or(|wanted| *wanted == rule);
    Outcome { expected, action, rule, holds }
}

fn text(file: &str, outcomes: &[Outcome<'_>], failed: usize) -> Result<(), ToolError> {
    let mut page = Page::new();
    for Outcome { expected, action, rule, .. } in outcomes.iter().filter(|outcome| !outcome.holds) {
        let wanted = expected.rule.as_ref().map(|rule| format!(" by `{rule}`")).unwrap_or_default();
        let destination: &Destination = &expected.destination;
        page.line(format!(
            "{file}:{}: {destination}: expected {}{wanted}, found {action} by `{rule}`",
            expected.line, expected.action
        ));
    }
    page.line(format!("{} expectations, {failed} do not hold", outcomes.len()));
    page.print()
}

fn value(outcomes: &[Outcome<'_>], failed: usize) -> serde_json::Value {
    let each = outcomes.iter().map(|outcome| {
        json!({
            "destination": outcome.expected.destination.to_string(),
            "line": outcome.expected.line,
            "holds": outcome.holds,
            "expected": {"action": outcome.expected.action.as_str(), "rule": outcome.expected.rule},
            "found": {"action": outcome.action.as_str(), "rule": outcome.rule},
        })
    });
    json!({"schema": "trustrun.policy.test/1", "failed": failed, "expectations": each.collect::<Vec<_>>()})
}
