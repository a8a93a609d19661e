//! What two policies say differently, by destinations and not by text.
//!
//! Names, addresses, ports and processes are cut into the parts within which neither policy can tell two points apart, and
//! one point of each part is asked about. So no difference is missed, and each row comes with a point that shows it.

mod field;
mod parts;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use trustrun_model::{Action, Protocol, Severity};

use self::{
    field::{Field, Touch},
    parts::{Regions, intervals},
};
use crate::{
    Except, Origin, Pattern, Policy, Private, Rule, When,
    judge::Point,
    pattern::{Target, has_ports},
};

/// Most pairs of a name and an address that are asked about together.
const MAX_PAIRS: usize = 50_000;

/// How one policy differs from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is decided otherwise about destinations.
    pub rows: Vec<DiffRow>,
    /// What is decided otherwise about connections that are accepted.
    pub listen: Vec<DiffRow>,
    /// Whether all was compared: false where too many names and networks meet.
    pub complete: bool,
    /// Sockets that only the second policy lets in.
    pub sockets_added: Vec<PathBuf>,
    /// Sockets that only the first lets in.
    pub sockets_removed: Vec<PathBuf>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiffRow {
    /// What changes, as a pattern; a name and a network where only both together do.
    pub destination: String,
    /// The protocol; none is those that no rule names.
    pub protocol: Option<Protocol>,
    /// First and last port.
    pub ports: (u16, u16),
    /// The processes, where it is not all.
    pub processes: Option<String>,
    /// Which addresses, where it depends on that.
    pub side: Option<&'static str>,
    /// What the first policy says.
    pub before: Word,
    /// What the second says.
    pub after: Word,
    /// A point that shows it.
    pub example: Example,
}

/// What a policy says about a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// What is done.
    pub action: Action,
    /// The rule and where it is written; none is the default.
    pub rule: Option<(String, Origin)>,
    /// How bad a violation is, where the rule says so.
    pub severity: Option<Severity>,
}

/// A point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example {
    /// Name.
    pub host: Option<String>,
    /// Address.
    pub address: Option<IpAddr>,
    /// Whether an address that is not said is private.
    pub private: bool,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was refused, and is let through.
    Passes,
    /// It was let through, and is refused.
    Refused,
    /// A violation of another severity, or none any more.
    Severity,
}

impl DiffRow {
    /// What kind of change it is.
    #[must_use]
    pub fn change(&self) -> Change {
        match (self.before.action.refuses(), self.after.action.refuses()) {
            (true, false) => Change::Passes,
            (false, true) => Change::Refused,
            _ => Change::Severity,
        }
    }
}

impl Policy {
    /// What `other` says differently.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Difference {
        let (before, after) = (self.without_encrypted_dns(), other.without_encrypted_dns());
        let (rows, complete) = rows([(&before.rules, before.default), (&after.rules, after.default)]);
        let [one, two] =
            [self, other].map(|policy| if policy.listen.is_empty() { Action::Allow } else { policy.default });
        let (listen, listens) = rows_of_listen([(&self.listen, one), (&other.listen, two)]);
        let without = |a: &Self, b: &Self| a.unix_sockets.difference(&b.unix_sockets).cloned().collect();
        Difference {
            rows,
            listen,
            complete: complete && listens,
            sockets_added: without(other, self),
            sockets_removed: without(self, other),
        }
    }
}

fn rows_of_listen(sides: [(&[Rule], Action); 2]) -> (Vec<DiffRow>, bool) {
    if sides.iter().all(|(rules, _)| rules.is_empty()) { (Vec::new(), true) } else { rows(sides) }
}

fn rows(sides: [(&[Rule], Action); 2]) -> (Vec<DiffRow>, bool) {
    let different = different([sides[0].0, sides[1].0]);
    let mut rows = BTreeSet::new();
    let defaults = [sides[0].1, sides[1].1];
    if defaults[0] != defaults[1] {
        rows.insert(default_row(defaults));
    }
    if different.iter().all(Vec::is_empty) {
        return (rows.into_iter().collect(), true);
    }
    let field = Field::new([sides[0].0, sides[1].0], &different);
    let mut found = Found { field: &field, defaults, rows: &mut rows };
    let complete = found.all();
    (rows.into_iter().collect(), complete)
}

fn default_row(defaults: [Action; 2]) -> DiffRow {
    let [before, after] = defaults.map(|action| Word { action, rule: None, severity: None });
    let example = Example { host: None, address: None, private: false, port: 0, protocol: Protocol::Tcp };
    let destination = "whatever no rule names".to_owned();
    DiffRow { destination, protocol: None, ports: (0, u16::MAX), processes: None, side: None, before, after, example }
}

/// What decides in a rule.
type Essence<'a> = (&'a [(Action, Pattern)], Vec<&'a Pattern>, Option<&'a When>, Private, Option<Severity>);

fn essence(rule: &Rule) -> Essence<'_> {
    let except = rule.except.iter().map(|e: &Except| &e.pattern).collect();
    (&rule.patterns, except, rule.when.as_deref(), rule.private, rule.severity)
}

/// Of each side the rules that the other does not have.
fn different(sides: [&[Rule]; 2]) -> [Vec<usize>; 2] {
    // Mostly both have the same rules in the same order.
    let same = sides[0].iter().zip(sides[1]).take_while(|(a, b)| essence(a) == essence(b)).count();
    let mut counts: BTreeMap<Key<'_>, [Vec<usize>; 2]> = BTreeMap::new();
    for (side, rules) in sides.iter().enumerate() {
        for (index, rule) in rules.iter().enumerate().skip(same) {
            counts.entry(Key(essence(rule))).or_default()[side].push(index);
        }
    }
    let mut different = [Vec::new(), Vec::new()];
    for [one, two] in counts.into_values() {
        match (one.is_empty(), two.is_empty()) {
            (false, true) => different[0].extend(one),
            (true, false) => different[1].extend(two),
            _ => {}
        }
    }
    different
}

/// An essence, in an order of its own.
#[derive(PartialEq, Eq)]
struct Key<'a>(Essence<'a>);

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (&self.0, &other.0);
        let rest = |e: &Essence<'_>| (e.3 as u8, e.4);
        (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)).then_with(|| rest(a).cmp(&rest(b)))
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Found<'f, 'r> {
    field: &'f Field<'r>,
    defaults: [Action; 2],
    rows: &'f mut BTreeSet<DiffRow>,
}

impl<'r> Found<'_, 'r> {
    /// Asks about every part. False where too many parts meet.
    fn all(&mut self) -> bool {
        let field = self.field;
        let regions = Regions::new(field.nets());
        let names = field.parts_of_names();
        let mut by_name: HashMap<Vec<u64>, &String> = HashMap::new();
        for name in &names {
            let touches = field.touching(Some(name.as_str()), None);
            if touches.iter().any(|touch| touch.differs) {
                for private in [false, true] {
                    self.ask(&field.shown(name), &touches, Some(name), None, private);
                }
            }
            by_name.entry(Field::shape(&touches)).or_insert(name);
        }
        let mut by_address: HashMap<(Vec<u64>, bool), &parts::Region> = HashMap::new();
        for region in &regions.parts {
            let touches = field.touching(None, Some(region.address));
            if !region.split && touches.iter().any(|touch| touch.differs) {
                self.ask(&region.shown(), &touches, None, Some(region.address), false);
            }
            let private = crate::private::is_private(region.address);
            by_address.entry((Field::shape(&touches), private)).or_insert(region);
        }
        let mut by_name: Vec<&String> = by_name.into_values().collect();
        by_name.sort();
        let mut by_address: Vec<&parts::Region> = by_address.into_values().collect();
        by_address.sort_by_key(|region| region.address);
        self.together(&by_name, &by_address)
    }

    /// Names and networks that meet: one of each kind with each.
    fn together(&mut self, names: &[&String], regions: &[&parts::Region]) -> bool {
        let field = self.field;
        let mut pairs = 0;
        for name in names {
            for region in regions {
                let touches = field.touching(Some(name), Some(region.address));
                let meet = touches.iter().any(|t| t.by_name()) && touches.iter().any(|t| t.by_net());
                if !meet || !touches.iter().any(|t| t.differs) {
                    continue;
                }
                pairs += 1;
                if pairs > MAX_PAIRS {
                    return false;
                }
                let shown = format!("{} at {}", field.shown(name), region.shown());
                self.ask(&shown, &touches, Some(name), Some(region.address), false);
            }
        }
        true
    }

    fn ask(&mut self, shown: &str, touches: &[Touch<'r>], name: Option<&String>, address: Option<u128>, private: bool) {
        if !touches.iter().any(|touch| touch.differs) {
            return;
        }
        for (protocol, probe, lo, hi) in intervals(touches) {
            let point = Point { name: name.map(String::as_str), address, protocol: probe, port: lo, private };
            if !touches.iter().any(|touch| touch.differs && touch.reaches(&point)) {
                continue;
            }
            self.ask_at(shown, touches, &point, protocol, (lo, hi));
        }
    }

    fn ask_at(
        &mut self,
        shown: &str,
        touches: &[Touch<'r>],
        point: &Point<'_>,
        protocol: Option<Protocol>,
        ports: (u16, u16),
    ) {
        let worlds = field::worlds(touches, point);
        let said: Vec<[Word; 2]> = worlds
            .iter()
            .map(|world| [0, 1].map(|side| self.field.say(side, touches, point, world, self.defaults[side])))
            .collect();
        let differs = |[a, b]: &[Word; 2]| (a.action, a.severity) != (b.action, b.severity);
        let all_alike =
            said.iter().all(|words| words.each_ref().map(|w| w.action) == said[0].each_ref().map(|w| w.action));
        for (world, words) in worlds.iter().zip(&said).filter(|(_, words)| differs(words)) {
            let joint = point.name.is_some() && point.address.is_some();
            if joint && self.implied(touches, point, world, words) {
                continue;
            }
            let [before, after] = words.clone();
            let ports = if has_ports(point.protocol) { ports } else { (0, u16::MAX) };
            let row = DiffRow {
                destination: shown.to_owned(),
                protocol,
                ports,
                processes: (!all_alike).then(|| world.shown()).flatten(),
                side: Self::side(touches, point),
                before,
                after,
                example: example(point),
            };
            // The same at both kinds of address is one row, that of the first.
            let twin = DiffRow { example: Example { private: false, ..row.example.clone() }, ..row.clone() };
            if !self.rows.contains(&twin) {
                self.rows.insert(row);
            }
            if all_alike {
                return;
            }
        }
    }

    /// Whether a rule depends on the kind of address that a name has.
    fn side(touches: &[Touch<'r>], point: &Point<'_>) -> Option<&'static str> {
        point.name.filter(|_| point.address.is_none())?;
        let depends = touches.iter().any(|touch| touch.depends_on_side());
        depends.then_some(if point.private { "a private address" } else { "a public address" })
    }

    /// Whether the name alone, or the address alone, says the same already.
    fn implied(&self, touches: &[Touch<'r>], point: &Point<'_>, world: &field::World, words: &[Word; 2]) -> bool {
        let private = point.address.is_some_and(crate::private::is_private);
        let name = Point { address: None, private, ..*point };
        let address = Point { name: None, ..*point };
        [name, address].iter().any(|part| {
            let touches: Vec<Touch<'r>> = touches.iter().filter(|touch| touch.has(part)).copied().collect();
            let said = [0, 1].map(|side| self.field.say(side, &touches, part, world, self.defaults[side]).action);
            said == words.each_ref().map(|word| word.action)
        })
    }
}

fn example(point: &Point<'_>) -> Example {
    Example {
        host: point.name.map(str::to_owned),
        address: point.address.map(|address| IpAddr::V6(address.into()).to_canonical()),
        private: point.private,
        port: point.port,
        protocol: point.protocol,
    }
}

/// Whether a target is about names.
fn names_it(target: &Target) -> bool {
    matches!(target, Target::Name(_) | Target::Below(_))
}
