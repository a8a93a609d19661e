//! A policy as the kernel programs look it up: plain data for their maps `NAMES`, `NETS` and `PORTS`.
//!
//! A lookup in a trie returns only the longest prefix, so each node holds all rules that match there: its own, those of
//! the wildcards or networks that contain it, and those about every target. Nodes about which the same is said
//! share a set. The kernel looks up the set of the name and that of the address, and takes the more severe word (of
//! equals the lower rule index); where neither says anything, the default.

//!
//! Rules with conditions (`when`) and with exceptions about the other of name and address make sets that depend on the
//! process, or on the address of a name: there is then one for each case, one after the other (`SET_DEPENDS`). All
//! other sets cost nothing for it. `sets` puts them together.

mod sets;

use std::collections::{BTreeMap, HashMap};

use trustrun_common::{
    ACTION_ALERT, ACTION_ALLOW, ACTION_BLOCK, ACTION_KILL, Address, NAME_KEY, NameValue, NetValue, PortKey, PortValue,
};
use trustrun_model::Action;

use self::sets::{About, Above, Sets};
use crate::{
    Classes, MAX_CLASSES, Policy,
    pattern::{Net, V4},
    private,
    rank::Ranks,
    targets::{Own, Targets, parents},
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
    pub nets: Vec<(Address, u32, NetValue)>,
    /// `LISTEN_NETS`: the same for peers who connect to the command, by the `listen` rules; empty where there are none.
    pub listen: Vec<(Address, u32, NetValue)>,
    /// `PRIVATE`: address bits and bits of the prefix of what is nobody's on the Internet.
    pub private: Vec<(Address, u32)>,
    /// `PORTS`: key, bits of its prefix, what is said. Sets are numbered from 1.
    pub ports: Vec<(PortKey, u32, PortValue)>,
    /// `ACTION_*` where nothing is said.
    pub default: u8,
    /// Names of the rules, by [`PortValue::rule`]: in the order that decides between equals.
    pub rules: Vec<String>,
    /// What the rules' conditions tell apart.
    pub classes: Classes,
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
    /// More combinations of conditions than a process can be told by.
    #[error(
        "the conditions (`when`) of the policy's rules make more than {limit} kinds of processes: wanted fewer \
             different ones; put rules together that speak about the same processes, or use whole paths instead of globs"
    )]
    TooManyClasses {
        /// [`MAX_CLASSES`]
        limit: usize,
    },
    /// More different exceptions than the kernel's tables can tell.
    #[error(
        "exceptions of the policy's rules make more than {limit} cases in the kernel: wanted fewer different \
             exceptions of names in rules about networks or `*`, or of networks in rules about names or `*`"
    )]
    TooManyExceptions {
        /// How many are possible.
        limit: usize,
    },
    /// Who accepts a connection is not known before it is there.
    #[error(
        "the `listen` rule `{rule}` has a `when`: wanted none, as it is not known which process will accept a connection"
    )]
    ListenCondition {
        /// The rule's name.
        rule: String,
    },
    /// The kernel compares whole arguments.
    #[error(
        "the rule `{rule}` has the argument `{argument}` in its `when`: wanted a whole argument without `*`, as the \
             policy enforces and the kernel compares whole arguments only"
    )]
    ArgumentGlob {
        /// The rule's name.
        rule: String,
        /// The argument.
        argument: String,
    },
}

/// The action as the kernel sees it.
fn number(action: Action) -> u8 {
    match action {
        Action::Allow => ACTION_ALLOW,
        Action::Alert => ACTION_ALERT,
        Action::Block => ACTION_BLOCK,
        Action::Kill => ACTION_KILL,
    }
}

impl Tables {
    pub(crate) fn new(policy: &Policy) -> Result<Self, TablesError> {
        let ranks = Ranks::new(policy);
        let targets = Targets::new(policy, &ranks);
        if let Some(rule) = policy.listen.iter().find(|rule| rule.when.is_some()) {
            return Err(TablesError::ListenCondition { rule: rule.name.clone() });
        }
        if targets.classes.too_many() {
            return Err(TablesError::TooManyClasses { limit: MAX_CLASSES });
        }
        no_globs(policy)?;
        let mut sets = Sets::new(&targets, policy.default);
        let names = walk_names(&targets, &mut sets);
        let nets = walk_nets(&targets, &mut sets);
        sets.meet(names.iter().map(|(_, above)| above), nets.values())?;
        let names = names.iter().map(|(key, above)| Ok((*key, sets.name(above)?))).collect::<Result<_, _>>()?;
        let nets =
            nets.iter().map(|(net, above)| Ok((net.address.to_be_bytes(), u32::from(net.bits), sets.net(above)?)));
        let nets = nets.collect::<Result<_, _>>()?;
        let (mut ports, count) = sets.into_ports();
        let (listen, said) = listening(policy, count)?;
        ports.extend(said);
        Ok(Self {
            names,
            nets,
            listen,
            private: private::networks().map(|net| (net.address.to_be_bytes(), u32::from(net.bits))).collect(),
            ports,
            default: number(policy.default),
            rules: ranks.ranked(&policy.rules).map(|(_, rule)| rule.name.clone()).collect(),
            classes: targets.classes,
        })
    }
}

/// Nodes of `LISTEN_NETS`, and what their sets say, numbered behind `before`.
type Listening = (Vec<(Address, u32, NetValue)>, Vec<(PortKey, u32, PortValue)>);

fn listening(policy: &Policy, before: u32) -> Result<Listening, TablesError> {
    if policy.listen.is_empty() {
        return Ok(Listening::default());
    }
    let ranks = Ranks::of(&policy.listen);
    let targets = Targets::of(&policy.listen, &ranks);
    let mut sets = Sets::new(&targets, policy.default).after(before);
    let mut nets = walk_nets(&targets, &mut sets);
    // All that is said may be excepted: then the default judges, and there is a table that says nothing.
    let nothing = sets.root(&targets.any, About::Address);
    nets.entry(Net { address: 0, bits: 0 }).or_insert(nothing);
    nets.entry(V4).or_insert(nothing);
    sets.meet(std::iter::empty(), nets.values())?;
    let nodes = nets.iter().map(|(net, above)| Ok((net.address.to_be_bytes(), u32::from(net.bits), sets.net(above)?)));
    let nodes = nodes.collect::<Result<_, _>>()?;
    Ok((nodes, sets.into_ports().0))
}

/// A rule whose condition the kernel cannot tell would speak about the wrong processes.
fn no_globs(policy: &Policy) -> Result<(), TablesError> {
    if !policy.enforcing() {
        return Ok(());
    }
    for rule in &policy.rules {
        let arguments = rule.when.iter().flat_map(|when| &when.argument);
        if let Some(argument) = arguments.into_iter().find(|a| a.contains('*')) {
            return Err(TablesError::ArgumentGlob { rule: rule.name.clone(), argument: argument.clone() });
        }
    }
    Ok(())
}

/// Every node of `NAMES`, with all that is said there.
fn walk_names<'a>(targets: &'a Targets, sets: &mut Sets<'a>) -> Vec<(NameKey, Above)> {
    let mut nodes = Vec::with_capacity(targets.names.len() + targets.below.len() + 1);
    let root = sets.root(&targets.any, About::Name);
    if !targets.any.is_empty() {
        nodes.push((NameKey { bytes: [0; NAME_KEY], bits: 0 }, root));
    }
    // Wildcards before those inside them, so that each finds what it inherits.
    let mut wildcards: Vec<(&Box<str>, &Own)> = targets.below.iter().collect();
    wildcards.sort_by_key(|(name, _)| name.len());
    let mut above: HashMap<&str, Above> = HashMap::with_capacity(wildcards.len());
    let outer = |name: &str, above: &HashMap<&str, Above>| {
        parents(name).find_map(|parent| above.get(parent)).copied().unwrap_or(root)
    };
    for (name, own) in wildcards {
        let inside = sets.inside(outer(name, &above), own);
        nodes.push((name_key(name, b'.'), inside));
        above.insert(name, inside);
    }
    for (name, own) in &targets.names {
        let inside = sets.inside(outer(name, &above), own);
        nodes.push((name_key(name, 0), inside));
    }
    nodes
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

/// Every node of `NETS`, with all that is said there.
fn walk_nets<'a>(targets: &'a Targets, sets: &mut Sets<'a>) -> BTreeMap<Net, Above> {
    let mut nodes: BTreeMap<Net, Above> = BTreeMap::new();
    let everything = Net { address: 0, bits: 0 };
    let root = sets.root(&targets.any, About::Address);
    if !targets.any.is_empty() {
        nodes.insert(everything, root);
    }
    // A network sorts before those inside it. The two families are apart: what is said about an IPv6 network that
    // arithmetically covers the v4-mapped addresses is not said about IPv4.
    for v4 in [false, true] {
        let mut open: Vec<(Net, Above)> = Vec::new();
        for (&net, own) in targets.nets.iter().filter(|(net, _)| net.is_v4() == v4) {
            while open.pop_if(|(outer, _)| !outer.contains(net.address)).is_some() {}
            let outer = open.last().map_or(root, |(_, above)| *above);
            let inside = sets.inside(outer, own);
            open.push((net, inside));
            nodes.insert(net, inside);
        }
    }
    let leaks = nodes.keys().any(|net| net.bits < V4.bits && net.contains(V4.address));
    if leaks {
        nodes.entry(V4).or_insert(root);
    }
    nodes
}
