//! Carrying the plan out.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal as _, Read as _, Seek as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::ExitCode,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use trustrun_guard::{Child, Ended, Launch, Outcome};
use trustrun_model::{Report, Verdict};
use trustrun_session::{
    Facts, operator,
    summary::{Style, render},
};

use crate::{
    caller,
    commands::run::{
        FAILED,
        plan::{Plan, RunError},
    },
    policies,
};

/// `--exit-verdict` of a command that exited with 0.
const VERDICT_FAIL: u8 = 121;
const VERDICT_INCOMPLETE: u8 = 122;

/// Runs the command as planned.
///
/// # Errors
/// If it could not be started under guard.
pub(super) fn act(mut plan: Plan) -> Result<ExitCode, RunError> {
    let facts = facts(&plan);
    let events = plan.args.events.as_deref().map(open_events).transpose()?;
    let report = memfd()?;
    let guard = match start(&mut plan, &facts, events, &report) {
        Ok(guard) => guard,
        Err(why) if plan.args.best_effort => return unguarded(&plan, &facts, &why),
        Err(why) => return Err(why),
    };
    let launch = Launch {
        command: plan.args.command.clone(),
        environment: env::vars_os().collect(),
        identity: plan.identity.clone(),
        locks: plan.locks(),
    };
    let mut child = match Child::start(&launch, Some(&guard.cgroup)) {
        Ok(child) => child,
        Err(e) => {
            let _ = guard.finish(Ended::Exited(FAILED.into()).status(), None);
            return Err(e.into());
        }
    };
    guard.locked(&child);
    let ended = child.wait(Some(&guard.channel))?;
    let ended = failed(&child).unwrap_or(ended);
    let outcome = guard.finish(ended.status(), Some(&child));
    let verdict = conclude(&plan, &facts, &report, outcome, ended);
    Ok(exit(ended, verdict, plan.args.exit_verdict))
}

/// Says why the program was not executed, if it was not.
fn failed(child: &Child) -> Option<Ended> {
    let (code, why) = child.failure()?;
    eprintln!("trustrun: {why}");
    Some(Ended::Exited(code))
}

#[cfg(feature = "ebpf")]
fn start(
    plan: &mut Plan,
    facts: &Facts,
    events: Option<File>,
    report: &File,
) -> Result<trustrun_guard::Guard, RunError> {
    let judge = trustrun_session::Judge {
        policy: plan.policy.as_ref().map(|p| std::sync::Arc::new(p.compile())),
        resolvers: plan.resolvers.addresses.clone(),
        enforce: plan.enforce,
        search: plan.resolvers.search.clone(),
        cgroup: String::new(), // told by the guard, which makes it
        hosts: plan.resolvers.hosts.clone(),
        dns_grace: super::plan::DNS_GRACE,
        doors: plan.known_sockets(),
    };
    let report = report.try_clone().map_err(|source| RunError::System { what: "the report's memory", source })?;
    let guard = plan.guard();
    let database = plan.database.clone();
    let engine = Box::new(move |link| match engine(link, judge, facts, database.as_deref(), events, report) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("trustrun: {why}");
            1
        }
    });
    Ok(trustrun_guard::start(guard, engine)?)
}

#[cfg(not(feature = "ebpf"))]
fn start(plan: &mut Plan, _: &Facts, _: Option<File>, _: &File) -> Result<trustrun_guard::Guard, RunError> {
    Ok(trustrun_guard::start(plan.guard(), Box::new(|_| 1))?)
}

/// In the engine process: opens what needs root, then gives root up, then runs.
#[cfg(feature = "ebpf")]
fn engine(
    link: trustrun_guard::EngineLink,
    judge: trustrun_session::Judge,
    facts: &Facts,
    database: Option<&Path>,
    events: Option<File>,
    report: File,
) -> Result<(), trustrun_session::RunError> {
    let store = open_store(database);
    trustrun_guard::EngineLink::drop_privileges()?;
    let store = store.and_then(|s| match s.start(start_row(facts)) {
        Ok(handle) => Some(handle),
        Err(e) => {
            eprintln!("trustrun: no event is stored: {e}");
            None
        }
    });
    let outputs = trustrun_session::Outputs { store, events, report };
    trustrun_session::run(link, judge, facts, outputs)
}

/// A database that cannot be opened becomes one in memory, said aloud.
#[cfg(feature = "ebpf")]
fn open_store(database: Option<&Path>) -> Option<trustrun_store::Store> {
    use trustrun_store::Store;
    let opened = match database {
        Some(path) => Store::open_or_memory(path),
        None => Store::memory().map(|s| (s, None)),
    };
    match opened {
        Ok((store, why)) => {
            if let Some(why) = why {
                eprintln!("trustrun: events are kept in memory only and end with this session: {why}");
            }
            Some(store)
        }
        Err(why) => {
            eprintln!("trustrun: no event is stored: {why}");
            None
        }
    }
}

#[cfg(feature = "ebpf")]
fn start_row(facts: &Facts) -> trustrun_store::SessionStart {
    let (host, boot_id, _) = trustrun_session::about_host();
    trustrun_store::SessionStart {
        id: facts.id.clone(),
        started_ns: facts.started_ns,
        command: facts.command.clone(),
        user: facts.user.clone(),
        policy: facts.policy.clone(),
        sensor: "ebpf".into(),
        assurance: facts.assurance(),
        host,
        boot_id,
        agent_pid: std::process::id(),
        labels: std::collections::BTreeMap::new(),
    }
}

fn facts(plan: &Plan) -> Facts {
    let own = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|u| u.name);
    Facts {
        id: plan.session.to_string(),
        command: plan.command(),
        executable: plan.executable(),
        user: plan.identity.as_ref().map(|i| i.name.clone()).or(own).unwrap_or_default(),
        operator: operator(),
        policy: plan.policy.as_ref().map(|policy| policies::reference(policy, &plan.sources, plan.settings.as_deref())),
        sensor: trustrun_model::SensorKind::Ebpf,
        enforce: plan.enforce,
        locks: plan.surveyed.clone(),
        doors: plan.doors(),
        from_outside: plan.from_outside.clone(),
        no_pass: plan.args.best_effort.then(|| "--best-effort never passes".to_owned()),
        resolvers: plan.resolvers.addresses.iter().map(ToString::to_string).collect(),
        started_ns: plan.started_ns,
    }
}

fn open_events(path: &Path) -> Result<File, RunError> {
    let failed = |source| RunError::File { what: "writing events to", path: path.into(), source };
    if path == Path::new("-") {
        let own: OwnedFd = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok(own.into());
    }
    caller::create(path).map_err(failed)
}

/// The engine leaves its report in memory that both share, so that files are written by this process, with the
/// caller's credentials.
fn memfd() -> Result<File, RunError> {
    let fd = memfd_create("trustrun-report", MFdFlags::MFD_CLOEXEC)
        .map_err(|e| RunError::System { what: "memory for the report", source: e.into() })?;
    Ok(fd.into())
}

/// Prints the summary and writes what was asked for; the verdict.
fn conclude(plan: &Plan, facts: &Facts, report: &File, outcome: Outcome, ended: Ended) -> Verdict {
    let Some((text, report)) = read(report).filter(|_| outcome == Outcome::Reported) else {
        let who = if outcome == Outcome::NoGuard { "guard" } else { "engine" };
        eprintln!(
            "trustrun: INCOMPLETE  the {who} process was lost; what was refused stayed refused, but there is no report \
             (session {})",
            plan.session
        );
        write_unwatched(plan, facts, ended, ("agent-lost", &format!("the {who} process was lost")));
        return Verdict::Incomplete;
    };
    let width = 100;
    let color = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A database that was named here must be named again to see the session.
    let db = plan.args.db.as_deref().map(Path::to_string_lossy);
    let shown = render(&report, Style { color, width, full: false, db: db.as_deref() });
    // A terminal that is gone takes nothing from the verdict.
    let _ = io::stderr().write_all(shown.as_bytes());
    write_report(plan, &text);
    if let Some(path) = &plan.args.learn {
        crate::commands::policy::write_learned(path, &report);
    }
    report.verdict
}

fn write_report(plan: &Plan, text: &[u8]) {
    if let Some(path) = &plan.args.report
        && let Err(e) = caller::replace(path, text)
    {
        eprintln!("trustrun: writing the report to {}: {e}", trustrun_model::Untrusted::new(path.to_string_lossy()));
    }
}

/// The report of a session that nobody can report on: an earlier `pass` in its file must not be taken for this one's.
fn write_unwatched(plan: &Plan, facts: &Facts, ended: Ended, (gap, why): (&'static str, &str)) {
    let report = trustrun_session::unwatched(facts, ended.status(), gap, why);
    if let Ok(text) = serde_json::to_string(&report) {
        write_report(plan, trustrun_model::inert_json(text).as_bytes());
    }
}

fn read(mut report: &File) -> Option<(Vec<u8>, Report)> {
    let mut text = Vec::new();
    report.rewind().ok()?;
    report.read_to_end(&mut text).ok()?;
    let parsed = serde_json::from_slice(&text).ok()?;
    Some((text, parsed))
}

/// `--best-effort` where the session cannot be watched: the command runs, and nothing is claimed.
fn unguarded(plan: &Plan, facts: &Facts, why: &RunError) -> Result<ExitCode, RunError> {
    eprintln!("trustrun: not watched: {why}");
    let launch = Launch {
        command: plan.args.command.clone(),
        environment: env::vars_os().collect(),
        // Who is not root cannot become another, and is nobody else already.
        identity: plan.identity.clone().filter(|_| nix::unistd::geteuid().is_root()),
        locks: None,
    };
    let mut child = Child::start(&launch, None)?;
    let ended = child.wait(None)?;
    let ended = failed(&child).unwrap_or(ended);
    eprintln!("trustrun: INCOMPLETE  the command ran unwatched (--best-effort)");
    write_unwatched(plan, facts, ended, ("unwatched", &format!("the command ran unwatched: {why}")));
    Ok(exit(ended, Verdict::Incomplete, plan.args.exit_verdict))
}

/// Ends as the command did: the same code, the same signal.
fn exit(ended: Ended, verdict: Verdict, by_verdict: bool) -> ExitCode {
    match ended {
        Ended::Exited(0) if by_verdict => match verdict {
            Verdict::Fail => ExitCode::from(VERDICT_FAIL),
            Verdict::Incomplete => ExitCode::from(VERDICT_INCOMPLETE),
            Verdict::Pass | Verdict::Observed => ExitCode::SUCCESS,
        },
        Ended::Exited(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(FAILED)),
        Ended::Signaled(number) => {
            ended.repeat();
            ExitCode::from(u8::try_from(128 + number).unwrap_or(FAILED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_the_commands() {
        for code in 0..=255u8 {
            let own = exit(Ended::Exited(code.into()), Verdict::Fail, false);
            assert_eq!(format!("{own:?}"), format!("{:?}", ExitCode::from(code)));
            let by_verdict = exit(Ended::Exited(code.into()), Verdict::Incomplete, true);
            let expected = if code == 0 { VERDICT_INCOMPLETE } else { code };
            assert_eq!(format!("{by_verdict:?}"), format!("{:?}", ExitCode::from(expected)));
        }
    }
}
