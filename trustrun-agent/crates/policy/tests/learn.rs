//! A learned policy parses, allows what was seen, and nothing else.

mod support;

use std::net::IpAddr;

use proptest::prelude::*;
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Policy, Seen};

#[test]
fn reads_as_a_person_would_write_it() {
    let addr: IpAddr = "192.0.2.7".parse().unwrap();
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let seen = |host, addr, port, proto, count| Seen {
        host,
        addr: Some(addr),
        port,
        proto: Some(proto),
        count,
        session: "s-1",
        ..Seen::default()
    };
    let text = Policy::propose(
        "first",
        &[
            seen(Some("PyPI.org."), addr, 443, Protocol::Tcp, 2),
            seen(Some("pypi.org"), v6, 443, Protocol::Tcp, 1),
            seen(None, v6, 443, Protocol::Tcp, 1),
            seen(None, addr, 53, Protocol::Udp, 1),
            seen(Some("bad\"name\n"), addr, 0, Protocol::Other(1), 1),
        ],
    );
    let expected = "version: 1\nname: \"first\"\ndefault: block\nrules:\n  - name: \"learned\"\n    allow:\n      \
        - \"pypi.org:443\" # 3 times, session s-1\n      - \"[2001:db8::1]:443\" # 1 time, session s-1\n      - \"udp/192.0.2.7:53\" # 1 time, session s-1\n      \
        - \"icmp/192.0.2.7\" # 1 time, session s-1\n";
    let mut lines: Vec<&str> = text.lines().skip(1).collect();
    let mut wanted: Vec<&str> = expected.lines().collect();
    // Patterns are sorted, but by what they mean rather than by their text.
    lines.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(lines, wanted, "{text}");
}

#[test]
fn of_nothing_allows_nothing() {
    let policy = Policy::parse("learned", Policy::propose("x", &[]).as_bytes()).unwrap();
    assert!(policy.rules.is_empty() && policy.default == Action::Block);
}

proptest! {
    #[test]
    fn allows_all_that_was_seen(
        destinations in prop::collection::vec(support::destination(&Vec::new()), 0..20),
        host in prop::option::of(any::<String>()), name in any::<String>(), session in any::<String>(),
    ) {
        let mut seen: Vec<Seen<'_>> = destinations
            .iter()
            .map(|d| Seen {
                host: d.host.as_deref(),
                addr: Some(d.addr.unwrap_or_else(|| [192, 0, 2, 1].into())),
                port: d.port,
                proto: Some(Protocol::from_number(d.protocol)),
                count: 1,
                session: &session,
                ..Seen::default()
            })
            .collect();
        seen.push(Seen { host: host.as_deref(), addr: Some([192, 0, 2, 9].into()), port: 443, count: 1, ..Seen::default() });
        let text = Policy::propose(&name, &seen);
        let policy = Policy::parse("learned", text.as_bytes());
        prop_assert!(policy.is_ok(), "{}\n{}", policy.unwrap_err(), text);
        let matcher = policy.unwrap().compile();
        for s in seen {
            prop_assert_eq!(matcher.decide(s.host, s.addr, s.port, s.proto.unwrap_or(Protocol::Tcp)).action, Action::Allow, "{:?}\n{}", s, text);
        }
        let other = matcher.decide(Some("elsewhere.invalid"), Some([198, 51, 100, 1].into()), 443, Protocol::Tcp);
        prop_assert_eq!(other.action, Action::Block);
    }
}
