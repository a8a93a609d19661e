//! A profile from what sessions reached: proposed, reviewed, and written as a policy with where each line comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use trustrun_model::{Action, Direction, Evidence, Protocol, Report, Untrusted};

use crate::{
    Destination, Pattern, Policy, Reader, Who, is_private_address, is_public_name,
    judge::is_below,
    pattern::{Net, Target, has_ports, is_host_name, mapped, normal, prefix},
};

/// Discard (RFC 863). A rule for this port of a name lets it be asked for, and nothing of use be reached.
const DISCARD: u16 = 9;

/// A destination that a session reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name, where it is known by more than the client's claim.
    pub host: Option<&'a str>,
    /// Its address; the pattern's target where there is no name that a rule could hold. None is a name that was asked
    /// for and not connected to.
    pub addr: Option<IpAddr>,
    /// Its port; ignored for a protocol without ports.
    pub port: u16,
    /// Its protocol.
    pub proto: Option<Protocol>,
    /// How often it was reached.
    pub count: u64,
    /// How many octets were sent there.
    pub sent: u64,
    /// How many came back.
    pub received: u64,
    /// The executable.
    pub exe: &'a str,
    /// The session.
    pub session: &'a str,
}

/// What a person decided about a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Review {
    /// Let it through.
    #[default]
    Approve,
    /// Refuse it, by name.
    Deny,
}

/// One line of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it speaks about.
    pub pattern: Pattern,
    /// Whether a public name had a private address, which has to be said.
    pub inside: bool,
    /// Whether only its name was asked for.
    pub asked: bool,
    /// How often.
    pub count: u64,
    /// Octets sent.
    pub sent: u64,
    /// Octets received.
    pub received: u64,
    /// Executables.
    pub exes: BTreeSet<String>,
    /// Sessions.
    pub sessions: BTreeSet<String>,
    /// What was decided.
    pub review: Review,
    /// Only for the executables that did it.
    pub narrowed: bool,
    /// Why, in the words of who reviewed it.
    pub note: Option<String>,
}

/// What sessions reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    lines: BTreeMap<(bool, bool, Pattern), Line>,
}

/// Reasons of our own, which need no rule.
const OWN: [&str; 3] = ["internal", "resolver", "accepted"];

impl Profile {
    /// Adds all that a session's report tells. Names come from believed DNS answers alone; what is only claimed is an
    /// address.
    pub fn add_report(&mut self, report: &Report) {
        let session = report.session.id.as_str();
        let out = |d: &&trustrun_model::Destination| d.direction == Direction::Out && !OWN.contains(&d.rule.as_str());
        for d in report.destinations.iter().filter(out) {
            let believed = matches!(d.evidence, Evidence::Dns | Evidence::DnsSni);
            let exe = |at: usize| d.processes.get(at).map_or("", |process| process.exe.as_str());
            let seen = Seen {
                host: d.host.as_deref().filter(|_| believed),
                addr: Some(d.address),
                port: d.port,
                proto: Some(d.protocol),
                count: d.connections,
                sent: d.bytes_sent,
                received: d.bytes_received,
                exe: exe(0),
                session,
            };
            self.add(&seen);
            for at in 1..d.processes.len() {
                self.add(&Seen { count: 0, sent: 0, received: 0, exe: exe(at), ..seen });
            }
        }
        let queries: BTreeSet<&str> = report.queries.iter().map(|query| query.name.as_str()).collect();
        for name in queries {
            self.add(&Seen { host: Some(name), count: 1, session, ..Seen::default() });
        }
    }

    /// Adds what was seen.
    pub fn add(&mut self, seen: &Seen<'_>) {
        let Some((pattern, asked)) = pattern(seen) else { return };
        let inside = matches!(&pattern.target, Target::Name(name) if is_public_name(name))
            && seen.addr.is_some_and(is_private_address);
        let key = (asked, inside, pattern);
        let line = self.lines.entry(key.clone()).or_insert_with(|| Line {
            pattern: key.2,
            inside,
            asked,
            count: 0,
            sent: 0,
            received: 0,
            exes: BTreeSet::new(),
            sessions: BTreeSet::new(),
            review: Review::Approve,
            narrowed: false,
            note: None,
        });
        line.count = line.count.saturating_add(seen.count);
        line.sent = line.sent.saturating_add(seen.sent);
        line.received = line.received.saturating_add(seen.received);
        line.exes.extend(Some(seen.exe.to_owned()).filter(|exe| !exe.is_empty()));
        line.sessions.extend(Some(seen.session.to_owned()).filter(|session| !session.is_empty()));
    }

    /// The lines, in the order of their patterns. Names that were only asked for are there where no other line has them.
    pub fn lines(&self) -> Vec<Line> {
        let reached: Vec<&Pattern> = self.lines.values().filter(|line| !line.asked).map(|line| &line.pattern).collect();
        let names: BTreeSet<&str> = reached.iter().filter_map(|p| named(p)).collect();
        let is_new = |line: &&Line| {
            let name = named(&line.pattern).unwrap_or_default();
            // A search domain behind a name that was reached may be asked for, and grants nothing.
            let expansion =
                names.iter().any(|reached| name.strip_prefix(*reached).is_some_and(|rest| rest.starts_with('.')));
            !line.asked || !(names.contains(name) || expansion)
        };
        self.lines.values().filter(is_new).cloned().collect()
    }
}

fn named(pattern: &Pattern) -> Option<&str> {
    match &pattern.target {
        Target::Name(name) => Some(name),
        _ => None,
    }
}

impl Line {
    /// Whether a policy lets all of it through already.
    #[must_use]
    pub fn is_in(&self, policy: &Reader<'_>) -> bool {
        let host = named(&self.pattern).map(str::to_owned);
        let address = match &self.pattern.target {
            Target::Net(net) => Some(IpAddr::V6(net.address.into()).to_canonical()),
            // Only what kind of address it is counts here.
            _ if self.inside => Some(IpAddr::from([10, 255, 255, 254])),
            _ => None,
        };
        let protocol = self.pattern.protocol.unwrap_or(Protocol::Tcp);
        let destination = Destination { host, address, port: self.pattern.ports.0, port_given: true, protocol };
        let whos: Vec<Who> = match self.exes.is_empty() {
            true => vec![Who::default()],
            false => self.exes.iter().map(|exe| Who { exe: Some(exe.clone()), ..Who::default() }).collect(),
        };
        whos.iter().all(|who| policy.decide(&destination, who).0 == Action::Allow)
    }

    /// Widens the pattern: a name to all beside it, an address to its network. False where it goes no further.
    pub fn widen(&mut self) -> bool {
        let wider = match &self.pattern.target {
            Target::Name(name) | Target::Below(name) => match name.split_once('.') {
                // Nobody's zone is a top-level name.
                Some((_, zone)) if zone.contains('.') => Target::Below(zone.into()),
                _ => return false,
            },
            Target::Net(net) => {
                let step = match (net.is_v4(), net.bits) {
                    (true, 121..) => 120,
                    (true, 113..) => 112,
                    (false, 65..) => 64,
                    _ => return false,
                };
                Target::Net(Net { address: prefix(net.address, step), bits: step })
            }
            Target::Any => return false,
        };
        self.pattern.target = wider;
        true
    }

    /// Whether another line says all of this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (a, b) = (&self.pattern, &other.pattern);
        let target = match (&a.target, &b.target) {
            (Target::Below(zone), Target::Name(name) | Target::Below(name)) => is_below(name, zone),
            (Target::Net(outer), Target::Net(inner)) => {
                outer.is_v4() == inner.is_v4() && outer.bits < inner.bits && outer.contains(inner.address)
            }
            _ => false,
        };
        target && a.protocol == b.protocol && a.ports == b.ports && self.inside == other.inside && !self.narrowed
    }

    /// Where it comes from, in one line: how often, how much, by whom, in which sessions.
    #[must_use]
    pub fn provenance(&self) -> String {
        let mut text = match (self.asked, self.count) {
            (true, _) => "asked for, not connected to".to_owned(),
            (false, 1) => "1 time".to_owned(),
            (false, count) => format!("{count} times"),
        };
        if self.sent > 0 || self.received > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} out, {} in", octets(self.sent), octets(self.received));
        }
        let list = |set: &BTreeSet<String>, most: usize| {
            let mut shown: Vec<String> = set.iter().take(most).map(|one| Untrusted::new(one).to_string()).collect();
            if set.len() > most {
                shown.push(format!("{} more", set.len() - most));
            }
            shown.join(" ")
        };
        if !self.exes.is_empty() {
            let _ = write!(text, ", by {}", list(&self.exes, 3));
        }
        if !self.sessions.is_empty() {
            let _ = write!(text, ", session {}", list(&self.sessions, 2));
        }
        text
    }
}

fn octets(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

impl Policy {
    /// The text of a policy that allows exactly these destinations and blocks everything else. `name` is that of the
    /// policy.
    #[must_use]
    pub fn propose(name: &str, seen: &[Seen<'_>]) -> String {
        let mut profile = Profile::default();
        seen.iter().for_each(|seen| profile.add(seen));
        write_profile(name, &profile.lines(), &[])
    }
}

/// The text of a policy of reviewed lines, beside what it extends.
#[must_use]
pub fn write_profile(name: &str, lines: &[Line], extends: &[String]) -> String {
    let mut text = String::from(
        "# Learned by trustrun: what sessions reached, and nothing else. Read it before you rely on it.\n",
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "version: 1\nname: {}", quoted(name));
    if !extends.is_empty() {
        let list: Vec<String> = extends.iter().map(|one| quoted(one)).collect();
        let _ = writeln!(text, "extends: [{}]", list.join(", "));
    }
    text.push_str("default: block\n");
    let covered = |at: usize| {
        lines
            .iter()
            .enumerate()
            .any(|(other, line)| other != at && line.review == lines[at].review && line.covers(&lines[at]))
    };
    let kept: Vec<&Line> = (0..lines.len()).filter(|at| !covered(*at)).map(|at| &lines[at]).collect();
    if kept.is_empty() {
        text.push_str("rules: []\n");
        return text;
    }
    text.push_str("rules:\n");
    let mut rules: BTreeMap<Group<'_>, Vec<&Line>> = BTreeMap::new();
    for line in kept {
        rules.entry(Group::of(line)).or_default().push(line);
    }
    for (group, lines) in rules {
        group.write(&mut text, &lines);
    }
    text
}

/// What lines of one rule have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group<'l> {
    denied: bool,
    asked: bool,
    inside: bool,
    narrowed: bool,
    exes: &'l BTreeSet<String>,
    note: Option<&'l str>,
}

impl<'l> Group<'l> {
    fn of(line: &'l Line) -> Self {
        Self {
            denied: line.review == Review::Deny,
            asked: line.asked,
            inside: line.inside,
            narrowed: line.narrowed && !line.exes.is_empty(),
            exes: &line.exes,
            note: line.note.as_deref(),
        }
    }

    fn write(&self, text: &mut String, lines: &[&Line]) {
        let programs: Vec<&str> = self.exes.iter().map(|exe| exe.rsplit('/').next().unwrap_or(exe)).collect();
        let by = if programs.is_empty() { String::new() } else { format!(", {}", programs.join(" ")) };
        let what = match (self.denied, self.asked, self.inside) {
            (true, ..) => "denied in review",
            (_, true, _) => "learned, names asked for alone",
            (_, _, true) => "learned, at private addresses",
            _ => "learned",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  - name: {}", quoted(&format!("{what}{by}")));
        if self.inside && !self.denied {
            text.push_str("    private: allow\n");
        }
        if self.narrowed {
            let exes: Vec<String> = self.exes.iter().map(|exe| quoted(exe)).collect();
            let _ = writeln!(text, "    when: {{exe: [{}]}}", exes.join(", "));
        }
        if let Some(note) = self.note {
            let _ = writeln!(text, "    reason: {}", quoted(note));
        }
        let _ = writeln!(text, "    {}:", if self.denied { "block" } else { "allow" });
        for line in lines {
            let _ = writeln!(text, "      - \"{}\" # {}", line.pattern, line.provenance());
        }
    }
}

fn pattern(seen: &Seen<'_>) -> Option<(Pattern, bool)> {
    let name = seen.host.filter(|host| is_host_name(host)).map(|host| Target::Name(normal(host).into()));
    let Some(addr) = seen.addr else {
        let pattern = Pattern { target: name?, protocol: Some(Protocol::Udp), ports: (DISCARD, DISCARD) };
        return Some((pattern, true));
    };
    let target = name.unwrap_or(Target::Net(Net { address: mapped(addr), bits: 128 }));
    let protocol = seen.proto.unwrap_or(Protocol::Tcp);
    let ports = if has_ports(protocol) { (seen.port, seen.port) } else { (0, u16::MAX) };
    Some((Pattern { target, protocol: Some(protocol), ports }, false))
}

/// A YAML double-quoted scalar on one line, which a policy accepts as a name.
fn quoted(text: &str) -> String {
    const MOST: usize = 150;
    // What acts on a terminal is shown, not kept: a policy refuses it in names.
    let tame = Untrusted::new(text).to_string();
    let tame: String = tame.chars().take(MOST).collect();
    let tame = if tame.trim().is_empty() { "learned".to_owned() } else { tame };
    format!("\"{}\"", tame.replace('\\', "\\\\").replace('"', "\\\""))
}
