//! The kernel decides as user space does: random policies and destinations, on the real kernel.
//!
//! A client inside the session tries every destination. What it felt (EPERM or not), what the report says about it, and
//! what `trustrun_policy::Matcher` says must be one. An address that is allowed and not there gives ENETUNREACH or
//! ECONNREFUSED, which is not EPERM: the decision comes first.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};
use support::{Ran, Run, lab_with, text};
use trustrun_lab::Lab;
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Matcher, Policy};

/// Policies. Each takes one session of half a second, or two.
const POLICIES: u32 = 40;
/// Destinations that are tried under each.
const DESTINATIONS: usize = 100;

/// Networks that overlap, around few addresses. All of 100.64.0.0/10 is local in the lab, 198.51.100.0/24 is nowhere;
/// of IPv6 a few addresses are local.
const NETS: [&str; 16] = [
    "0.0.0.0/0",
    "100.64.0.0/10",
    "100.64.0.0/29",
    "100.64.0.4/30",
    "100.64.0.6/31",
    "100.64.0.5",
    "100.64.0.8/29",
    "100.64.0.15",
    "198.51.100.0/24",
    "198.51.100.2/31",
    "[::/0]",
    "[2001:db8::/32]",
    "[2001:db8::/123]",
    "[2001:db8::10/127]",
    "[2001:db8::11]",
    "[2001:db8::66]",
];
const PORTS: [&str; 8] = ["", "", ":9", ":7-9", ":443", ":0-79", ":80-65535", ":65535"];
const TRIED_PORTS: [u16; 9] = [1, 7, 8, 9, 79, 80, 443, 8443, 65535];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    /// sendto(2)
    Udp,
    /// connect(2), then send(2): decided at the first datagram
    UdpConnected,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    kind: Kind,
    address: IpAddr,
    port: u16,
}

impl Attempt {
    fn protocol(&self) -> Protocol {
        if self.kind == Kind::Tcp { Protocol::Tcp } else { Protocol::Udp }
    }
}

#[derive(Clone, Debug)]
struct Scene {
    policy: String,
    attempts: Vec<Attempt>,
    /// Judge only.
    observe: bool,
}

fn destination() -> impl Strategy<Value = String> {
    let target = prop_oneof![6 => select(&NETS[..]), 1 => Just("*")];
    (select(&["", "", "udp/", "any/"][..]), target, select(&PORTS[..])).prop_map(|(protocol, target, ports)| {
        match (protocol, target, ports) {
            // No ports without a protocol, and all hosts of a port are written without the star.
            ("any/", _, _) => format!("any/{target}"),
            (_, "*", ports) if !ports.is_empty() => format!("{protocol}{ports}"),
            _ => format!("{protocol}{target}{ports}"),
        }
    })
}

fn policy() -> impl Strategy<Value = String> {
    let action = || prop_oneof![3 => Just(Action::Allow), 2 => Just(Action::Alert), 3 => Just(Action::Block), 1 => Just(Action::Kill)];
    let rule = (action(), prop::collection::vec(destination(), 1..4));
    let default = prop_oneof![3 => Just(Action::Block), 2 => Just(Action::Allow), 1 => Just(Action::Alert), 1 => Just(Action::Kill)];
    (default, prop::collection::vec(rule, 0..7)).prop_map(|(default, rules)| {
        let mut text = format!("version: 1\nname: random\ndefault: {default}\n");
        if !rules.is_empty() {
            text.push_str("rules:\n");
        }
        for (number, (action, destinations)) in rules.into_iter().enumerate() {
            let list: Vec<String> = destinations.iter().map(|d| format!("{d:?}")).collect();
            let _ = writeln!(text, "  - name: rule {number}\n    {action}: [{}]", list.join(", "));
        }
        text
    })
}

fn attempt(ipv6: bool) -> impl Strategy<Value = Attempt> {
    let v4 = (0u8..20).prop_map(|n| IpAddr::from([100, 64, 0, n]));
    let nowhere = (0u8..5).prop_map(|n| IpAddr::from([198, 51, 100, n]));
    let v6 = select(vec![0x0u16, 0x1, 0x10, 0x11, 0x12, 0x1f, 0x20, 0x53, 0x66])
        .prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
    let address = prop_oneof![5 => v4, 1 => nowhere, if ipv6 { 3 } else { 0 } => v6];
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::UdpConnected]);
    (kind, address, select(&TRIED_PORTS[..])).prop_map(|(mut kind, address, port)| {
        // A UDP connect to where no route leads fails by itself, before anything is sent.
        let local = matches!(address, IpAddr::V4(a) if a.octets()[0] == 100);
        if kind == Kind::UdpConnected && !local {
            kind = Kind::Udp;
        }
        Attempt { kind, address, port }
    })
}

fn scene(ipv6: bool) -> impl Strategy<Value = Scene> {
    (policy(), prop::collection::vec(attempt(ipv6), DESTINATIONS), prop::bool::weighted(0.25))
        .prop_map(|(policy, attempts, observe)| Scene { policy, attempts, observe })
}

/// What must be: the action, and the rule as the report names it.
fn expected(matcher: &Matcher, attempt: &Attempt, enforced: bool) -> (Action, String) {
    let decision = matcher.decide(None, Some(attempt.address), attempt.port, attempt.protocol());
    let rule = decision.rule.map_or_else(|| "default".into(), |rule| matcher.rule_name(rule).to_owned());
    let quic = enforced && attempt.protocol() == Protocol::Udp && attempt.port == 443;
    if quic && decision.rule.is_none() && !decision.action.refuses() {
        return (Action::Block, "quic".into());
    }
    (decision.action, rule)
}

/// `wait`: the client stays after the last attempt, to be killed for it.
fn run(lab: &Lab, scene: &Scene, attempts: &[Attempt], wait: bool) -> Ran {
    let file = lab.folder().join("attempts");
    let line = |a: &Attempt| {
        let kind = match a.kind {
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::UdpConnected => "udp-connected",
        };
        format!("{kind} {} {}\n", a.address, a.port)
    };
    std::fs::write(&file, attempts.iter().map(line).collect::<String>()).expect("a file");
    let file = &*text(&file);
    let run = Run::new(lab).policy(&*scene.policy);
    let run = if scene.observe { run.option("--observe") } else { run };
    let arguments = [file, "--wait"];
    run.python("try_all.py", if wait { &arguments } else { &arguments[..1] })
}

fn check(lab: &Lab, scene: &Scene) -> TestCaseResult {
    let policy = Policy::parse("random.yaml", scene.policy.as_bytes()).expect("a policy");
    let matcher = policy.compile();
    let enforced = policy.enforcing() && !scene.observe;
    let all: Vec<(Attempt, (Action, String))> =
        scene.attempts.iter().map(|a| (*a, expected(&matcher, a, enforced))).collect();
    // A kill would end the client: those are tried one at a time, the first of them.
    let (kills, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, e)| enforced && e.0 == Action::Kill);
    let attempts: Vec<Attempt> = rest.iter().map(|(a, _)| *a).collect();
    let ran = run(lab, scene, &attempts, false);
    prop_assert_eq!(ran.code(), Some(0), "{}", ran);
    let answer = ran.json();
    let felt = answer["results"].as_array().ok_or_else(|| TestCaseError::fail(ran.to_string()))?;
    prop_assert_eq!(felt.len(), attempts.len());
    for ((attempt, (action, rule)), felt) in rest.iter().zip(felt) {
        let refused = felt.as_str() == Some("EPERM");
        prop_assert_eq!(
            refused,
            enforced && action.refuses(),
            "{:?} felt {}, {} by {}\n{}",
            attempt,
            felt,
            action,
            rule,
            ran
        );
    }
    reported(&ran, &rest)?;
    if let Some((attempt, (_, rule))) = kills.first() {
        let ran = run(lab, scene, &[*attempt], true);
        prop_assert_eq!(ran.signal(), Some(9), "{:?}\n{}", attempt, ran);
        reported(&ran, &[(*attempt, (Action::Kill, rule.clone()))])?;
    }
    Ok(())
}

/// The report has exactly these destinations, with these actions and rules, and as often.
fn reported(ran: &Ran, tried: &[(Attempt, (Action, String))]) -> TestCaseResult {
    let mut wanted: BTreeMap<_, u64> = BTreeMap::new();
    for (a, (action, rule)) in tried {
        *wanted.entry((a.address, a.port, a.protocol(), *action, rule.clone())).or_default() += 1;
    }
    let mut told: BTreeMap<_, u64> = BTreeMap::new();
    for d in &ran.report.destinations {
        *told.entry((d.address, d.port, d.protocol, d.action, d.rule.clone())).or_default() += d.connections;
    }
    prop_assert_eq!(told, wanted, "{}", ran);
    // What root may have others do is a gap of its own where nothing is refused (ADR 0010).
    prop_assert!(ran.report.gaps.iter().all(|gap| gap.kind == "root-target"), "{}", ran);
    Ok(())
}

#[test]
fn the_kernel_decides_as_the_matcher_does() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let config = Config { cases: POLICIES, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let ipv6 = lab.has_ipv6();
    if let Err(e) = TestRunner::new(config).run(&scene(ipv6), |scene| check(&lab, &scene)) {
        panic!("{e}");
    }
}
