//! The sets of rules of the nodes of `NAMES` and `NETS`, each once, and what they say in each case.

use std::collections::{BTreeSet, HashMap};

use trustrun_common::{ACTION_NONE, NameValue, NetValue, PortKey, PortValue, SET_DEPENDS, ask_key, port_key};
use trustrun_model::Action;

use super::{MAX_PORT_ENTRIES, TablesError, number};
use crate::{
    Class, Classes,
    ports::{Hit, PortTable, Reach, prefixes},
    query::{Word, ask},
    targets::{Marks, Own, Side, Silent, Special, Targets},
};

/// A table among those that are known, by number.
type TableId = u32;
/// What is marked at a node, by number; 0 is nothing.
type MarksId = u32;
/// A set's number, with `SET_DEPENDS`.
type SetId = u32;

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    Name,
    Address,
}

/// All that is said at a node, its own rules and those of what contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Above {
    about: About,
    /// By rules that always speak: whatever the address is (for a lookup), at a public one, at a private one.
    all: TableId,
    public: TableId,
    private: TableId,
    /// The most severe of those that names the host.
    named: Option<Hit>,
    marks: MarksId,
}

/// Exceptions that matter to what is said about the other of name and address; sorted.
type Excepted = Vec<(u32, Reach)>;

/// The sets of rules.
pub(super) struct Sets<'a> {
    classes: &'a Classes,
    default: Action,
    tables: Interned<PortTable>,
    /// Targets' own tables, numbered, so that the merging of equal pairs is done once.
    own: HashMap<&'a PortTable, usize>,
    merged: HashMap<(TableId, usize), TableId>,
    marks: Interned<Marks>,
    /// Ranks of rules that speak about addresses or everything, and about names or everything, with exceptions.
    speaking: [BTreeSet<u32>; 2],
    /// What exceptions of names, and of addresses, make of the other.
    excepted: [Interned<Excepted>; 2],
    /// Tables of each case, to sets.
    families: HashMap<(Vec<TableId>, Vec<u8>), SetId>,
    /// What is said at a node on a side, to sets.
    known: HashMap<(About, TableId, MarksId, Side, Vec<u8>), SetId>,
    asked: HashMap<(TableId, Option<Hit>, MarksId), Vec<u8>>,
    /// Spans of all tables, each an entry of `PORTS` at least.
    spans: usize,
    sets: u32,
    ports: Vec<(PortKey, u32, PortValue)>,
}

/// Values by number, each once. The default is number 0.
struct Interned<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T: Clone + Default + Eq + std::hash::Hash> Interned<T> {
    fn new() -> Self {
        Self { numbers: [(T::default(), 0)].into(), values: vec![T::default()] }
    }

    fn number(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

impl<'a> Sets<'a> {
    pub(super) fn new(targets: &'a Targets, default: Action) -> Self {
        let speaking = |targets: &mut dyn Iterator<Item = &'a Own>| {
            let marks = targets.filter_map(|own| own.marks.as_deref());
            marks.flat_map(|marks| &marks.special).map(|special| special.entry.hit.rank).collect()
        };
        let any = || std::iter::once(&targets.any);
        Self {
            classes: &targets.classes,
            default,
            tables: Interned::new(),
            own: HashMap::new(),
            merged: HashMap::new(),
            marks: Interned::new(),
            speaking: [
                speaking(&mut any().chain(targets.nets.values())),
                speaking(&mut any().chain(targets.names.values()).chain(targets.below.values())),
            ],
            excepted: [Interned::new(), Interned::new()],
            families: HashMap::new(),
            known: HashMap::new(),
            asked: HashMap::new(),
            spans: 0,
            sets: 0,
            ports: Vec::new(),
        }
    }

    /// What is said where nothing but the rules about everything matches.
    pub(super) fn root(&mut self, any: &'a Own, about: About) -> Above {
        let nothing = Above { about, all: 0, public: 0, private: 0, named: None, marks: 0 };
        Above { named: None, ..self.inside(nothing, any) }
    }

    /// What is said by what contains a target and, inside it, by its own rules.
    pub(super) fn inside(&mut self, outer: Above, own: &'a Own) -> Above {
        Above {
            about: outer.about,
            all: self.merge(outer.all, own.side(Side::All)),
            public: self.merge(outer.public, own.side(Side::Public)),
            private: self.merge(outer.private, own.side(Side::Private)),
            named: outer.named.max(own.all.hits().max()),
            marks: own.marks.as_ref().map_or(outer.marks, |own| self.mark(outer.marks, own)),
        }
    }

    fn merge(&mut self, outer: TableId, own: &'a PortTable) -> TableId {
        let next = self.own.len();
        let own_id = *self.own.entry(own).or_insert(next);
        if let Some(&table) = self.merged.get(&(outer, own_id)) {
            return table;
        }
        if self.spans > MAX_PORT_ENTRIES {
            return 0; // `full` tells
        }
        let table = if outer == 0 { own.clone() } else { self.tables.get(outer).merge(own) };
        let table = self.number(table);
        self.merged.insert((outer, own_id), table);
        table
    }

    fn number(&mut self, table: PortTable) -> TableId {
        let (known, spans) = (self.tables.values.len(), table.spans_in_all());
        let number = self.tables.number(table);
        if self.tables.values.len() > known {
            self.spans += spans;
        }
        number
    }

    /// Whether there is more than the kernel is given.
    fn full(&self) -> Result<(), TablesError> {
        if self.spans > MAX_PORT_ENTRIES || self.ports.len() > MAX_PORT_ENTRIES {
            return Err(TablesError::TooManyPorts { limit: MAX_PORT_ENTRIES });
        }
        Ok(())
    }

    fn mark(&mut self, outer: MarksId, own: &Marks) -> MarksId {
        let mut marks = self.marks.get(outer).clone();
        marks.special.extend(&own.special);
        marks.silent.extend(&own.silent);
        marks.special.sort_unstable();
        marks.special.dedup();
        marks.silent.sort_unstable();
        marks.silent.dedup();
        self.marks.number(marks)
    }

    /// Learns which exceptions meet which rules, before any set is numbered.
    pub(super) fn meet<'b>(
        &mut self,
        names: impl Iterator<Item = &'b Above>,
        nets: impl Iterator<Item = &'b Above>,
    ) -> Result<(), TablesError> {
        self.full()?;
        for above in names.chain(nets) {
            self.excepted_at(above);
        }
        let most = self.excepted.iter().map(|e| e.values.len()).max().unwrap_or(1);
        let limit = usize::from(u16::MAX) / self.classes.count();
        if most > limit { Err(TablesError::TooManyExceptions { limit }) } else { Ok(()) }
    }

    /// The number of the exceptions at a node that matter to rules about the other of name and address.
    fn excepted_at(&mut self, above: &Above) -> u32 {
        let dimension = above.about as usize;
        let speaking = &self.speaking[dimension];
        let silent = &self.marks.get(above.marks).silent;
        let excepted = silent.iter().filter(|s| speaking.contains(&s.rank)).map(|s| (s.rank, s.reach)).collect();
        self.excepted[dimension].number(excepted)
    }

    fn skip(&mut self, above: &Above) -> u32 {
        self.excepted_at(above) * self.classes.count() as u32
    }

    pub(super) fn net(&mut self, above: &Above) -> Result<NetValue, TablesError> {
        let skip = self.skip(above);
        Ok(NetValue { set: self.set(above, Side::All, &[])?, skip })
    }

    pub(super) fn name(&mut self, above: &Above) -> Result<NameValue, TablesError> {
        // Within 16 bits, as `meet` saw.
        let skip = self.skip(above) as u16;
        let asks = self.asks(above);
        let (ask, asks) =
            if asks.windows(2).all(|pair| pair[0] == pair[1]) { (asks[0], Vec::new()) } else { (ACTION_NONE, asks) };
        let set = self.set(above, Side::Public, &asks)?;
        Ok(NameValue { set, private: self.set(above, Side::Private, &[])?, ask, pad: 0, skip })
    }

    /// What becomes of a lookup, for each class.
    fn asks(&mut self, above: &Above) -> Vec<u8> {
        let key = (above.all, above.named, above.marks);
        if let Some(asks) = self.asked.get(&key) {
            return asks.clone();
        }
        let one = |class| number(self.ask(above, class).action);
        let asks = if self.marks.get(above.marks).special.iter().any(|s| s.condition.is_some()) {
            let classes: Vec<u8> = self.classes.known().map(one).collect();
            classes.iter().max().copied().into_iter().chain(classes.iter().copied()).collect()
        } else {
            vec![one(Class::default())]
        };
        self.asked.insert(key, asks.clone());
        asks
    }

    fn ask(&self, above: &Above, class: Class) -> Word {
        let marks = self.marks.get(above.marks);
        let live = |s: &&Special| s.condition.is_none_or(|c| self.classes.holds(class, c));
        let plain = self.tables.get(above.all);
        let said = speak(plain, marks, &[], |s| live(&s));
        let only = speak(&PortTable::default(), marks, &[], |s| live(&s) && s.named);
        ask(&said, above.named.max(only.hits().max()), self.default)
    }

    /// The set of what is said at a node on a side.
    fn set(&mut self, above: &Above, side: Side, asks: &[u8]) -> Result<SetId, TablesError> {
        let plain = match side {
            Side::All => above.all,
            Side::Public => above.public,
            Side::Private => above.private,
        };
        let key = (above.about, plain, above.marks, side, asks.to_vec());
        if let Some(&set) = self.known.get(&key) {
            return Ok(set);
        }
        let mut cases =
            if self.marks.get(above.marks).special.is_empty() { vec![plain] } else { self.cases(above, plain, side) };
        if asks.is_empty() && cases.iter().all(|table| *table == cases[0]) {
            cases.truncate(1);
        }
        self.full()?;
        let set = self.family(cases, asks)?;
        self.known.insert(key, set);
        Ok(set)
    }

    /// What is said in each case: for each of the other's exceptions, for each class.
    fn cases(&mut self, above: &Above, plain: TableId, side: Side) -> Vec<TableId> {
        let other = 1 - above.about as usize;
        let mut cases = Vec::new();
        for excepted in 0..self.excepted[other].values.len() {
            for class in 0..self.classes.count() {
                let class = Class(u8::try_from(class).unwrap_or_default());
                let table = self.case(above, plain, side, excepted, class);
                cases.push(self.number(table));
            }
        }
        cases
    }

    fn case(&self, above: &Above, plain: TableId, side: Side, excepted: usize, class: Class) -> PortTable {
        let marks = self.marks.get(above.marks);
        let excepted = &self.excepted[1 - above.about as usize].values[excepted];
        let plain = self.tables.get(plain);
        let on = |s: &Special| s.on(side);
        if class != Class::default() {
            return speak(plain, marks, excepted, |s| {
                on(s) && s.condition.is_none_or(|c| self.classes.holds(class, c))
            });
        }
        let all = speak(plain, marks, excepted, on);
        if marks.special.iter().all(|s| s.condition.is_none()) {
            return all;
        }
        all.weak_beyond(&speak(plain, marks, excepted, |s| on(s) && s.condition.is_none()))
    }

    /// The number of the first of sets that say this, one after the other.
    fn family(&mut self, cases: Vec<TableId>, asks: &[u8]) -> Result<SetId, TablesError> {
        let key = (cases, asks.to_vec());
        if let Some(&set) = self.families.get(&key) {
            return Ok(set);
        }
        let first = self.sets + 1;
        let (cases, asks) = &key;
        for (i, (set, table)) in (first..).zip(cases).enumerate() {
            self.write(set, *table)?;
            // What becomes of a lookup is the same whatever the address will be.
            if let Some(ask) = asks.get(i) {
                self.ports.push((ask_key(set), 64, PortValue { action: *ask, ..PortValue::default() }));
            }
        }
        self.sets += cases.len() as u32;
        let set = if cases.len() > 1 { first | SET_DEPENDS } else { first };
        self.families.insert(key, set);
        Ok(set)
    }

    /// Writes a set's entries: "every protocol", then each span as the prefixes that make it up.
    fn write(&mut self, set: u32, table: TableId) -> Result<(), TablesError> {
        let value = |hit: Option<Hit>| match hit {
            Some(hit) => PortValue { rule: hit.rank, action: number(hit.action), weak: hit.weak.into(), pad: [0; 2] },
            None => PortValue { rule: u32::MAX, action: ACTION_NONE, weak: 0, pad: [0; 2] },
        };
        let table = self.tables.get(table);
        self.ports.extend(table.every.map(|hit| (port_key(set, 0, 0), 32, value(Some(hit)))));
        for (protocol, spans) in &table.protocols {
            for span in spans {
                let prefixes = prefixes(span.lo, span.hi);
                self.ports
                    .extend(prefixes.map(|(port, bits)| (port_key(set, *protocol, port), 40 + bits, value(span.hit))));
            }
        }
        self.full()
    }

    /// Numbers its sets behind those of another.
    pub(super) fn after(self, sets: u32) -> Self {
        Self { sets, ..self }
    }

    /// What is written to `PORTS`, and the last set's number.
    pub(super) fn into_ports(self) -> (Vec<(PortKey, u32, PortValue)>, u32) {
        (self.ports, self.sets)
    }
}

/// What rules that always speak say, and those marked ones that do here, less their exceptions at the node and those of
/// the other of name and address.
fn speak(plain: &PortTable, marks: &Marks, excepted: &[(u32, Reach)], speaks: impl Fn(&Special) -> bool) -> PortTable {
    let mut said = plain.clone();
    for special in marks.special.iter().filter(|s| speaks(s)) {
        let rank = special.entry.hit.rank;
        let here = marks.silent.iter().filter(|s: &&Silent| s.rank == rank).map(|s| &s.reach);
        let other = excepted.iter().filter(|(r, _)| *r == rank).map(|(_, reach)| reach);
        said = said.merge(&PortTable::new(&[special.entry]).without(here.chain(other)));
    }
    said
}
