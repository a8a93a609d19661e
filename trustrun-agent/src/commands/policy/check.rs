//! `trustrun policy check [FILE...]`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use trustrun_model::Untrusted;
use trustrun_policy::{Facts, Lint, LintKind, Named, Policy, PolicyError};

use super::{
    ToolError,
    output::{self, Format, Page},
};
use crate::{
    policies::{PolicyOptions, today},
    trusted::Looking,
};

/// Check that policies are well-formed, and say what in them was hardly meant.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Files, or presets by their names; each by itself. None is the active policy, and why it is that one.
    #[arg(value_name = "FILE|PRESET")]
    files: Vec<PathBuf>,
    /// Take the policy's overlay of this name.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Exit with 1 also where something was hardly meant.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &CheckArgs, format: Format) -> Result<ExitCode, ToolError> {
    let (mut page, mut all) = (Page::new(), Vec::new());
    let (mut wrong, mut hints) = (false, 0);
    if args.files.is_empty() {
        let chosen = options(args).for_session(false)?;
        chosen.said.iter().for_each(|said| page.line(said));
        let policy = chosen.policy.ok_or(ToolError::NoPolicy)?;
        let lints = policy.lints(today(), Facts::default());
        hints += lints.len();
        text(&mut page, "active", &policy, &lints);
        let mut value = value("active", &policy, &lints);
        value["why"] = json!(chosen.said);
        value["settings"] = json!(chosen.settings);
        all.push(value);
    }
    for file in &args.files {
        let name = file.to_string_lossy();
        match compose(args, file) {
            Ok(policy) => {
                let lints = policy.lints(today(), Facts::default());
                hints += lints.len();
                text(&mut page, &name, &policy, &lints);
                all.push(value(&name, &policy, &lints));
            }
            Err(error) => {
                wrong = true;
                // Begins with the file; goes to where failures go.
                if format != Format::Json {
                    eprintln!("trustrun: {error}");
                }
                all.push(refused(&name, &error));
            }
        }
    }
    match format {
        Format::Json => output::json(&json!({"schema": "trustrun.policy.check/1", "policies": all}))?,
        _ => page.print()?,
    }
    Ok(match (wrong, args.strict && hints > 0) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn options(args: &CheckArgs) -> PolicyOptions {
    PolicyOptions { environment: args.environment.clone(), ..PolicyOptions::default() }
}

fn compose(args: &CheckArgs, file: &std::path::Path) -> Result<Policy, PolicyError> {
    let options = options(args);
    let mut opener = Looking;
    let named = Named::new(file);
    // A preset is looked at by itself: it has no default, and nobody gave its parameters.
    let alone = matches!(named, Named::Preset(_));
    let composer = options.composer(&mut opener);
    if alone { composer.with_placeholders() } else { composer }.compose(&[named])
}

fn text(page: &mut Page, name: &str, policy: &Policy, lints: &[Lint]) {
    let mode = if policy.enforcing() { "enforcing" } else { "observing" };
    page.line(format!(
        "{}: policy {}, {} rules, default {}, {mode}",
        Untrusted::new(name),
        Untrusted::new(policy.name.as_str()),
        policy.rules.len(),
        policy.default
    ));
    for lint in lints {
        page.line(format!("  {}:{}:{}: {}", lint.document, lint.line, lint.column, lint.message));
    }
}

fn value(name: &str, policy: &Policy, lints: &[Lint]) -> Value {
    let documents = policy.documents.iter().map(|d| json!({"name": d.name, "sha256": d.sha256, "preset": d.preset}));
    let lints = lints.iter().map(|lint| {
        json!({"kind": word(lint.kind), "document": lint.document, "line": lint.line, "column": lint.column, "message": lint.message})
    });
    json!({
        "file": name, "valid": true, "name": policy.name, "sha256": policy.sha256, "rules": policy.rules.len(),
        "listen": policy.listen.len(), "default": policy.default.as_str(), "enforcing": policy.enforcing(),
        "documents": documents.collect::<Vec<_>>(), "lints": lints.collect::<Vec<_>>(), "errors": [],
    })
}

/// A short stable word.
fn word(kind: LintKind) -> &'static str {
    match kind {
        LintKind::OverBroad => "over-broad",
        LintKind::Shadowed => "shadowed",
        LintKind::Contradiction => "contradiction",
        LintKind::AnyTenant => "any-tenant",
        LintKind::NoAgreement => "no-agreement",
        LintKind::PublicResolver => "public-resolver",
        LintKind::Expired => "expired",
        LintKind::ExpiresSoon => "expires-soon",
        LintKind::NothingMatches => "nothing-matches",
        LintKind::Idn => "idn",
        LintKind::MixedScripts => "mixed-scripts",
    }
}

fn refused(name: &str, error: &PolicyError) -> Value {
    let mut errors: Vec<Value> = error
        .faults()
        .iter()
        .map(|wrong| {
            json!({"file": wrong.at.file, "line": wrong.at.line, "column": wrong.at.column, "message": wrong.fault.to_string()})
        })
        .collect();
    if errors.is_empty() {
        errors.push(json!({"file": name, "line": null, "column": null, "message": error.to_string()}));
    }
    json!({"file": name, "valid": false, "errors": errors})
}
