//! `trustrun policy presets [NAME]`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use trustrun_policy::{Described, Kind, Preset, presets, sha256};

use super::{
    ToolError,
    output::{self, Format, Page},
};

/// List the presets that come with trustrun, or show one.
#[derive(Debug, Args)]
pub(super) struct PresetsArgs {
    /// The one to show.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(super) fn run(args: &PresetsArgs, format: Format) -> Result<ExitCode, ToolError> {
    match &args.name {
        None => list(format)?,
        Some(name) => {
            let preset = presets().iter().find(|preset| preset.name == name);
            let found = || trustrun_model::Untrusted::new(name).to_string();
            show(preset.ok_or_else(|| ToolError::NoPreset { found: found() })?, format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(format: Format) -> Result<(), ToolError> {
    let described = presets().iter().filter_map(|preset| Some((preset, preset.describe()?)));
    if format == Format::Json {
        let all: Vec<Value> = described.map(|(preset, described)| value(preset, &described)).collect();
        return output::json(&json!({"schema": "trustrun.policy.presets/1", "presets": all}));
    }
    let mut page = Page::new();
    let width = presets().iter().map(|preset| preset.name.len()).max().unwrap_or(0);
    for (preset, described) in described {
        let names: Vec<&str> = described.parameters.iter().map(|p| &*p.name).collect();
        let wants = if names.is_empty() { String::new() } else { format!(" (wants {})", names.join(", ")) };
        let what = described.description.as_deref().unwrap_or_default();
        page.line(format!("{:<width$}  {}{wants}", preset.name, what));
    }
    page.line("");
    page.line(
        "`trustrun policy presets NAME` shows one: its text, where its names are from, and what it does not promise.",
    );
    page.print()
}

fn show(preset: &Preset, format: Format) -> Result<(), ToolError> {
    let described = preset.describe();
    match (format, described) {
        (Format::Json, Some(described)) => {
            let mut value = value(preset, &described);
            value["schema"] = json!("trustrun.policy.preset/1");
            value["text"] = json!(preset.text);
            output::json(&value)
        }
        // It is a policy's text, to be read, copied and compared.
        _ => output::write(preset.text),
    }
}

fn value(preset: &Preset, described: &Described) -> Value {
    let head = &described.head;
    let kind = match head.kind {
        Kind::Baa => "baa",
        Kind::Deny => "deny",
        Kind::Allow => "allow",
    };
    let form = (head.kind == Kind::Baa).then_some(if head.tenant { "tenant" } else { "provider" });
    let parameters = described.parameters.iter().map(|p| {
        json!({"name": &*p.name, "description": p.description, "default": p.default.as_deref(), "required": p.default.is_none()})
    });
    json!({
        "name": preset.name,
        "description": described.description,
        "kind": kind,
        "form": form,
        "parameters": parameters.collect::<Vec<_>>(),
        "source": head.source,
        "checked_on": head.checked_on.map(|day| day.to_string()),
        "disclaimer": head.disclaimer,
        "sha256": sha256(preset.text.as_bytes()),
    })
}
