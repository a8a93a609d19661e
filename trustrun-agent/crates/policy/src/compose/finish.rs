//! From what was found to a policy: one default, names for what has none, one order, and the canonical form.

use jiff::civil::Date;
use trustrun_model::Action;

use super::{
    sources::Sources,
    walk::{Composed, Made},
};
use crate::{
    DocumentRef, Fault, Policy, canonical,
    policy::sha256,
    text::{Faults, Spot},
};

/// What every way of finishing begins with.
fn policy(composed: &mut Composed, sources: &Sources<'_>, default: Action) -> Policy {
    let mut documents: Vec<DocumentRef> = sources
        .all()
        .filter_map(|source| {
            let sha256 = source.document.as_ref()?.sha256.clone();
            Some(DocumentRef { name: source.name.to_string(), sha256, preset: source.preset })
        })
        .collect();
    documents.sort();
    let mut expired = std::mem::take(&mut composed.expired);
    expired.sort();
    expired.dedup();
    let names: Vec<&str> = composed.names.iter().map(|name| &**name).collect();
    Policy {
        name: names.join("+"),
        description: composed.description.take(),
        sha256: String::new(),
        default,
        capture: composed.capture,
        unix_sockets: std::mem::take(&mut composed.unix_sockets),
        rules: Vec::new(),
        listen: Vec::new(),
        canonical: "".into(),
        documents,
        expired,
        left_out: composed.left_out,
        environment: None,
    }
}

fn default(composed: &Composed, sources: &Sources<'_>, faults: &Faults) -> Option<Action> {
    if composed.default.is_none() {
        let help = match sources.all().next().is_some_and(|source| source.preset) {
            true => "a preset has none: name a policy that extends it beside it, or say `--strict`",
            false => "say what happens to a destination that no rule matches, for instance `default: block`",
        };
        let fault = Fault::MissingKey { key: "default", help };
        match sources.all().find_map(|source| source.document.as_ref()) {
            Some(document) => faults.add(&document.text, Spot::TOP, fault),
            None => faults.add_outside("--policy", fault),
        }
    }
    composed.default
}

/// As it is written, without an identity of its own: that of its text.
pub(super) fn as_written(mut composed: Composed, sources: &mut Sources<'_>, faults: &Faults) -> Option<Policy> {
    let default = default(&composed, sources, faults)?;
    let made = policy(&mut composed, sources, default);
    sources.forget();
    Some(Policy {
        sha256: made.documents.first().map(|document| document.sha256.clone()).unwrap_or_default(),
        rules: composed.rules.into_iter().map(|pending| pending.made().rule).collect(),
        listen: composed.listen.into_iter().map(|pending| pending.made().rule).collect(),
        ..made
    })
}

/// In the canonical order, with the canonical form's digest.
pub(super) fn finish(
    mut composed: Composed,
    sources: &mut Sources<'_>,
    today: Option<Date>,
    at_least: Option<Action>,
    placeholders: bool,
    faults: &Faults,
) -> Option<Policy> {
    if at_least.is_none() && !placeholders {
        default(&composed, sources, faults)?;
    }
    let default = composed.default.max(at_least).unwrap_or(Action::Block);
    let mut policy = policy(&mut composed, sources, default);
    sources.forget();
    let rules = std::mem::take(&mut composed.rules).into_iter().map(|rule| named(expire(rule.made(), today, default)));
    let rules: Vec<Made> = rules.collect();
    let listen: Vec<Made> = std::mem::take(&mut composed.listen).into_iter().map(|rule| named(rule.made())).collect();
    let canonical = canonical::write(&policy, rules, listen);
    let text = canonical.text;
    policy.sha256 = sha256(text.as_bytes());
    (policy.rules, policy.listen) = (canonical.rules, canonical.listen);
    // What is hashed is what is compiled: the text is read again, and has to say the same.
    match canonical::verify(&text, &policy) {
        Ok(()) => Some(Policy { canonical: text.into(), ..policy }),
        Err(line) => {
            faults.add_outside(&policy.name, Fault::Canonical { line });
            None
        }
    }
}

/// Under an agreement that has run out, what was allowed is reported at least.
fn expire(mut made: Made, today: Option<Date>, default: Action) -> Made {
    let agreement = made.rule.baa.as_ref().and_then(|baa| baa.agreement.as_ref());
    let over =
        agreement.and_then(|agreement| agreement.expires).is_some_and(|on| today.is_some_and(|today| on < today));
    if over {
        for (action, _) in made.rule.patterns.iter_mut().filter(|(action, _)| *action == Action::Allow) {
            *action = default.max(Action::Alert);
        }
    }
    made
}

/// Gives a rule the name that reports use, and one order to what it says. Without a name of its own it is called by what it
/// says, which no order of writing changes.
fn named(mut made: Made) -> Made {
    made.rule.patterns.sort_unstable();
    made.rule.patterns.dedup();
    let except = &mut made.rule.except;
    except.sort_by(|a, b| (&a.pattern, &a.reason, a.expires).cmp(&(&b.pattern, &b.reason, b.expires)));
    except.dedup_by(|a, b| a.pattern == b.pattern && a.reason == b.reason && a.expires == b.expires);
    if !made.named {
        let first = made.rule.patterns.first().map(|(action, pattern)| format!("{action} {pattern}"));
        let more = made.rule.patterns.len().saturating_sub(1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        made.rule.name = format!("{}{more}", first.unwrap_or_default());
    }
    if let Some(prefix) = &made.prefix {
        made.rule.name = format!("{prefix}/{}", made.rule.name);
    }
    made
}
