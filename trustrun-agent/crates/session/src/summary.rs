//! A report as plain text: what stands on stderr when `trustrun run` ends, and what `trustrun session show` prints.
//!
//! The verdict and its reason come first, in one line. Every word that matters is a word, never a colour alone, and
//! all text that is not ours is shown through [`Untrusted`].

mod layout;
mod tally;

use trustrun_model::{Action, Assurance, Gap, Process, Report, Verdict, Violation};

use layout::{Line, Paint, bytes, clean, count, shortened};
use tally::{Group, Tally};

/// Lines of the short form, about.
const LINES: usize = 60;
/// Of the short form: groups of destinations, violations and gaps. Limits are only counted there.
const GROUPS: usize = 12;
const VIOLATIONS: usize = 20;
const VIOLATIONS_ALWAYS: usize = 5;
const GAPS: usize = 5;
/// Characters of one detail or command line in the short form.
const DETAIL: usize = 160;

/// How to show a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style<'a> {
    /// Whether the terminal shows colours.
    pub color: bool,
    /// Columns; 0 for no bound.
    pub width: usize,
    /// Everything, rather than what fits a screen.
    pub full: bool,
    /// The database that a person has to name to see this session again; `None` where it is found by itself.
    pub db: Option<&'a str>,
}

/// The report as text that ends with a newline.
#[must_use]
pub fn render(report: &Report, style: Style<'_>) -> String {
    let tally = Tally::of(report);
    let mut page = vec![verdict(report, &tally), about(report)];
    destinations(&mut page, &tally, style);
    let mut after = Vec::new();
    remarks(&mut after, report, style);
    next(&mut after, report, &tally, style);
    let room = LINES.saturating_sub(page.len() + after.len());
    violations(&mut page, report, style, room);
    page.extend(after);
    let mut text = String::new();
    for line in page {
        line.write(&mut text, style);
    }
    text
}

fn verdict(report: &Report, tally: &Tally<'_>) -> Line {
    let paint = match report.verdict {
        Verdict::Pass => Paint::Good,
        Verdict::Fail => Paint::Bad,
        Verdict::Incomplete => Paint::Doubtful,
        Verdict::Observed => Paint::Plain,
    };
    Line::new()
        .strong(&report.verdict.to_string().to_uppercase(), paint)
        .text("  ")
        .text(&sentence(report, tally))
        .wrapped(2)
}

/// Why the verdict is what it is.
fn sentence(report: &Report, tally: &Tally<'_>) -> String {
    let policy = report
        .session
        .policy
        .as_ref()
        .map_or_else(|| "no policy".into(), |p| format!("policy {}", shortened(&clean(&p.name), 60)));
    let talked = match tally.connections {
        0 => "no connection".to_owned(),
        n => format!("{} to {}", count(n, "connection"), count(tally.destinations, "destination")),
    };
    match report.verdict {
        Verdict::Pass if tally.connections == 0 => format!("{talked} was made, under {policy}"),
        Verdict::Pass => format!("{talked}, all inside {policy}"),
        Verdict::Observed => {
            let missed = if report.gaps.is_empty() { "" } else { "; some may have been missed" };
            format!("no policy to judge by: {talked}{missed}")
        }
        Verdict::Incomplete => format!("no violation seen, but: {}", doubts(report)),
        Verdict::Fail => {
            // An observing session refuses nothing, whatever the policy would have done.
            let enforced = matches!(report.session.assurance, Assurance::Contained | Assurance::Enforced);
            let refused = report.violations.iter().filter(|v| enforced && v.action.refuses());
            let refused: u64 = refused.map(|v| v.count.max(1)).sum();
            let all: u64 = report.violations.iter().map(|v| v.count.max(1)).sum();
            let done = match (refused, all - refused) {
                (_, 0) => "refused".to_owned(),
                (0, _) => "let through".to_owned(),
                (refused, passed) => format!("{refused} refused, {passed} let through"),
            };
            let missed = if report.gaps.is_empty() { "" } else { "; more may have been missed" };
            format!("{} of {policy}, {done}{missed}", count(all, "violation"))
        }
    }
}

/// The first gaps, or what else keeps the session from passing.
fn doubts(report: &Report) -> String {
    let mut doubts: Vec<String> = report.gaps.iter().take(2).map(|g| shortened(&clean(gap_text(g)), 120)).collect();
    if report.gaps.len() > 2 {
        doubts.push(format!("{} more", report.gaps.len() - 2));
    }
    if doubts.is_empty() {
        doubts.push(match report.session.assurance {
            Assurance::Sampled => "connections were only sampled".into(),
            _ => "the session did not end as it should".into(),
        });
    }
    doubts.join("; ")
}

fn gap_text(gap: &Gap) -> &str {
    if gap.detail.is_empty() { &gap.kind } else { &gap.detail }
}

fn about(report: &Report) -> Line {
    let session = &report.session;
    let assurance = match session.assurance {
        Assurance::Contained => "contained",
        Assurance::Enforced => "enforced",
        Assurance::Observed => "observed only",
        Assurance::Sampled => "sampled",
    };
    let end = match (session.exit.signal, session.exit.code) {
        (Some(signal), _) => format!(", ended by signal {signal}"),
        (None, Some(code)) => format!(", exit {code}"),
        (None, None) => String::new(),
    };
    Line::new()
        .faint(&format!("session {} ({assurance}, {}{end})", clean(&session.id), clean(&session.sensor)))
        .indented(2)
}

fn heading(page: &mut Vec<Line>, title: &str) {
    page.push(Line::new());
    page.push(Line::new().strong(title, Paint::Plain));
}

fn action_paint(action: Action) -> Paint {
    match action {
        Action::Allow => Paint::Good,
        Action::Alert => Paint::Doubtful,
        Action::Block | Action::Kill => Paint::Bad,
    }
}

fn destinations(page: &mut Vec<Line>, tally: &Tally<'_>, style: Style<'_>) {
    if tally.groups.is_empty() && tally.housekeeping.is_empty() {
        return;
    }
    heading(page, "Destinations");
    let shown = if style.full { tally.groups.len() } else { tally.groups.len().min(GROUPS) };
    let host_width = tally.groups[..shown].iter().map(|g| g.name.chars().count()).max().unwrap_or(0).min(40);
    for group in &tally.groups[..shown] {
        page.push(destination(group, host_width));
        let addresses = group.addresses();
        if style.full || addresses.len() == 1 {
            page.extend(addresses.iter().map(|a| Line::new().faint(a).indented(9)));
        } else {
            let more = format!("{} and {} more", addresses[0], addresses.len() - 1);
            page.push(Line::new().faint(&more).indented(9));
        }
    }
    if tally.groups.len() > shown {
        page.push(Line::new().text(&format!("and {} more", tally.groups.len() - shown)).indented(2));
    }
    page.extend(tally.housekeeping.iter().map(|line| Line::new().faint(line).indented(2)));
}

fn destination(group: &Group<'_>, host_width: usize) -> Line {
    let traffic = match (group.sent, group.received) {
        (0, 0) => String::new(),
        (sent, received) => format!(", {} out, {} in", bytes(sent), bytes(received)),
    };
    Line::new()
        .paint(&format!("{:<5}", group.action), action_paint(group.action))
        .text(&format!("  {:<host_width$}  {}{traffic}", group.name, count(group.connections, "connection")))
        .text(&format!("  by {}", group.who()))
        .indented(2)
}

fn violations(page: &mut Vec<Line>, report: &Report, style: Style<'_>, lines: usize) {
    if report.violations.is_empty() {
        return;
    }
    heading(page, "Violations");
    // Three lines each, about.
    let fit = (lines / 3).clamp(VIOLATIONS_ALWAYS, VIOLATIONS);
    let shown = if style.full { report.violations.len() } else { report.violations.len().min(fit) };
    for violation in &report.violations[..shown] {
        page.push(violated(violation));
        page.push(Line::new().text(&process(&violation.process, style)).indented(9));
        if !violation.suggestion.is_empty() {
            page.push(
                Line::new().text(&format!("-> {}", detail(&violation.suggestion, style))).indented(9).wrapped(12),
            );
        }
    }
    if report.violations.len() > shown {
        let more = format!("and {} more: {}", report.violations.len() - shown, show(report, style));
        page.push(Line::new().text(&more).indented(2).wrapped(4));
    }
}

fn violated(violation: &Violation) -> Line {
    let host = violation.host.as_deref().map(clean);
    let end = violation.address.map(|a| tally::end(a, violation.port, &violation.protocol));
    let what = match (host, end) {
        (Some(host), Some(end)) => format!("{host} ({end})"),
        (Some(host), None) if violation.protocol == "dns" => format!("lookup of {host}"),
        (Some(host), None) => host,
        (None, Some(end)) => end,
        (None, None) => clean(&violation.protocol),
    };
    let times = if violation.count > 1 { format!(", {} times", violation.count) } else { String::new() };
    Line::new()
        .paint(&format!("{:<5}", violation.action), action_paint(violation.action))
        .text(&format!("  {what}  by rule {}{times}", clean(&violation.rule)))
        .indented(2)
}

/// The program, its number and its arguments.
fn process(process: &Process, style: Style<'_>) -> String {
    if process.pid == 0 && process.exe.is_empty() {
        return "by a process that is not known".into();
    }
    let exe = if process.exe.is_empty() { "a program that is not known".into() } else { clean(&process.exe) };
    let argv = process.argv.iter().map(|a| clean(a)).collect::<Vec<_>>().join(" ");
    detail(&format!("by {exe} (pid {}): {argv}", process.pid), style)
}

fn detail(text: &str, style: Style<'_>) -> String {
    let text = clean(text);
    if style.full { text } else { shortened(&text, DETAIL) }
}

/// Gaps and limits.
fn remarks(page: &mut Vec<Line>, report: &Report, style: Style<'_>) {
    let gaps = if style.full { report.gaps.len() } else { report.gaps.len().min(GAPS) };
    if gaps > 0 {
        heading(page, "Gaps: what may have been missed");
        for gap in &report.gaps[..gaps] {
            let times = if gap.count > 1 { format!(" ({} times)", gap.count) } else { String::new() };
            let text = format!("{}{times}: {}", clean(&gap.kind), detail(gap_text(gap), style));
            page.push(Line::new().text(&text).indented(2).wrapped(4));
        }
        more(page, report.gaps.len() - gaps);
    }
    let refused = report.coverage.locks.iter().flat_map(|lock| lock.refused.iter().map(move |what| (lock, what)));
    let refused: Vec<_> = refused.collect();
    if !refused.is_empty() {
        heading(page, "Locks: what the policy's own restrictions took from the command");
        let shown = if style.full { refused.len() } else { refused.len().min(GAPS) };
        for (lock, what) in &refused[..shown] {
            let text = format!("{}: {}", clean(&lock.name), detail(what, Style { full: true, ..style }));
            page.push(Line::new().text(&text).indented(2).wrapped(4));
        }
        more(page, refused.len() - shown);
    }
    if style.full && !report.coverage.locks.is_empty() {
        heading(page, "Locks of the command");
        for lock in &report.coverage.locks {
            let text = match &lock.reason {
                Some(why) if !lock.held => {
                    format!("open  {}: {} ({})", clean(&lock.name), clean(&lock.closes), clean(why))
                }
                _ => format!("held  {}: {}", clean(&lock.name), clean(&lock.closes)),
            };
            page.push(Line::new().faint(&text).indented(2).wrapped(4));
        }
    }
    // Much the same after every session: the short form counts them in its last line.
    if style.full && !report.limits.is_empty() {
        heading(page, "Limits: ways out that this host leaves open, not used here");
        for limit in &report.limits {
            let text = format!("{}: {}", clean(&limit.kind), detail(&limit.detail, style));
            page.push(Line::new().faint(&text).indented(2).wrapped(4));
        }
    }
}

fn more(page: &mut Vec<Line>, left: usize) {
    if left > 0 {
        page.push(Line::new().text(&format!("and {left} more")).indented(2));
    }
}

/// What to do now.
fn next(page: &mut Vec<Line>, report: &Report, tally: &Tally<'_>, style: Style<'_>) {
    if style.full {
        return;
    }
    page.push(Line::new());
    if report.verdict == Verdict::Observed && tally.destinations > 0 {
        let command = report.session.command.iter().map(|w| clean(w)).collect::<Vec<_>>().join(" ");
        let learn =
            format!("To learn a policy from this: trustrun run --learn policy.yaml -- {}", shortened(&command, 120));
        page.push(Line::new().text(&learn).wrapped(2));
    }
    let limits = match report.limits.len() as u64 {
        0 => String::new(),
        n => format!(", with {} of this kind of watching", count(n, "limit")),
    };
    let all = format!("All of it{limits}:");
    if style.db.is_some() {
        // A path makes it long, and it is there to be copied.
        page.push(Line::new().faint(&all));
        page.push(Line::new().faint(&show(report, style)).indented(2).wrapped(4));
    } else {
        page.push(Line::new().faint(&format!("{all} {}", show(report, style))));
    }
}

/// The command that shows everything about this session.
fn show(report: &Report, style: Style<'_>) -> String {
    let db = style.db.map_or_else(String::new, |db| format!(" --db {}", clean(db)));
    format!("trustrun session show {}{db}", clean(&report.session.id))
}

#[cfg(test)]
mod tests;
