//! Keys and values of the maps that hold a policy, what DNS answered, and who listens; named as the maps are.

use core::mem::{offset_of, size_of};

use crate::Address;

/// Longest host name, RFC 1035 2.3.4 without the trailing dot.
pub const NAME_MAX: usize = 253;
/// Bytes of a key of `NAMES`: the name reversed, in lower case, then NUL for an exact name
/// (`moc.elpmaxe\0`) or `.` for everything below (`moc.elpmaxe.`).
pub const NAME_KEY: usize = 256;
/// Most sets of rules that are kept for one address (several names on it); see [`Binding`].
pub const BOUND_SETS: usize = 8;

/// Actions as the kernel sees them: `model::Action` plus one, so that zero means "no rule matched".
pub const ACTION_NONE: u8 = 0;
/// Let it through.
pub const ACTION_ALLOW: u8 = 1;
/// Let it through and record it.
pub const ACTION_ALERT: u8 = 2;
/// Refuse.
pub const ACTION_BLOCK: u8 = 3;
/// Refuse, then end the target.
pub const ACTION_KILL: u8 = 4;

/// Most domains of a search list that are known to the kernel programs; more are unheard of.
pub const SEARCH_MOST: u32 = 8;

/// Value of `SEARCH_LIST`: one domain of the target's search list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SearchName {
    /// Reversed, with the dot that goes before it: `tset.` for `test`.
    pub name: [u8; NAME_KEY],
    /// Its bytes, the dot among them; 0 where there is none.
    pub length: u32,
}

/// Value of `NAMES` (LPM trie, key `[u8; NAME_KEY]`): the rules that match a name. A node's set holds all rules that
/// match, those of shorter wildcards too, because a lookup returns only the longest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameValue {
    /// Set of rules where it answers with a public address, a key part of `PORTS`; never 0. See [`SET_DEPENDS`].
    pub set: u32,
    /// The same where it answers with a private address (`PRIVATE`); never 0.
    pub private: u32,
    /// What becomes of a lookup of this name: `ACTION_*`. None is that it depends on the process: then `set` does too, and
    /// what becomes of it is at [`ask_key`] of `set` and the class.
    pub ask: u8,
    /// Zero.
    pub pad: u8,
    /// What this name adds to a set of an address that depends on it: see [`SET_DEPENDS`].
    pub skip: u16,
}

/// Value of `NETS` (LPM trie by address): the rules that match an address, those of shorter prefixes too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetValue {
    /// Set of rules, a key part of `PORTS`; never 0. See [`SET_DEPENDS`].
    pub set: u32,
    /// What this address adds to a set of a name that depends on it.
    pub skip: u32,
}

/// In a set of rules: what it says depends on the process, or on the other of name and address (a rule about the one with
/// an exception about the other). Then what is looked up is the set without this bit, plus the `skip` of the other one
/// (0 where it has none), plus the class of the process.
pub const SET_DEPENDS: u32 = 1 << 31;

/// The key of `PORTS` (all 64 bits) where it is said what becomes of a lookup.
#[must_use]
pub const fn ask_key(set: u32) -> PortKey {
    let s = set.to_be_bytes();
    [s[0], s[1], s[2], s[3], 0, 0, 0, 1]
}

/// Key of `PORTS` (LPM trie): set (big endian), protocol, port (big endian), zero. A prefix of 32 bits is "every
/// protocol", 40 "every port of it", up to 56 one port.
pub type PortKey = [u8; 8];

/// Builds a key of `PORTS`.
#[must_use]
pub const fn port_key(set: u32, protocol: u8, port: u16) -> PortKey {
    let (s, p) = (set.to_be_bytes(), port.to_be_bytes());
    [s[0], s[1], s[2], s[3], protocol, p[0], p[1], 0]
}

/// Value of `PORTS`: what the most severe rule of a set says about a protocol and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortValue {
    /// Index into the policy's rules, for the event.
    pub rule: u32,
    /// `ACTION_*`; none where the set says nothing about this port.
    pub action: u8,
    /// Not 0 if only rules with a condition speak here and it is not known whether it holds: then the default counts too.
    pub weak: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of `BINDINGS` (hash by address): what the target's believed DNS answers say about an address. Names that
/// the policy treats alike share a set, so few slots hold any number of names.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Sets of rules; 0 in a slot is "no rule matches that name" where `expires` is not 0.
    pub sets: [u32; BOUND_SETS],
    /// What each slot's name adds to a set of the address that depends on it ([`NameValue::skip`]).
    pub skips: [u16; BOUND_SETS],
    /// When each slot's binding ends; 0 is an empty slot.
    pub expires: [u64; BOUND_SETS],
}

/// Key of `BOUND_NAMES` (hash): that a name was answered with an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundName {
    /// The address.
    pub address: Address,
    /// [`crate::name_hash`] of the name that was asked.
    pub name: u64,
}

/// Key of `LISTENERS` (hash): a socket of the session that listens. Port in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenKey {
    /// The bound address; all zero for any (both families).
    pub address: Address,
    /// The port.
    pub port: u16,
    /// IPPROTO.
    pub protocol: u16,
    /// Zero.
    pub pad: u32,
}

/// Key of `PENDING` (LRU hash): a DNS query that this target sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingKey {
    /// The socket.
    pub cookie: u64,
    /// The resolver, as the program addressed it.
    pub server: Address,
    /// Its port.
    pub port: u16,
    /// The DNS message id.
    pub id: u16,
    /// Zero.
    pub pad: u32,
}

/// Value of `PENDING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingValue {
    /// [`crate::name_hash`] of the name asked.
    pub name: u64,
    /// The name's set of rules at a public address; 0 where none matches.
    pub set: u32,
    /// The same at a private address.
    pub private: u32,
    /// 1 if answers may be bound, 0 for a search-list expansion that is outside the policy.
    pub bind: u32,
    /// [`NameValue::skip`]
    pub skip: u32,
}

const _: () = {
    assert!(size_of::<NameValue>() == 12 && offset_of!(NameValue, ask) == 8 && offset_of!(NameValue, skip) == 10);
    assert!(size_of::<NetValue>() == 8 && offset_of!(NetValue, skip) == 4);
    assert!(size_of::<PortValue>() == 8 && offset_of!(PortValue, action) == 4);
    assert!(size_of::<Binding>() == 112 && offset_of!(Binding, skips) == 32 && offset_of!(Binding, expires) == 48);
    assert!(size_of::<BoundName>() == 24 && offset_of!(BoundName, name) == 16);
    assert!(size_of::<ListenKey>() == 24 && offset_of!(ListenKey, pad) == 20);
    assert!(size_of::<PendingKey>() == 32 && offset_of!(PendingKey, id) == 26);
    assert!(size_of::<PendingValue>() == 24 && offset_of!(PendingValue, bind) == 16);
    assert!(size_of::<SearchName>() == 260 && offset_of!(SearchName, length) == 256);
};
