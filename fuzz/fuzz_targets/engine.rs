//! The session engine, fed with whatever order of events: it ends with a report that never passes with a gap or a
//! violation, whose counters balance.
#![no_main]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use trustrun_common::counter;
use trustrun_model::{
    Action, Decided, Direction, Fact, Flow, FlowId, Instants, LookupRefusal, Observation, Operator, PolicyRef,
    ProcessId, Protocol, Reason, SensorKind, Verdict,
};
use trustrun_policy::{Matcher, Policy};
use trustrun_session::{Engine, Facts, Final, Judge};
use trustrun_wire::dns;

const POLICY: &[u8] =
    b"version: 1\nname: fuzz\ndefault: block\nrules:\n  - allow: [\"*.allowed.test\", \"10.0.0.0/8\", \
    \"udp/*.allowed.test:443\"]\n  - kill: [evil.test]\n  - alert: [\"odd.allowed.test:80\"]\n";

static MATCHER: LazyLock<Arc<Matcher>> =
    LazyLock::new(|| Arc::new(Policy::parse("fuzz", POLICY).expect("a policy").compile()));

#[derive(Arbitrary, Debug)]
enum Event {
    Fork { child: u8 },
    Exec { exe: String, argv: Vec<String> },
    Moved { cgroup: String, killed: bool },
    Opened(Link, Said),
    Established(Link),
    Closed(Link, u16, u16),
    Judged(Link, Said),
    Payload { link: Link, offset: u16, bytes: Vec<u8> },
    Query { link: Link, name: Name, refused: bool, resolver: bool, raw: Option<Vec<u8>> },
    Answer { link: Link, name: Name, believed: bool, addresses: Vec<u8>, raw: Option<Vec<u8>> },
    Packet(Link, Said),
    Socket(u16, u16, Said),
    Listening(Link),
    Lost(u16),
}

/// One of few connections, so that events meet.
#[derive(Arbitrary, Debug)]
struct Link {
    cookie: u8,
    peer: u8,
    port: Port,
    udp: bool,
    v6: bool,
    incoming: bool,
}

#[derive(Arbitrary, Debug)]
enum Port {
    Dns,
    Http,
    Https,
    Other(u16),
}

#[derive(Arbitrary, Debug)]
struct Said {
    action: u8,
    reason: u8,
    enforced: bool,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Api,
    Odd,
    Evil,
    Other(String),
}

impl Link {
    fn flow(&self) -> Flow {
        let port = match self.port {
            Port::Dns => 53,
            Port::Http => 80,
            Port::Https => 443,
            Port::Other(n) => n,
        };
        let ip = |last: u8| match self.v6 {
            true => [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into(),
            false => std::net::IpAddr::from([10 + (last & 1), 0, 0, last]),
        };
        Flow {
            id: FlowId { cookie: u64::from(self.cookie & 7), sequence: u32::from(self.cookie >> 6) },
            protocol: if self.udp { Protocol::Udp } else { Protocol::Tcp },
            direction: if self.incoming { Direction::In } else { Direction::Out },
            local: SocketAddr::new(ip(1), 4000 + u16::from(self.cookie & 7)),
            peer: SocketAddr::new(ip(self.peer & 15), port),
        }
    }
}

impl Said {
    fn decided(&self) -> Decided {
        let actions = [Action::Allow, Action::Alert, Action::Block, Action::Kill];
        let reasons = [
            Reason::Default,
            Reason::Rule,
            Reason::Internal,
            Reason::Resolver,
            Reason::Accepted,
            Reason::Mismatch,
            Reason::Claim,
            Reason::Unreadable,
            Reason::Quic,
            Reason::Kind,
            Reason::Full,
            Reason::FakeResolver,
        ];
        Decided {
            action: actions[usize::from(self.action) % actions.len()],
            reason: reasons[usize::from(self.reason) % reasons.len()],
            enforced: self.enforced,
        }
    }
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Api => "api.allowed.test",
            Self::Odd => "odd.allowed.test",
            Self::Evil => "evil.test",
            Self::Other(name) => name,
        }
    }

    fn query(&self, raw: &Option<Vec<u8>>) -> Vec<u8> {
        raw.clone().unwrap_or_else(|| dns::query(7, self.text(), 1).unwrap_or_default())
    }

    /// An answer with these last octets of addresses.
    fn answer(&self, raw: &Option<Vec<u8>>, addresses: &[u8]) -> Vec<u8> {
        let mut message = self.query(raw);
        if raw.is_some() || message.len() < 12 {
            return message;
        }
        message[2] |= 0x80;
        message[7] = addresses.len() as u8;
        for last in addresses.iter().take(255) {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10 + (last & 1), 0, 0, last & 15]);
        }
        message
    }
}

impl Event {
    fn fact(self) -> Fact {
        match self {
            Self::Fork { child } => Fact::Fork { child: child.into() },
            Self::Exec { exe, argv } => Fact::Exec { exe, argv, truncated: false },
            Self::Moved { cgroup, killed } => Fact::Moved { cgroup, killed },
            Self::Opened(link, said) => Fact::Opened { flow: link.flow(), decided: said.decided() },
            Self::Established(link) => Fact::Established { flow: link.flow() },
            Self::Closed(link, sent, received) => {
                Fact::Closed { flow: link.flow(), sent: sent.into(), received: received.into() }
            }
            Self::Judged(link, said) => Fact::Judged { flow: link.flow(), decided: said.decided() },
            Self::Payload { link, offset, bytes } => {
                let length = bytes.len() as u32;
                Fact::Payload { flow: link.flow(), outgoing: true, offset: offset.into(), bytes, length }
            }
            Self::Query { link, name, refused, resolver, raw } => Fact::Query {
                flow: link.flow(),
                refused: refused.then_some(LookupRefusal::Policy),
                resolver,
                message: name.query(&raw),
            },
            Self::Answer { link, name, believed, addresses, raw } => {
                Fact::Answer { flow: link.flow(), believed, bound: None, message: name.answer(&raw, &addresses) }
            }
            Self::Packet(link, said) => {
                let flow = link.flow();
                Fact::Packet { protocol: flow.protocol, peer: flow.peer, decided: said.decided() }
            }
            Self::Socket(family, kind, said) => Fact::Socket { family, kind, protocol: 0, decided: said.decided() },
            Self::Listening(link) => {
                let flow = link.flow();
                Fact::Listening { local: flow.local, protocol: flow.protocol }
            }
            Self::Lost(n) => Fact::Lost { stage: "ring", count: n.into() },
        }
    }
}

fuzz_target!(|input: (bool, Vec<Event>)| {
    let (enforce, events) = input;
    let mut engine = Engine::new(Judge {
        policy: Some(Arc::clone(&MATCHER)),
        enforce,
        resolvers: vec![[10, 0, 0, 3].into()],
        search: vec!["ward.test".into()],
        cgroup: "/trustrun/s".into(),
        hosts: vec![([10, 0, 0, 4].into(), "api.allowed.test".into())],
        dns_grace: Duration::from_secs(60),
        doors: Default::default(),
    });
    let process = ProcessId { tgid: 7, tid: 7, uid: 1000, class: 0 };
    let mut received = 0;
    let mut lost = false;
    for event in events {
        received += 1;
        lost |= matches!(event, Event::Lost(1..));
        let at = Instants { boot_ns: received * 1_000_000, wall_ns: received as i64 };
        let _ = engine.observe(&Observation { at, sensor: SensorKind::Ebpf, process, fact: event.fact() });
    }
    let mut counters = [0; counter::COUNT as usize];
    counters[counter::EMITTED as usize] = received;
    let facts = Facts {
        id: "s".into(),
        command: Vec::new(),
        executable: String::new(),
        user: "u".into(),
        operator: Operator::default(),
        policy: Some(PolicyRef::default()),
        sensor: SensorKind::Ebpf,
        enforce,
        locks: Vec::new(),
        doors: Vec::new(),
        from_outside: Vec::new(),
        no_pass: None,
        resolvers: Vec::new(),
        started_ns: 0,
    };
    let last = Final {
        watched: true,
        status: Some(0),
        counters,
        received,
        own: 0,
        undecoded: 0,
        stored: received,
        dropped: BTreeMap::new(),
        leftovers: Vec::new(),
        lost_hooks: Vec::new(),
        changed: Vec::new(),
        held: Default::default(),
        unix: true,
        border: false,
        packets: false,
        attached_ns: 0,
        no_scope: None,
        at: Instants { boot_ns: received * 1_000_000, wall_ns: received as i64 },
    };
    let report = engine.finish(&facts, &last);
    assert!(report.counters.balanced());
    if report.verdict == Verdict::Pass {
        assert!(report.gaps.is_empty() && report.violations.is_empty() && !lost, "{report:?}");
        assert!(report.destinations.iter().all(|d| !d.action.violates()), "{report:?}");
    }
    let json = serde_json::to_string(&report).expect("a report is JSON");
    assert_eq!(serde_json::from_str::<trustrun_model::Report>(&json).expect("a report"), report);
});
