//! `trustrun policy explain DEST`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use trustrun_model::BaaClass;
use trustrun_policy::{Counts, Destination, Explanation, Matched, Who};

use super::{
    ToolError, compose,
    output::{self, Format, Page, place},
};
use crate::policies::{PolicyOptions, today};

/// Say why a policy lets a destination through or not.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A host, an address, `host:port`, `udp/…` or `name@address`; port 443 where none is written.
    #[arg(value_name = "DEST")]
    destination: String,
    #[command(flatten)]
    policy: PolicyOptions,
    /// Ask for a process: its executable's path, its user, or both.
    #[arg(long = "as", value_name = "EXE,USER")]
    who: Option<String>,
}

pub(super) fn run(args: &ExplainArgs, format: Format) -> Result<ExitCode, ToolError> {
    let destination: Destination = args.destination.parse()?;
    let who: Who = args.who.as_deref().map(str::parse).transpose()?.unwrap_or_default();
    let policy = compose(&args.policy)?;
    let explanation = policy.explain(&destination, &who, today());
    match format {
        Format::Json => output::json(&value(&destination, &explanation))?,
        _ => text(&destination, &explanation)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(destination: &Destination, explanation: &Explanation) -> Result<(), ToolError> {
    let mut page = Page::new();
    page.action(0, explanation.action, destination.to_string());
    match &explanation.winner {
        Some(rule) if rule.counts == Counts::Perhaps => {
            page.line(format!("  because of {}, if its condition holds (ask with --as)", named(rule)));
        }
        Some(rule) => page.line(format!("  because of {}", named(rule))),
        None => page.line("  because no rule matches: this is the policy's default"),
    }
    if !destination.port_given && destination.port != 0 {
        page.line("  (no port was written: 443 is meant)");
    }
    let others = explanation.matched.iter().skip(usize::from(explanation.winner.is_some()));
    for (at, rule) in others.enumerate() {
        if at == 0 {
            page.line("  other rules that match:");
        }
        page.action(4, rule.action, format!("{}; {}", named(rule), counts(rule)));
    }
    for expired in &explanation.expired {
        page.line(format!("  no longer counts: {expired} ({})", place(expired.place().1)));
    }
    if let Some(baa) = &explanation.baa {
        let note = if baa.note.is_empty() { String::new() } else { format!(": {}", baa.note) };
        page.line(format!("  agreement: {}{note}", word(baa.status)));
    }
    if let Some((action, rule)) = &explanation.lookup {
        let rule = rule.as_deref().map_or_else(|| "the default".to_owned(), |rule| format!("rule `{rule}`"));
        page.line(format!("  a lookup of the name: {action} ({rule})"));
    }
    page.line(format!("  held by: {} ({})", explanation.lock.as_str(), explanation.lock.explain()));
    if let Some(literal) = explanation.literal {
        page.line(format!("  with a literal address that no rule names, instead of the name: {literal}"));
    }
    if let Some(remedy) = explanation.winner.as_ref().and_then(|rule| rule.remedy.as_ref()) {
        page.line(format!("  to turn it off: {remedy}"));
    }
    page.print()
}

fn named(rule: &Matched) -> String {
    let reason = rule.reason.as_ref().map(|reason| format!(", \"{reason}\"")).unwrap_or_default();
    format!("rule `{}` by \"{}\" ({}{reason})", rule.rule, rule.pattern, place(&rule.origin))
}

/// The word of reports.
fn word(class: BaaClass) -> &'static str {
    match class {
        BaaClass::Covered => "covered",
        BaaClass::Capable => "capable",
        BaaClass::Expired => "expired",
    }
}

fn counts(rule: &Matched) -> String {
    match &rule.counts {
        Counts::Yes => "is not the most severe, or another's name sorts first".to_owned(),
        Counts::Perhaps => "counts if its condition holds (ask with --as)".to_owned(),
        Counts::OtherProcess => "is about other processes".to_owned(),
        Counts::WrongAddress => "grants no such address (`private`, `require_private_ip`)".to_owned(),
        Counts::Excepted { reason, origin, expires } => {
            let until = expires.map(|day| format!(", until {day}")).unwrap_or_default();
            format!("is silent by an exception: \"{reason}\"{until} ({})", place(origin))
        }
    }
}

fn value(destination: &Destination, explanation: &Explanation) -> Value {
    let winner = explanation.winner.as_ref();
    let lookup = explanation.lookup.as_ref();
    json!({
        "schema": "trustrun.policy.explain/1",
        "destination": destination.to_string(),
        "host": destination.host,
        "address": destination.address,
        "port": destination.port,
        "port_assumed": !destination.port_given && destination.port != 0,
        "protocol": destination.protocol.to_string(),
        "action": explanation.action.as_str(),
        "rule": winner.map_or("default", |rule| rule.rule.as_str()),
        "source": winner.map(|rule| place(&rule.origin)),
        "lock": explanation.lock.as_str(),
        "lock_explained": explanation.lock.explain(),
        "baa": explanation.baa.as_ref().map(|baa| word(baa.status)),
        "baa_note": explanation.baa.as_ref().map(|baa| baa.note.as_str()),
        "remedy": winner.and_then(|rule| rule.remedy.as_deref()),
        "matched": explanation.matched.iter().map(matched).collect::<Vec<_>>(),
        "expired": explanation.expired.iter().map(|e| json!({"what": e.to_string(), "on": e.place().0.to_string(), "source": place(e.place().1)})).collect::<Vec<_>>(),
        "lookup": lookup.map(|(action, rule)| json!({"action": action.as_str(), "rule": rule.as_deref().unwrap_or("default")})),
        "literal_address": explanation.literal.map(|action| action.as_str()),
    })
}

fn matched(rule: &Matched) -> Value {
    let (counts, why) = match &rule.counts {
        Counts::Yes => ("yes", Value::Null),
        Counts::Perhaps => ("perhaps", Value::Null),
        Counts::OtherProcess => ("other-process", Value::Null),
        Counts::WrongAddress => ("wrong-address", Value::Null),
        Counts::Excepted { reason, origin, expires } => {
            let expires = expires.map(|day| day.to_string());
            ("excepted", json!({"reason": reason, "source": place(origin), "expires": expires}))
        }
    };
    json!({
        "rule": rule.rule, "source": place(&rule.origin), "action": rule.action.as_str(), "pattern": rule.pattern,
        "reason": rule.reason, "counts": counts, "except": why,
    })
}
