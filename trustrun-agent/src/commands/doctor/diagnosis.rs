//! All of it together: what sensor there is, and what assurance it gives.

use trustrun_guard::probe::HookState;
use trustrun_model::Assurance;

use super::{
    checks::{Check, State, checks, refusal},
    host::Host,
    tried::{Locked, Tried},
};

/// What was found.
#[derive(Debug)]
pub(super) struct Diagnosis {
    pub(super) release: String,
    pub(super) checks: Vec<Check>,
    pub(super) hooks: Vec<HookState>,
    /// The ordinary user of the locks.
    pub(super) user: String,
    pub(super) locks: Vec<LockRow>,
    /// Short word and what it means.
    pub(super) limits: Vec<(&'static str, String)>,
    /// `ebpf`, or none.
    pub(super) sensor: Option<&'static str>,
    /// The strongest that a session can be called here; none where none starts.
    pub(super) assurance: Option<Assurance>,
    /// Why not more.
    pub(super) reasons: Vec<String>,
}

/// A lock for an ordinary user's command and for root's.
#[derive(Debug)]
pub(super) struct LockRow {
    pub(super) name: &'static str,
    pub(super) closes: &'static str,
    pub(super) since: &'static str,
    pub(super) user: (State, Option<String>),
    pub(super) root: (State, Option<String>),
}

impl Diagnosis {
    /// Judges what was read and tried.
    pub(super) fn new(host: &Host, tried: Tried) -> Self {
        let mut checks = checks(host);
        checks.extend(refusal(tried.probe.refusal.as_ref()));
        let locks = rows(&tried);
        let starts = tried.probe.failed.is_none();
        let (assurance, reasons) = assurance(&tried, &locks, &checks);
        Self {
            release: host.release.clone(),
            limits: limits(&tried, &checks),
            checks,
            user: tried.user.name,
            hooks: tried.probe.hooks,
            locks,
            sensor: starts.then_some("ebpf"),
            assurance,
            reasons,
        }
    }

    /// Whether policies can be enforced here.
    pub(super) fn enforces(&self) -> bool {
        matches!(self.assurance, Some(Assurance::Contained | Assurance::Enforced))
    }

    /// The assurance as a word.
    pub(super) fn word(&self) -> &'static str {
        match self.assurance {
            Some(Assurance::Contained) => "contained",
            Some(Assurance::Enforced) => "enforced",
            Some(Assurance::Observed) => "observed",
            Some(Assurance::Sampled) => "sampled",
            None => "none",
        }
    }
}

fn rows(tried: &Tried) -> Vec<LockRow> {
    let pairs = (0..).zip(tried.user.survey.iter().zip(&tried.root.survey));
    let row = |(place, (user, _)): (usize, (&trustrun_guard::locks::Checked, _))| LockRow {
        name: user.lock.name,
        closes: user.lock.closes,
        since: user.lock.since,
        user: lock(&tried.user, place),
        root: lock(&tried.root, place),
    };
    pairs.map(row).collect()
}

/// Whether one lock holds, and why not.
fn lock(locked: &Locked, place: usize) -> (State, Option<String>) {
    if let Some(checked) = locked.survey.get(place)
        && let Some(why) = &checked.absent
    {
        // What nobody could hold here is done without by `--strict` as well.
        return (if checked.excused { State::Limit } else { State::Missing }, Some(why.clone()));
    }
    match &locked.held {
        Some(Ok(held)) if held.has(place) => (State::Ok, None),
        Some(Ok(_)) => (State::Missing, Some("it was tried and did not hold".into())),
        Some(Err(why)) => (State::Missing, Some(format!("no enforced command can be started: {why}"))),
        None => (State::Missing, Some("it cannot be tried without root: sudo trustrun doctor".into())),
    }
}

fn assurance(tried: &Tried, locks: &[LockRow], checks: &[Check]) -> (Option<Assurance>, Vec<String>) {
    if let Some(why) = &tried.probe.failed {
        // What a check found says more of what to do than what the kernel then said.
        let missing = checks.iter().filter(|c| c.state == State::Missing);
        let known = missing.map(|c| format!("{}: {}", c.name, c.found));
        return (None, known.chain([why.to_string()]).collect());
    }
    if let Some(Err(why)) = &tried.probe.refusal {
        return (Some(Assurance::Observed), vec![why.clone()]);
    }
    match &tried.user.held {
        Some(Err(why)) => return (Some(Assurance::Observed), vec![why.clone()]),
        None => return (Some(Assurance::Observed), vec!["the locks cannot be tried without root".into()]),
        Some(Ok(_)) => {}
    }
    if tried.outside {
        let why = "standard input, output or error is a network socket or a folder: use a pipe, a file or a terminal";
        return (Some(Assurance::Observed), vec![why.into()]);
    }
    let open = locks.iter().filter(|row| row.user.0 != State::Ok);
    let open = open.map(|row| format!("the lock {}: {}", row.name, row.user.1.as_deref().unwrap_or_default()));
    let open: Vec<String> = open.collect();
    (Some(if open.is_empty() { Assurance::Contained } else { Assurance::Enforced }), open)
}

fn limits(tried: &Tried, checks: &[Check]) -> Vec<(&'static str, String)> {
    let mut out: Vec<(&'static str, String)> =
        checks.iter().filter(|c| c.state == State::Limit).map(|c| (c.name, c.found.clone())).collect();
    if tried.probe.failed.is_none() && tried.probe.hooks.iter().any(|h| h.name == "unix_peer" && !h.seen) {
        let why = "that a command reaches a service over a unix socket is not told: this kernel has no hook for it (6.3), so \
                   that no session under a policy passes, but for those that refuse it (BPF among the security modules, 6.1)";
        out.push(("unix-sockets-unseen", why.into()));
    }
    if let Some(why) = &tried.probe.no_scope {
        out.push(("outside-slice", format!("systemd makes no scope for a session: {why}")));
    }
    let root = "a command that runs as root is never contained, since it can have others act for it; it passes only \
                under a policy that refuses";
    out.push(("root-target", root.into()));
    out
}
