//! What became of each way: tried bare, then in a session with others, then alone if something arrived.

use std::fmt;
use std::time::Duration;

use trustrun_lab::{Lab, wait_until};
use trustrun_model::{Destination, Direction, Limit, Report, Verdict, Violation};

use crate::judge::Wire;
use crate::outside::Outside;
use crate::programs::Programs;
use crate::session::{Said, Session, filled, run_bare, run_inside, shared};
use crate::way::{Must, User, Way, address, token};

/// What became of one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It works without TrustRun; with it nothing arrived.
    Refused,
    /// The kernel refuses it to this user in any case.
    Closed,
    /// Something arrived, and this gap names it.
    Told(String),
    /// Something arrived, and this limit in the report says that such may go unseen.
    Named(String),
    /// This machine cannot do it at all.
    Skipped(String),
    /// Something arrived, and the report is a pass, or does not name it.
    Unseen(String),
    /// It did not work without TrustRun either, though it should: the test proves nothing.
    Broken(String),
}

/// One way and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) way: &'static Way,
    pub(crate) must: Must,
    pub(crate) outcome: Outcome,
    /// What the program said inside; for who reads the test's output.
    pub(crate) said: String,
}

impl Row {
    pub(crate) fn bad(&self) -> bool {
        match self.outcome {
            Outcome::Unseen(_) | Outcome::Broken(_) => true,
            Outcome::Told(ref gap) => self.must == Must::Refused && !self.way.old.contains(&gap.as_str()),
            Outcome::Named(_) => self.must != Must::Named,
            _ => false,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<24} {:?} (must be {:?}): {}", self.way.id, self.outcome, self.must, self.way.title)
    }
}

/// Whether a way works where nobody stops it.
enum Bare {
    Open,
    Closed,
    Lacking(String),
    Broken(String),
    Untried,
}

/// Every way's outcome, in the order of the list.
pub(crate) fn of_all(lab: &Lab, programs: &Programs, ways: &'static [Way], user: User) -> Vec<Row> {
    shared(lab);
    let wire = Wire::tapped(lab);
    let suite = Suite { lab, programs, user, wire };
    let numbered: Vec<(usize, &'static Way)> = ways.iter().enumerate().collect();
    let (alone, together): (Vec<_>, Vec<_>) = numbered.into_iter().partition(|(_, way)| way.alone);
    let mut found = suite.together(&together);
    for one in alone {
        found.push(suite.alone(one));
    }
    found.sort_by_key(|(number, ..)| *number);
    let row = |(n, outcome, said): Judged| Row { way: &ways[n], must: must(&ways[n], user), outcome, said };
    found.into_iter().map(row).collect()
}

fn must(way: &Way, user: User) -> Must {
    if user == User::Root { way.must.1 } else { way.must.0 }
}

/// A way's number, what became of it, and what it said inside.
type Judged = (usize, Outcome, String);

struct Suite<'a> {
    lab: &'a Lab,
    programs: &'a Programs,
    user: User,
    wire: Wire<'a>,
}

impl Suite<'_> {
    /// Ways that do not disturb each other: all in one session. What was open is tried again by itself.
    fn together(&self, ways: &[(usize, &'static Way)]) -> Vec<Judged> {
        if ways.is_empty() {
            return Vec::new();
        }
        let bare = self.bare(ways);
        let session = self.session(ways);
        let report = session.report.as_ref().unwrap_or_else(|| panic!("no report\n{}", session.stderr));
        let mut found = Vec::new();
        for ((number, way), bare) in ways.iter().zip(bare) {
            let outcome = match self.wire.seen(*number, way.judge) {
                None => judged_shut(bare, (*number, way), &session),
                // Every report of such a session has the limit, whoever went through; a gap would have to be this way's own.
                Some(_) if must(way, self.user) == Must::Named => match limit(way, report) {
                    Some(limit) => limit,
                    None => continue,
                },
                Some(_) => continue,
            };
            found.push((*number, outcome, text(&session.said, *number)));
        }
        let again: Vec<_> = ways.iter().filter(|(n, _)| found.iter().all(|(done, ..)| done != n)).copied().collect();
        found.extend(again.into_iter().map(|one| self.alone(one)));
        found
    }

    /// A way in a session of its own.
    fn alone(&self, (number, way): (usize, &'static Way)) -> Judged {
        let ways = [(number, way)];
        let bare = self.bare(&ways).pop().unwrap_or(Bare::Untried);
        let session = self.session(&ways);
        let outcome = match self.wire.seen(number, way.judge) {
            None => judged_shut(bare, (number, way), &session),
            Some(seen) => judged_open((number, way), &seen, &session),
        };
        (number, outcome, text(&session.said, number))
    }

    /// Tries ways in one session, each with its program outside.
    fn session(&self, ways: &[(usize, &'static Way)]) -> Session {
        self.wire.clear();
        let outside: Vec<_> = ways.iter().map(|(number, way)| self.outside(*number, way)).collect();
        let session = run_inside(self.lab, self.programs, self.user, ways);
        self.settle(ways);
        drop(outside);
        session
    }

    /// Tries ways without TrustRun.
    fn bare(&self, ways: &[(usize, &'static Way)]) -> Vec<Bare> {
        self.wire.clear();
        let (tried, _): (Vec<_>, Vec<_>) = ways.iter().partition(|(_, way)| way.bare);
        let outside: Vec<_> = tried.iter().map(|(number, way)| self.outside(*number, way)).collect();
        let said = if tried.is_empty() { Said::new() } else { run_bare(self.lab, self.programs, self.user, &tried) };
        self.settle(&tried);
        drop(outside);
        ways.iter().map(|(number, way)| self.bare_of(*number, way, said.get(number))).collect()
    }

    /// The program that a way has outside; a fresh one for each run.
    fn outside(&self, number: usize, way: &Way) -> Option<Outside> {
        let line = filled(self.lab, self.programs, self.user, number, way.outside);
        (!line.is_empty()).then(|| Outside::start(self.lab, &line))
    }

    /// Waits until all is known that was sent; a program outside may still be about to do what it was asked.
    fn settle(&self, ways: &[(usize, &'static Way)]) {
        self.wire.settle();
        let busy =
            |(number, way): &(usize, &Way)| !way.outside.is_empty() && self.wire.seen(*number, way.judge).is_none();
        if ways.iter().any(busy) {
            wait_until(Duration::from_millis(500), || !ways.iter().any(busy));
            self.wire.settle();
        }
    }

    fn bare_of(&self, number: usize, way: &Way, said: Option<&(i32, String)>) -> Bare {
        if !way.bare {
            return Bare::Untried;
        }
        if self.wire.seen(number, way.judge).is_some() {
            return Bare::Open;
        }
        match said {
            Some((3, why)) => Bare::Lacking(why.clone()),
            // "Not to this user" is an answer of the kernel; of root's it would be one of this machine.
            // EIO is what a kernel says whose `dev.tty.legacy_tiocsti` is off.
            Some((1, why)) if ["EPERM", "EACCES", "TIOCSTI: EIO"].iter().any(|no| why.contains(no)) => {
                match self.user {
                    User::Ordinary => Bare::Closed,
                    User::Root => Bare::Lacking(why.clone()),
                }
            }
            other => Bare::Broken(format!("{other:?}")),
        }
    }
}

fn text(said: &Said, number: usize) -> String {
    said.get(&number).map(|(code, text)| format!("{code}: {text}")).unwrap_or_default()
}

/// Nothing arrived from the session.
fn judged_shut(bare: Bare, (number, way): (usize, &Way), session: &Session) -> Outcome {
    let said = session.said.get(&number);
    match bare {
        Bare::Open | Bare::Untried if said.is_some_and(|(_, text)| text.contains("first:")) => {
            Outcome::Broken(format!("it did not get as far as to try: {said:?}"))
        }
        Bare::Untried if let Some((3, why)) = said => Outcome::Skipped(why.clone()),
        // The way was in what the command was to start with.
        Bare::Open | Bare::Untried if session.refused_to_start && !way.before.is_empty() => Outcome::Refused,
        Bare::Open | Bare::Untried if said.is_none() => {
            Outcome::Broken(format!("it never ran in the session: {}", session.stderr))
        }
        Bare::Open | Bare::Untried if way.in_report && !in_report(number, session) => {
            Outcome::Unseen("refused, and not in the report".into())
        }
        Bare::Open | Bare::Untried => Outcome::Refused,
        Bare::Closed => Outcome::Closed,
        Bare::Lacking(why) => Outcome::Skipped(why),
        Bare::Broken(why) => Outcome::Broken(why),
    }
}

/// Whether a refusal was told: who it was, and whereto; or that something is missing.
fn in_report(number: usize, session: &Session) -> bool {
    session.report.as_ref().is_some_and(|report| {
        let own = Some(address(number).into());
        let named = |v: &Violation| v.address == own && !v.process.exe.is_empty();
        report.violations.iter().any(named) || !report.gaps.is_empty()
    })
}

/// Something arrived: then the report must say so. A violation that says "refused" is no excuse but a lie.
fn judged_open((number, way): (usize, &Way), seen: &str, session: &Session) -> Outcome {
    let Some(report) = &session.report else {
        let loud = session.stderr.contains("INCOMPLETE");
        return if loud { Outcome::Told("agent-lost".into()) } else { Outcome::Unseen(format!("{seen}; no report")) };
    };
    match (named((number, way), report), limit(way, report)) {
        (Some(gap), _) => Outcome::Told(gap),
        (None, Some(limit)) => limit,
        (None, None) => Outcome::Unseen(format!("{seen}; {}", told(report))),
    }
}

/// The limit that names the way.
fn limit(way: &Way, report: &Report) -> Option<Outcome> {
    let named = |limit: &&Limit| way.limits.contains(&limit.kind.as_str());
    let limit = report.limits.iter().find(named);
    limit.map(|limit| Outcome::Named(limit.kind.clone()))
}

/// The gap that names the way. An accepted connection is not judged: it is told as what it is, a destination.
fn named((number, way): (usize, &Way), report: &Report) -> Option<String> {
    let accepted = |d: &Destination| d.direction == Direction::In && d.bytes_sent > 0;
    if way.told.contains(&"direction-in") && report.destinations.iter().any(accepted) {
        return Some(format!("a destination with direction in, verdict {}", report.verdict));
    }
    let about = |v: &Violation| v.host.as_ref().is_some_and(|host| host.contains(&token(number)));
    if way.told.contains(&"violation") && report.violations.iter().any(about) {
        return Some("a violation that names it".into());
    }
    let honest = matches!(report.verdict, Verdict::Incomplete | Verdict::Fail);
    let names = |kind: &str| way.told.contains(&kind) || way.old.contains(&kind);
    let gap = report.gaps.iter().find(|gap| names(&gap.kind));
    gap.filter(|_| honest).map(|gap| gap.kind.clone())
}

fn told(report: &Report) -> String {
    let gaps: Vec<&str> = report.gaps.iter().map(|gap| gap.kind.as_str()).collect();
    let violations: Vec<String> = report
        .violations
        .iter()
        .take(3)
        .map(|v| format!("{} {:?} {:?} {} {}", v.action, v.host, v.address, v.port, v.rule))
        .collect();
    format!("verdict {}, gaps {gaps:?}, violations {violations:?}", report.verdict)
}
