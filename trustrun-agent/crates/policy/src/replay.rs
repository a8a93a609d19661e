//! What a policy would have done in a session that is over.

use std::{borrow::Cow, collections::BTreeSet};

use trustrun_model::{Action, Direction, Evidence, Report};

use crate::{
    Destination, Matcher, Policy, Rule, Who,
    judge::{Point, Verdict, has, reaches, standing},
    pattern::{is_host_name, mapped, normal},
};

/// What a policy would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Connections, sorted by what changes.
    pub connections: Vec<Replayed>,
    /// Lookups of names.
    pub lookups: Vec<Replayed>,
    /// What cannot be known from the report.
    pub unknown: Vec<String>,
}

/// One destination, or one name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replayed {
    /// What would change.
    pub outcome: Outcome,
    /// Where to.
    pub destination: String,
    /// What was done in the session.
    pub before: Action,
    /// What this policy does.
    pub after: Action,
    /// The rule that says so, or `default`.
    pub rule: String,
    /// How often.
    pub count: u64,
    /// Executables.
    pub by: BTreeSet<String>,
    /// Whether it depends on what the report does not tell.
    pub uncertain: bool,
}

/// What would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It would be refused.
    Refused,
    /// It would be let through.
    Allowed,
    /// It would be a violation, or none any more, and let through in both.
    Changed,
    /// The same.
    Unchanged,
}

impl Outcome {
    /// The word of reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "newly-refused",
            Self::Allowed => "newly-allowed",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }

    fn of(before: Action, after: Action) -> Self {
        match (before.refuses(), after.refuses()) {
            (false, true) => Self::Refused,
            (true, false) => Self::Allowed,
            _ if before.violates() != after.violates() => Self::Changed,
            _ => Self::Unchanged,
        }
    }
}

/// Reasons of our own, which no policy changes.
const OWN: [&str; 3] = ["internal", "resolver", "accepted"];

/// Reads a policy's rules for destinations of processes.
#[derive(Debug)]
pub struct Reader<'p> {
    policy: Cow<'p, Policy>,
}

impl<'p> Reader<'p> {
    /// For a policy.
    #[must_use]
    pub fn new(policy: &'p Policy) -> Self {
        Self { policy: policy.without_encrypted_dns() }
    }

    /// The action, the rule that says so (`default` is none), and whether it depends on what is not known of the process.
    #[must_use]
    pub fn decide(&self, destination: &Destination, who: &Who) -> (Action, String, bool) {
        self.judge(&self.policy.rules, self.policy.default, destination, who)
    }

    fn judge(&self, rules: &[Rule], default: Action, destination: &Destination, who: &Who) -> (Action, String, bool) {
        let (name, address) = (destination.host.as_deref(), destination.address.map(mapped));
        let point = Point { name, address, protocol: destination.protocol, port: destination.port, private: false };
        let mut verdict = Verdict::default();
        let mut perhaps = false;
        for (index, rule) in rules.iter().enumerate() {
            let speaks =
                |(_, p): &&(Action, crate::Pattern)| reaches(p, point.protocol, point.port) && has(&p.target, &point);
            for (action, pattern) in rule.patterns.iter().filter(speaks) {
                let standing = standing(rule, *action, pattern, &point, who);
                perhaps |= standing == crate::judge::Standing::Maybe;
                verdict.add(standing, *action, &rule.name, index);
            }
        }
        let (action, rule) = verdict.say(default);
        (action, rule.map_or_else(|| "default".to_owned(), |rule| rules[rule].name.clone()), perhaps)
    }

    /// What it would have done in a session.
    #[must_use]
    pub fn replay(&self, report: &Report) -> Replay {
        let mut replay = Replay::default();
        let mut unknown = BTreeSet::new();
        for destination in &report.destinations {
            let replayed = self.one(report, destination, &mut unknown);
            replay.connections.push(replayed);
        }
        let matcher = Matcher::new(&self.policy);
        for query in &report.queries {
            let decision = matcher.decide_query(&query.name);
            let rule = decision.rule.map_or_else(|| "default".to_owned(), |rule| matcher.rule_name(rule).to_owned());
            replay.lookups.push(Replayed {
                outcome: Outcome::of(query.action, decision.action),
                destination: query.name.clone(),
                before: query.action,
                after: decision.action,
                rule,
                count: query.count,
                by: BTreeSet::new(),
                uncertain: false,
            });
        }
        replay.connections.sort();
        replay.lookups.sort();
        let any = |wanted: Outcome| replay.connections.iter().chain(&replay.lookups).any(|r| r.outcome == wanted);
        if any(Outcome::Refused) {
            unknown.insert("what the program would have done after a refusal: it may try elsewhere, or end".to_owned());
        }
        if any(Outcome::Allowed) {
            unknown.insert("what would have followed what was refused then: the session ended there".to_owned());
        }
        unknown.extend(report.gaps.iter().map(|gap| format!("what the session missed: {} ({})", gap.kind, gap.detail)));
        replay.unknown = unknown.into_iter().collect();
        replay
    }

    fn one(&self, report: &Report, seen: &trustrun_model::Destination, unknown: &mut BTreeSet<String>) -> Replayed {
        let by: BTreeSet<String> = seen.processes.iter().map(|p| p.exe.clone()).filter(|exe| !exe.is_empty()).collect();
        let believed = matches!(seen.evidence, Evidence::Dns | Evidence::DnsSni);
        let usable = seen.host.as_deref().filter(|host| is_host_name(host)).map(normal);
        let host = usable.clone().filter(|_| believed);
        let (address, port, protocol) = (Some(seen.address), seen.port, seen.protocol);
        let destination = Destination { host, address, port, port_given: true, protocol };
        let whos = whos(report, seen);
        let said = |destination: &Destination| {
            let words = whos.iter().map(|who| match seen.direction {
                Direction::In if self.policy.listen.is_empty() => (seen.action, seen.rule.clone(), false),
                Direction::In => self.judge(&self.policy.listen, self.policy.default, destination, who),
                Direction::Out => self.decide(destination, who),
            });
            words.max_by_key(|(action, ..)| *action)
        };
        let own = OWN.contains(&seen.rule.as_str()) && seen.direction == Direction::Out;
        let same = (seen.action, seen.rule.clone(), false);
        let (after, rule, uncertain) = if own { same } else { said(&destination).unwrap_or(same) };
        if let (false, Some(claim)) = (believed, &usable) {
            let what = "whose name only the program claims: they are judged by their address";
            unknown.insert(format!("connections {what} ({claim} at {})", seen.address));
        }
        if uncertain {
            unknown.insert(
                "whether conditions on unit, user or arguments hold, where the report does not tell".to_owned(),
            );
        }
        let name = usable.filter(|_| believed);
        let shown = Destination { host: name, ..destination };
        Replayed {
            outcome: Outcome::of(seen.action, after),
            destination: format!("{}{shown}", if seen.direction == Direction::In { "from " } else { "" }),
            before: seen.action,
            after,
            rule,
            count: seen.connections,
            by,
            uncertain,
        }
    }
}

/// The processes that made a destination's connections, as conditions ask about them.
fn whos(report: &Report, seen: &trustrun_model::Destination) -> Vec<Who> {
    let user: Vec<String> = Some(report.session.user.clone()).filter(|user| !user.is_empty()).into_iter().collect();
    let each = |process: &trustrun_model::Process| Who {
        exe: Some(process.exe.clone()).filter(|exe| !exe.is_empty()),
        user: user.clone(),
        unit: None,
        arguments: Some(process.argv.clone()).filter(|argv| !argv.is_empty()),
    };
    match seen.processes.is_empty() {
        true => vec![Who { user, ..Who::default() }],
        false => seen.processes.iter().map(each).collect(),
    }
}
