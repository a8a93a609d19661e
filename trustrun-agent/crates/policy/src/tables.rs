//! A policy as the kernel programs look it up: plain data for their maps `NAMES`, `NETS` and `PORTS`.
//!
//! A lookup in a trie returns only the longest prefix, so each node holds all rules that match there: its own, those of
//! the wildcards or networks that contain it, and those about every target. Nodes about which the same is said
//! share a set. The kernel looks up the set of the name and that of the address, and takes the more severe word (of
//! equals the lower rule index); where neither says anything, the default.

use std::collections::{BTreeMap, HashMap};

use trustrun_common::{ACTION_ALLOW, Address, NAME_KEY, NameValue, PortKey, PortValue, port_key};
use trustrun_model::Action;

use crate::{
    Policy,
    pattern::{Net, V4},
    ports::{Hit, PortTable, prefixes},
    private,
    query::ask,
    targets::{Named, Targets, parents},
};

/// Most entries of `PORTS`. Each takes some 64 octets of kernel memory that cannot be paged out, so this is 256 MiB.
pub const MAX_PORT_ENTRIES: usize = 1 << 22;

/// A key of `NAMES`, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameKey {
    /// The name reversed in lower case, then NUL (exact) or `.` (all below), then zeros.
    pub bytes: [u8; NAME_KEY],
    /// Eight for each octet of the name and its end; 0 is the root, which every name matches.
    pub bits: u32,
}

/// What is loaded into the kernel's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// `NAMES`, ordered by length. Where there is no root, a name that nothing matches has no set.
    pub names: Vec<(NameKey, NameValue)>,
    /// `NETS`: address (IPv4 as v4-mapped), bits of the prefix in those 128, set. A set may be one without entries in
    /// `ports`: it keeps IPv4 from inheriting what is said about IPv6.
    pub nets: Vec<(Address, u32, u32)>,
    /// `PRIVATE`: address bits and bits of the prefix of what is nobody's on the Internet.
    pub private: Vec<(Address, u32)>,
    /// `PORTS`: key, bits of its prefix, what is said. Sets are numbered from 1.
    pub ports: Vec<(PortKey, u32, PortValue)>,
    /// `ACTION_*` where nothing is said.
    pub default: u8,
    /// Names of the rules, by [`PortValue::rule`].
    pub rules: Vec<String>,
}

/// A policy that is right, but too large for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// Rules about many single ports of `*` or of a wildcard or network, with many names or networks inside it.
    #[error(
        "the policy's rules multiply to more than {limit} entries in the kernel: wanted fewer separate ports in \
             rules about `*`, wildcards and wide networks; write port ranges, or one rule for several destinations"
    )]
    TooManyPorts {
        /// [`MAX_PORT_ENTRIES`]
        limit: usize,
    },
}

/// The action as the kernel sees it.
fn number(action: Action) -> u8 {
    match action {
        Action::Allow => ACTION_ALLOW,
        Action::Alert => trustrun_common::ACTION_ALERT,
        Action::Block => trustrun_common::ACTION_BLOCK,
        Action::Kill => trustrun_common::ACTION_KILL,
    }
}

impl Tables {
    pub(crate) fn new(policy: &Policy) -> Result<Self, TablesError> {
        let targets = Targets::new(policy);
        let mut sets = Sets::default();
        let names = names(&targets, &mut sets, policy.default)?;
        let nets = nets(&targets, &mut sets)?;
        Ok(Self {
            names,
            nets,
            private: private::networks().map(|net| (net.address.to_be_bytes(), u32::from(net.bits))).collect(),
            ports: sets.ports,
            default: number(policy.default),
            rules: policy.rules.iter().map(|r| r.name.clone()).collect(),
        })
    }
}

/// A set's number; 0 is that of the set that says nothing, as long as no map refers to it.
type SetId = u32;

/// The sets of rules, each once.
#[derive(Default)]
struct Sets<'a> {
    tables: HashMap<PortTable, SetId>,
    by_id: Vec<PortTable>,
    /// Targets' own tables, numbered, so that the merging of equal pairs is done once.
    own: HashMap<&'a PortTable, usize>,
    merged: HashMap<(SetId, usize), SetId>,
    ports: Vec<(PortKey, u32, PortValue)>,
}

impl<'a> Sets<'a> {
    /// The set of what is said by an outer set and, inside it, by a target's own table.
    fn inside(&mut self, outer: SetId, own: &'a PortTable) -> Result<SetId, TablesError> {
        let next = self.own.len();
        let own_id = *self.own.entry(own).or_insert(next);
        if let Some(&set) = self.merged.get(&(outer, own_id)) {
            return Ok(set);
        }
        let table = match self.table(outer) {
            Some(outer) => outer.merge(own),
            None => own.clone(),
        };
        let set = self.number(table)?;
        self.merged.insert((outer, own_id), set);
        Ok(set)
    }

    fn table(&self, set: SetId) -> Option<&PortTable> {
        self.by_id.get((set as usize).checked_sub(1)?)
    }

    /// The number of a table that a map is about to refer to.
    fn number(&mut self, table: PortTable) -> Result<SetId, TablesError> {
        if let Some(&set) = self.tables.get(&table) {
            return Ok(set);
        }
        self.by_id.push(table.clone());
        let set = self.by_id.len() as SetId;
        self.write(set, &table)?;
        self.tables.insert(table, set);
        Ok(set)
    }

    /// Writes a set's entries: "every protocol", then each span as the prefixes that make it up.
    fn write(&mut self, set: SetId, table: &PortTable) -> Result<(), TablesError> {
        let value = |hit: Hit| PortValue { rule: hit.rule.0, action: number(hit.action), pad: [0; 3] };
        self.ports.extend(table.every.map(|hit| (port_key(set, 0, 0), 32, value(hit))));
        for (protocol, spans) in &table.protocols {
            for span in spans {
                let prefixes = prefixes(span.lo, span.hi);
                self.ports
                    .extend(prefixes.map(|(port, bits)| (port_key(set, *protocol, port), 40 + bits, value(span.hit))));
            }
            if self.ports.len() > MAX_PORT_ENTRIES {
                return Err(TablesError::TooManyPorts { limit: MAX_PORT_ENTRIES });
            }
        }
        Ok(())
    }
}

/// What a wildcard hands on to the names below it.
#[derive(Clone, Copy)]
struct Above {
    /// Whatever the address is, for the lookup.
    all: SetId,
    public: SetId,
    private: SetId,
    /// The most severe rule that names the host.
    named: Option<Hit>,
}

fn names<'a>(
    targets: &'a Targets,
    sets: &mut Sets<'a>,
    default: Action,
) -> Result<Vec<(NameKey, NameValue)>, TablesError> {
    let mut nodes = Vec::with_capacity(targets.names.len() + targets.below.len() + 1);
    let mut asked: HashMap<(SetId, Option<Hit>), u8> = HashMap::new();
    let mut node = |key: NameKey, above: Above, sets: &Sets<'a>| {
        let table = sets.table(above.all);
        let ask = asked
            .entry((above.all, above.named))
            .or_insert_with(|| number(table.map_or(default, |table| ask(table, above.named, default).action)));
        nodes.push((key, NameValue { set: above.public, private: above.private, ask: *ask, pad: [0; 3] }));
    };
    let mut root = Above { all: 0, public: 0, private: 0, named: None };
    if targets.any != PortTable::default() {
        let set = sets.number(targets.any.clone())?;
        root = Above { all: set, public: set, private: set, named: None };
        node(NameKey { bytes: [0; NAME_KEY], bits: 0 }, root, sets);
    }
    // Wildcards before those inside them, so that each finds what it inherits.
    let mut wildcards: Vec<(&Box<str>, &Named)> = targets.below.iter().collect();
    wildcards.sort_by_key(|(name, _)| name.len());
    let mut above: HashMap<&str, Above> = HashMap::with_capacity(wildcards.len());
    let inherit = |name: &str, own: &'a Named, above: &HashMap<&str, Above>, sets: &mut Sets<'a>| {
        let outer = parents(name).find_map(|parent| above.get(parent)).copied().unwrap_or(root);
        Ok(Above {
            all: sets.inside(outer.all, &own.all)?,
            public: sets.inside(outer.public, own.side(false))?,
            private: sets.inside(outer.private, own.side(true))?,
            named: outer.named.max(own.all.hits().max()),
        })
    };
    for (name, own) in wildcards {
        let inside = inherit(name, own, &above, sets)?;
        node(name_key(name, b'.'), inside, sets);
        above.insert(name, inside);
    }
    for (name, own) in &targets.names {
        let inside = inherit(name, own, &above, sets)?;
        node(name_key(name, 0), inside, sets);
    }
    Ok(nodes)
}

/// The key of a name of at most 253 octets, as patterns are.
pub(crate) fn name_key(name: &str, end: u8) -> NameKey {
    let mut bytes = [0; NAME_KEY];
    let octets = name.bytes().rev().chain([end]);
    let mut bits = 0;
    for (slot, octet) in bytes.iter_mut().zip(octets) {
        *slot = octet;
        bits += 8;
    }
    NameKey { bytes, bits }
}

fn nets<'a>(targets: &'a Targets, sets: &mut Sets<'a>) -> Result<Vec<(Address, u32, u32)>, TablesError> {
    let mut nodes: BTreeMap<Net, SetId> = BTreeMap::new();
    let everything = Net { address: 0, bits: 0 };
    let any = targets.any != PortTable::default();
    let root = if any { sets.number(targets.any.clone())? } else { 0 };
    if any {
        nodes.insert(everything, root);
    }
    // A network sorts before those inside it. The two families are apart: what is said about an IPv6 network that
    // arithmetically covers the v4-mapped addresses is not said about IPv4.
    for v4 in [false, true] {
        let mut open: Vec<(Net, SetId)> = Vec::new();
        for (&net, own) in targets.nets.iter().filter(|(net, _)| net.is_v4() == v4) {
            while open.pop_if(|(outer, _)| !outer.contains(net.address)).is_some() {}
            let outer = open.last().map_or(root, |(_, set)| *set);
            let set = sets.inside(outer, own)?;
            open.push((net, set));
            nodes.insert(net, set);
        }
    }
    let leaks = nodes.keys().any(|net| net.bits < V4.bits && net.contains(V4.address));
    if leaks && !nodes.contains_key(&V4) {
        let barrier = if any { root } else { sets.number(PortTable::default())? };
        nodes.insert(V4, barrier);
    }
    Ok(nodes.into_iter().map(|(net, set)| (net.address.to_be_bytes(), u32::from(net.bits), set)).collect())
}
