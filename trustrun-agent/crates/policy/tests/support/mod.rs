//! Random policies and destinations, the kernel's lookups done in user space, and a judge who reads each rule.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and these are their helpers")]

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv6Addr},
};

use proptest::{prelude::*, sample::select};
use trustrun_common::{ACTION_NONE, NetValue, PortValue, SET_DEPENDS, ask_key, port_key};
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Class, Classes, Policy, Private, Tables, When};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Any,
    Name(String),
    Below(String),
    /// Mapped address, bits of 128, IPv4.
    Net(u128, u8, bool),
}

#[derive(Clone, Debug)]
pub(crate) struct Pat {
    pub(crate) action: Action,
    pub(crate) target: Target,
    /// None is every protocol.
    pub(crate) protocol: Option<u8>,
    pub(crate) ports: Option<(u16, u16)>,
    /// Its rule's word on private addresses: the same for all patterns of a rule.
    pub(crate) private: Private,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) patterns: Vec<Pat>,
    /// Their actions do not matter.
    pub(crate) except: Vec<Pat>,
    /// One of [`conditions`].
    pub(crate) when: Option<usize>,
}

pub(crate) type Rules = Vec<Rule>;

/// A process, as far as conditions tell it from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    exe: &'static str,
    user: &'static str,
    argument: bool,
}

/// The conditions of these tests.
fn conditions() -> [When; 5] {
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    [
        When { exe: words(&["/a"]), ..When::default() },
        When { exe: words(&["/b", "/c*"]), ..When::default() },
        When { user: words(&["x"]), ..When::default() },
        When { exe: words(&["/a"]), user: words(&["x", "y"]), ..When::default() },
        When { argument: words(&["q"]), ..When::default() },
    ]
}

/// Whether a condition holds, by its definition.
fn holds(condition: usize, process: &Process) -> bool {
    match condition {
        0 => process.exe == "/a",
        1 => process.exe == "/b" || process.exe == "/cc",
        2 => process.user == "x",
        3 => process.exe == "/a" && process.user != "z",
        _ => process.argument,
    }
}

/// Every process that there can be.
pub(crate) fn processes() -> Vec<Process> {
    let mut all = Vec::new();
    for exe in ["/a", "/b", "/cc", "/d"] {
        for user in ["x", "y", "z"] {
            all.extend([true, false].map(|argument| Process { exe, user, argument }));
        }
    }
    all
}

/// The class of a process.
pub(crate) fn class_of(classes: &Classes, process: &Process) -> Class {
    let conditions = conditions();
    let bit = |when: &When| conditions.iter().position(|c| c == when).is_some_and(|c| holds(c, process));
    let mask = (0..).zip(classes.conditions()).filter(|(_, when)| bit(when)).fold(0, |mask, (i, _)| mask | 1 << i);
    classes.of(mask)
}

#[derive(Clone, Debug)]
pub(crate) struct Dest {
    pub(crate) host: Option<String>,
    pub(crate) addr: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) protocol: u8,
}

const NAMES: [&str; 8] =
    ["example", "a.example", "b.a.example", "c.b.a.example", "aa.example", "z-1.aa.example", "x.test", "test"];
const PORTS: [u16; 10] = [0, 1, 22, 53, 80, 443, 8000, 8100, 65534, 65535];
const PROTOCOLS: [u8; 7] = [6, 6, 6, 17, 1, 132, 47];
const NETS: [&str; 19] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.1.0.0/16",
    "10.1.2.3/32",
    "128.0.0.0/1",
    "127.0.0.1/32",
    "::/0",
    "::/64",
    "::/95",
    "::fffe:0:0/95",
    "::ffff:0:0/96",
    "::ffff:10.0.0.0/104",
    "2001:db8::/32",
    "2001:db8::/33",
    "2001:db8::1/128",
    "fe80::/10",
    "::1/128",
    "64:ff9b::a00:0/104",
];

fn net(text: &str) -> (u128, u8, bool) {
    let (address, bits) = text.split_once('/').unwrap();
    let bits: u8 = bits.parse().unwrap();
    let (address, bits) = match address.parse().unwrap() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), bits + 96),
        IpAddr::V6(v6) => (v6.to_bits(), bits),
    };
    (address, bits, bits >= 96 && address >> 32 == 0xffff)
}

fn action() -> impl Strategy<Value = Action> {
    select(Action::ALL.to_vec())
}

fn target() -> impl Strategy<Value = Target> {
    let name = || select(&NAMES[..]).prop_map(String::from);
    prop_oneof![
        2 => Just(Target::Any),
        4 => name().prop_map(Target::Name),
        3 => name().prop_map(Target::Below),
        4 => select(&NETS[..]).prop_map(|n| { let (a, b, v4) = net(n); Target::Net(a, b, v4) }),
        1 => (any::<u16>(), 8u8..=32).prop_map(|(low, bits)| {
            let address = 0x0a00_0000 | u32::from(low);
            let address = u128::from(address & u32::MAX << (32 - bits)) | 0xffff_0000_0000;
            Target::Net(address, bits + 96, true)
        }),
    ]
}

pub(crate) fn pattern() -> impl Strategy<Value = Pat> {
    let protocol = prop_oneof![5 => select(&PROTOCOLS[..]).prop_map(Some), 1 => Just(None)];
    let ports = prop_oneof![
        1 => Just(None),
        1 => select(&PORTS[..]).prop_map(|p| Some((p, p))),
        1 => (select(&PORTS[..]), any::<u16>()).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
        1 => (select(&PORTS[..]), select(&PORTS[..])).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
    ];
    (action(), target(), protocol, ports).prop_map(|(action, target, mut protocol, mut ports)| {
        if let (Target::Net(_, _, false), Some(1)) = (&target, protocol) {
            protocol = Some(58);
        }
        if !matches!(protocol, Some(6 | 17 | 132)) {
            ports = None;
        }
        Pat { action, target, protocol, ports, private: Private::Refuse }
    })
}

/// At most `most` exceptions, and conditions for some rules if `when`.
pub(crate) fn rules_of(most: usize, when: bool) -> impl Strategy<Value = Rules> {
    let private = select(&[Private::Refuse, Private::Refuse, Private::Allow, Private::Require][..]);
    let except = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(pattern(), 0..=most)];
    let when = prop_oneof![3 => Just(None), u32::from(when) * 2 => (0..conditions().len()).prop_map(Some)];
    let rule = (prop::collection::vec(pattern(), 1..4), private, except, when);
    let rule = rule.prop_map(|(mut patterns, private, except, when)| {
        patterns.iter_mut().for_each(|pattern| pattern.private = private);
        Rule { name: String::new(), patterns, except, when }
    });
    prop::collection::vec(rule, 0..10).prop_map(|mut rules| {
        // Not in the order in which they sort.
        (7..).zip(&mut rules).for_each(|(i, rule)| rule.name = format!("rule {i}"));
        rules
    })
}

/// A destination of its own, or one at the edge of a rule.
pub(crate) fn destination(rules: &Rules) -> BoxedStrategy<Dest> {
    let mut ports: Vec<u16> = PORTS.to_vec();
    let mut addresses: Vec<u128> = Vec::new();
    for pattern in rules.iter().flat_map(|rule| rule.patterns.iter().chain(&rule.except)) {
        if let Some((lo, hi)) = pattern.ports {
            ports.extend([lo, hi, lo.saturating_sub(1), hi.saturating_add(1)]);
        }
        if let Target::Net(address, bits, _) = pattern.target {
            let last = address | u128::MAX.checked_shr(bits.into()).unwrap_or(0);
            addresses.extend([address, last, address.wrapping_sub(1), last.wrapping_add(1)]);
        }
    }
    for text in NETS {
        addresses.push(net(text).0);
    }
    let host = prop_oneof![
        4 => select(&NAMES[..]).prop_map(String::from),
        2 => select(&NAMES[..]).prop_map(|n| format!("deep.er.{n}")),
        1 => select(&NAMES[..]).prop_map(|n| format!("y{n}")),
        1 => select(&NAMES[..]).prop_map(|n| format!("W.{}.", n.to_uppercase())),
        1 => Just("other".to_owned()),
        1 => Just(String::new()),
    ];
    let addr = (select(addresses), any::<bool>()).prop_map(|(bits, mapped)| {
        let v6 = Ipv6Addr::from_bits(bits);
        // The same address in both of its spellings.
        v6.to_ipv4_mapped().filter(|_| !mapped).map_or(IpAddr::V6(v6), IpAddr::V4)
    });
    let protocol = prop_oneof![select(&PROTOCOLS[..]), Just(58), Just(255)];
    let pair = prop_oneof![
        3 => (prop::option::of(host.clone()), addr.clone().prop_map(Some)),
        1 => (host.prop_map(Some), Just(None)),
    ];
    (pair, select(ports), protocol)
        .prop_map(|((host, addr), port, protocol)| Dest { host, addr, port, protocol })
        .boxed()
}

/// Rules without exceptions and conditions, with exceptions, and with both.
pub(crate) fn scene() -> impl Strategy<Value = (Rules, Action, Vec<Dest>)> {
    let rules = prop_oneof![rules_of(0, false), rules_of(3, false), rules_of(3, true)];
    (rules, action()).prop_flat_map(|(rules, default)| {
        let destinations = prop::collection::vec(destination(&rules), 16);
        (Just(rules), Just(default), destinations)
    })
}

/// The policy's text: a pattern is written by hand here, not by the crate.
pub(crate) fn yaml(rules: &Rules, default: Action) -> String {
    let mut text = format!("version: 1\nname: random\ndefault: {default}\nrules:\n");
    for rule in rules {
        text.push_str(&format!("  - name: {}\n", rule.name));
        text.push_str(match rule.patterns.first().map(|p| p.private) {
            Some(Private::Allow) => "    private: allow\n",
            Some(Private::Require) => "    require_private_ip: true\n",
            _ => "    private: refuse\n",
        });
        for action in Action::ALL {
            let patterns: Vec<String> =
                rule.patterns.iter().filter(|p| p.action == action).map(|p| format!("{:?}", written(p))).collect();
            if !patterns.is_empty() {
                text.push_str(&format!("    {action}: [{}]\n", patterns.join(", ")));
            }
        }
        let except = |p: &Pat| format!("{{destination: {:?}, reason: a test}}", written(p));
        let except: Vec<String> = rule.except.iter().map(except).collect();
        text.push_str(&format!("    except: [{}]\n", except.join(", ")));
        if let Some(when) = rule.when.map(|when| conditions()[when].clone()) {
            let list = |key: &str, words: &[String]| {
                if words.is_empty() { String::new() } else { format!("      {key}: {words:?}\n") }
            };
            text.push_str("    when:\n");
            text.push_str(&list("exe", &when.exe));
            text.push_str(&list("user", &when.user));
            text.push_str(&list("argument", &when.argument));
        }
    }
    text
}

fn written(pattern: &Pat) -> String {
    let protocol = match pattern.protocol {
        None => "any/".to_owned(),
        Some(6) => String::new(),
        Some(47) => "ip-47/".to_owned(),
        Some(n) => format!("{}/", Protocol::from_number(n)),
    };
    let target = match &pattern.target {
        Target::Any if pattern.ports.is_some() => String::new(),
        Target::Any => "*".into(),
        Target::Name(name) => name.clone(),
        Target::Below(name) => format!("*.{name}"),
        Target::Net(address, bits, true) => {
            format!("{}/{}", Ipv6Addr::from_bits(*address).to_ipv4_mapped().unwrap(), bits - 96)
        }
        Target::Net(address, bits, false) => format!("[{}/{bits}]", Ipv6Addr::from_bits(*address)),
    };
    match pattern.ports {
        None => format!("{protocol}{target}"),
        Some((lo, hi)) => format!("{protocol}{target}:{lo}-{hi}"),
    }
}

pub(crate) fn policy(rules: &Rules, default: Action) -> Policy {
    Policy::parse("random.yaml", yaml(rules, default).as_bytes()).unwrap()
}

fn normal(host: &str) -> String {
    host.to_lowercase().trim_end_matches('.').to_owned()
}

fn bits_of(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Whether a pattern is about this host, whatever the port.
fn about_host(target: &Target, host: &str) -> bool {
    match target {
        Target::Any => true,
        Target::Name(name) => normal(host) == *name,
        Target::Below(name) => normal(host).ends_with(&format!(".{name}")),
        Target::Net(..) => false,
    }
}

/// The inside of a house, in the standard library's words where it has them.
fn inside(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && b & 0xfe == 18)
        }
        IpAddr::V6(v6) => {
            let translated = (v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0])
                .then(|| IpAddr::V4(std::net::Ipv4Addr::from_bits(v6.to_bits() as u32)));
            v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_bits() >> 32 == 0
                || v6.segments()[0] & 0xffc0 == 0xfec0
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
                || translated.is_some_and(inside)
        }
    }
}

/// Whether a pattern's rule grants a name with this address. What is refused, is refused with any.
fn grants(pattern: &Pat, addr: Option<IpAddr>) -> bool {
    let (Target::Name(name) | Target::Below(name)) = &pattern.target else { return true };
    let inside = addr.is_some_and(inside);
    pattern.action.refuses()
        || match pattern.private {
            Private::Allow => true,
            Private::Require => inside,
            // Of the names that these tests use.
            Private::Refuse => !inside || matches!(name.as_str(), "example" | "test" | "x.test"),
        }
}

fn about(target: &Target, dest: &Dest) -> bool {
    let by_host = dest.host.as_ref().is_some_and(|host| about_host(target, host));
    let by_address = dest.addr.is_some_and(|addr| match target {
        Target::Net(address, bits, v4) => {
            let addr = bits_of(addr);
            (addr >> 32 == 0xffff) == *v4 && (addr ^ address).checked_shr(128 - u32::from(*bits)).unwrap_or(0) == 0
        }
        _ => false,
    });
    *target == Target::Any || by_host || by_address
}

fn reaches(pattern: &Pat, protocol: u8, port: u16) -> bool {
    pattern.protocol.is_none_or(|p| p == protocol) && pattern.ports.is_none_or(|(lo, hi)| (lo..=hi).contains(&port))
}

/// Whether a rule is silent about a destination.
fn excepted(rule: &Rule, dest: &Dest) -> bool {
    rule.except.iter().any(|p| about(&p.target, dest) && reaches(p, dest.protocol, dest.port))
}

/// Every rule is read; the most severe wins, of equals the one whose name sorts first.
pub(crate) fn judge(rules: &Rules, default: Action, process: &Process, dest: &Dest) -> (u8, Option<String>) {
    let matching = rules.iter().flat_map(|rule| {
        let speaks = rule.when.is_none_or(|when| holds(when, process)) && !excepted(rule, dest);
        let matches = move |p: &&Pat| {
            speaks && about(&p.target, dest) && reaches(p, dest.protocol, dest.port) && grants(p, dest.addr)
        };
        let hits = rule.patterns.iter().filter(matches);
        hits.map(move |p| (p.action, Reverse(&rule.name)))
    });
    match matching.max() {
        Some((action, Reverse(rule))) => (number(action), Some(rule.clone())),
        None => (number(default), None),
    }
}

/// Of a process that nobody knows: the most severe that any would get.
pub(crate) fn judge_unknown(rules: &Rules, default: Action, dest: &Dest) -> (u8, Option<String>) {
    let judged = processes().iter().map(|p| judge(rules, default, p, dest)).collect::<Vec<_>>();
    judged.into_iter().max_by_key(|(action, rule)| (*action, rule.is_some(), Reverse(rule.clone()))).unwrap()
}

/// What becomes of a lookup, from its definition: each protocol, and each port at which anything can change.
pub(crate) fn judge_query(rules: &Rules, default: Action, process: &Process, host: &str) -> Action {
    let live = || rules.iter().filter(|rule| rule.when.is_none_or(|when| holds(when, process)));
    let mut ports = vec![0];
    let bounds = live().flat_map(|r| r.patterns.iter().chain(&r.except)).filter_map(|p| p.ports);
    ports.extend(bounds.flat_map(|(lo, hi)| [lo, hi.saturating_add(1)]));
    let at = |protocol: u8, port: u16, any: bool| {
        let dest = Dest { host: Some(host.into()), addr: None, port, protocol };
        let rules = live().filter(|rule| !excepted(rule, &dest));
        let patterns = rules.flat_map(|rule| &rule.patterns).filter(|p| any || p.target != Target::Any);
        patterns.filter(|p| about_host(&p.target, host) && reaches(p, protocol, port)).map(|p| p.action).max()
    };
    let everywhere: Vec<(u8, u16)> =
        [6, 17, 1, 58, 132, 47, 255].into_iter().flat_map(|n| ports.iter().map(move |p| (n, *p))).collect();
    let explicit = everywhere.iter().filter_map(|(protocol, port)| at(*protocol, *port, true));
    if let Some(mildest) = explicit.min().filter(|action| !action.refuses()) {
        return mildest;
    }
    let tcp: Option<Vec<Action>> = ports.iter().map(|port| at(6, *port, true)).collect();
    let base = tcp.and_then(|actions| actions.into_iter().min()).unwrap_or(default);
    let named = live().filter_map(|rule| {
        let one = |p: &Pat, (protocol, port): (u8, u16)| {
            let dest = Dest { host: Some(host.into()), addr: None, port, protocol };
            let speaks = p.target != Target::Any && about_host(&p.target, host) && reaches(p, protocol, port);
            (speaks && !excepted(rule, &dest)).then_some(p.action)
        };
        rule.patterns.iter().flat_map(|p| everywhere.iter().filter_map(move |at| one(p, *at))).max()
    });
    if base.refuses() { base.max(named.max().unwrap_or(base)) } else { base }
}

/// The longest prefix of a key among entries of (key, bits, value), as an LPM trie of the kernel finds it.
fn longest<'a, V>(key: &[u8], entries: impl Iterator<Item = (&'a [u8], u32, V)>) -> Option<V> {
    let bit = |bytes: &[u8], i: u32| bytes[i as usize / 8] >> (7 - i % 8) & 1;
    let matching = entries.filter(|(prefix, bits, _)| {
        *bits as usize <= key.len() * 8 && (0..*bits).all(|i| bit(prefix, i) == bit(key, i))
    });
    matching.max_by_key(|(_, bits, _)| *bits).map(|(_, _, value)| value)
}

fn name_entry(tables: &Tables, host: &str) -> Option<trustrun_common::NameValue> {
    let mut key: Vec<u8> = normal(host).bytes().rev().collect();
    key.push(0);
    longest(&key, tables.names.iter().map(|(k, v)| (&k.bytes[..], k.bits, *v)))
}

fn net_entry(tables: &Tables, dest: &Dest) -> Option<NetValue> {
    let key = bits_of(dest.addr?).to_be_bytes();
    longest(&key, tables.nets.iter().map(|(k, bits, value)| (&k[..], *bits, *value)))
}

/// The set that is looked up.
fn set(set: u32, skip: u32, class: Class) -> u32 {
    if set & SET_DEPENDS == 0 { set } else { (set & !SET_DEPENDS) + skip + u32::from(class.0) }
}

/// What the kernel decides: a set for the name, one for the address, and what each says about the port. With `claim` the
/// address only tells which of the name's sets it is.
pub(crate) fn emulate(tables: &Tables, class: Class, dest: &Dest, claim: bool) -> (u8, Option<String>) {
    let private = dest.addr.is_some_and(|addr| {
        let key = bits_of(addr).to_be_bytes();
        longest(&key, tables.private.iter().map(|(k, bits)| (&k[..], *bits, ()))).is_some()
    });
    let name = dest.host.as_ref().and_then(|host| name_entry(tables, host));
    let net = net_entry(tables, dest);
    let by_name =
        name.map(|value| set(if private { value.private } else { value.set }, net.map_or(0, |net| net.skip), class));
    let by_address = net.map(|value| set(value.set, name.map_or(0, |name| name.skip.into()), class));
    let said = |set: u32| -> Option<PortValue> {
        let key = port_key(set, dest.protocol, dest.port);
        let said = longest(&key[..7], tables.ports.iter().map(|(k, bits, v)| (&k[..], *bits, *v)));
        said.filter(|v| v.action != ACTION_NONE)
    };
    let hits: Vec<PortValue> =
        [by_name, by_address.filter(|_| !claim)].into_iter().flatten().filter_map(said).collect();
    let weak = hits.iter().all(|v| v.weak != 0);
    match hits.iter().max_by_key(|v| (v.action, Reverse(v.rule))) {
        Some(value) if !weak || value.action >= tables.default => {
            (value.action, Some(tables.rules[value.rule as usize].clone()))
        }
        _ => (tables.default, None),
    }
}

/// What the kernel does about a lookup.
pub(crate) fn emulate_query(tables: &Tables, class: Class, host: &str) -> u8 {
    let Some(value) = name_entry(tables, host) else { return tables.default };
    if value.ask != ACTION_NONE {
        return value.ask;
    }
    let key = ask_key(set(value.set, 0, class));
    longest(&key, tables.ports.iter().map(|(k, bits, v)| (&k[..], *bits, *v))).map_or(0, |v| v.action)
}

pub(crate) fn number(action: Action) -> u8 {
    action as u8 + 1
}
