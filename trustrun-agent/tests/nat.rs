//! Addresses that are rewritten behind the program's back, as container engines and clusters do: what it asked for is
//! what is judged, reported and bound.

mod support;

use std::net::{IpAddr, SocketAddr};

use support::{Ran, Run, arrived, nothing_arrived, only, python_step, step};
use trustrun_lab::{ALLOWED, ALLOWED_V6, Lab, LabError, Transport, have, skip};
use trustrun_model::{Evidence, Verdict};

/// Docker's resolver in every container, and a port that it might have chosen.
const DOCKER: &str = "127.0.0.11";
const DOCKER_PORT: u16 = 40053;
/// A cluster's name service: its address in resolv.conf and the pod's.
const KUBE_DNS: &str = "198.51.100.10";
const KUBE_DNS_V6: &str = "2001:db8::a";
const POD_DNS: &str = "203.0.113.90";
const POD_DNS_V6: &str = "2001:db8::90";
/// A cluster's service: its address, which a policy names, and the pod's, which it does not.
const SERVICE: &str = "198.51.100.20";
const SERVICE_V6: &str = "2001:db8::b";
const POD: &str = "203.0.113.91";
const POD_V6: &str = "2001:db8::91";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// The lab with these rewritten addresses, or a skip.
fn lab(resolvers: &[&str], rewrites: &[(SocketAddr, SocketAddr)]) -> Option<Lab> {
    for program in ["nft", "python3", "getent"] {
        if !have(program) {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    let resolvers: Vec<IpAddr> = resolvers.iter().map(|r| ip(r)).collect();
    let mut builder = Lab::builder().resolvers(&resolvers);
    for (from, to) in rewrites {
        builder = builder.rewrite(*from, *to);
    }
    match builder.start() {
        Ok(lab) => Some(lab),
        Err(e) if e.is_permission() => {
            skip(&e.to_string());
            None
        }
        Err(e @ LabError::Program { .. }) => {
            skip(&format!("no NAT in this kernel, or no rights to it: {e}"));
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// The resolver was asked where it really is, and nowhere else.
#[track_caller]
fn asked_at(lab: &Lab, address: SocketAddr, transport: Transport, ran: &Ran) {
    let queries = lab.dns().queries();
    assert!(!queries.is_empty(), "nothing was asked\n{ran}");
    assert!(queries.iter().any(|q| q.transport == transport && q.to == address), "{queries:?}\n{ran}");
}

#[test]
fn a_lookup_through_a_rewritten_resolver_binds() {
    for (resolver, real) in [
        (DOCKER, at(DOCKER, DOCKER_PORT)),
        (KUBE_DNS, at(POD_DNS, 53)),
        (KUBE_DNS, at(POD_DNS, 10053)),
        (KUBE_DNS_V6, at(POD_DNS_V6, 53)),
        (KUBE_DNS_V6, at(POD_DNS_V6, 10053)),
    ] {
        let Some(lab) = lab(&[resolver], &[(at(resolver, 53), real)]) else { return };
        if real.is_ipv6() && !lab.has_ipv6() {
            skip("no IPv6 here");
            continue;
        }
        for kind in ["connected", "unconnected"] {
            lab.clear();
            let line = [kind, resolver, "api.allowed.test", "443"];
            let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).python("ask_udp.py", &line);
            ran.passed();
            assert_eq!(ran.json()["server"], resolver, "the program sees the resolver that it asked");
            asked_at(&lab, real, Transport::Udp, &ran);
            let d = ran.one(ALLOWED, 443);
            assert_eq!((d.host.as_deref(), d.evidence), (Some("api.allowed.test"), Evidence::Dns), "{ran}");
            let query = &ran.report.queries[0];
            assert_eq!(query.resolver, at(resolver, 53).to_string(), "{ran}");
            assert_eq!(query.answers, [ALLOWED.to_string()], "{ran}");
        }
    }
}

#[test]
fn programs_resolve_through_a_rewritten_resolver() {
    for (resolver, real) in [(DOCKER, at(DOCKER, DOCKER_PORT)), (KUBE_DNS, at(POD_DNS, 10053))] {
        let Some(lab) = lab(&[resolver], &[(at(resolver, 53), real)]) else { return };
        let line = ["api.allowed.test", "443"];
        let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).python("lookup_connect.py", &line);
        ran.passed();
        asked_at(&lab, real, Transport::Udp, &ran);
        assert_eq!(ran.one(ALLOWED, 443).host.as_deref(), Some("api.allowed.test"), "{ran}");
        if lab.has_ipv6() {
            assert_eq!(ran.one(ALLOWED_V6, 443).host.as_deref(), Some("api.allowed.test"), "{ran}");
        }
        // Larger than a datagram: asked again over TCP, which the agent answers.
        lab.clear();
        let ran = Run::new(&lab)
            .policy(only(&["tcp.allowed.test:443"]))
            .env("RES_OPTIONS", "no-edns0")
            .python("lookup_connect.py", &["tcp.allowed.test", "443", "--expect", "30"]);
        ran.passed();
        asked_at(&lab, real, Transport::Tcp, &ran);
    }
}

#[test]
fn other_names_are_refused_at_a_rewritten_resolver() {
    for (resolver, real) in [(DOCKER, at(DOCKER, DOCKER_PORT)), (KUBE_DNS, at(POD_DNS, 53))] {
        let Some(lab) = lab(&[resolver], &[(at(resolver, 53), real)]) else { return };
        for kind in ["connected", "unconnected"] {
            lab.clear();
            let ran = Run::new(&lab)
                .policy(only(&["api.allowed.test:443"]))
                .python("ask_udp.py", &[kind, resolver, "evil.test", "443"]);
            ran.verdict(Verdict::Fail).no_gaps();
            assert!(ran.code() == Some(1) && ran.lookup_refused("evil.test"), "{ran}");
            assert!(lab.dns().queries().is_empty(), "{:?}\n{ran}", lab.dns().queries());
            nothing_arrived(&lab, &ran);
        }
        let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).command(&["getent", "ahostsv4", "evil.test"]);
        assert!(ran.code() == Some(2) && ran.lookup_refused("evil.test"), "{ran}");
    }
}

/// A service at its own address, of which pods have another; both families.
fn cluster() -> Option<Lab> {
    let services = [(SERVICE, POD), (SERVICE_V6, POD_V6)];
    let rewrites = services.iter().flat_map(|(s, p)| [(at(s, 80), at(p, 8080)), (at(s, 7), at(p, 7))]);
    lab(&["203.0.113.53"], &rewrites.collect::<Vec<_>>())
}

#[test]
fn a_service_is_judged_by_the_address_that_was_asked_for() {
    let Some(lab) = cluster() else { return };
    for (service, pod) in [(SERVICE, POD), (SERVICE_V6, POD_V6)] {
        if ip(service).is_ipv6() && !lab.has_ipv6() {
            skip("no IPv6 here");
            continue;
        }
        let url = format!("http://{}/", at(service, 80));
        lab.clear();
        let ran = Run::new(&lab).policy(only(&[&format!("{}", at(service, 80))])).command(&["curl", "-sS", "-g", &url]);
        ran.passed();
        let d = ran.one(ip(service), 80);
        assert!(d.bytes_sent > 0 && d.bytes_received > 0, "{ran}");
        assert!(ran.to(ip(pod), 8080).is_empty(), "{ran}");
        let far = arrived(&lab);
        assert!(far.iter().all(|a| a.local == at(pod, 8080)) && !far.is_empty(), "{far:?}\n{ran}");
        // The pod's address in the policy is not the service's.
        lab.clear();
        let ran = Run::new(&lab).policy(only(&[&format!("{}", at(pod, 8080))])).command(&["curl", "-sS", "-g", &url]);
        assert_eq!(ran.code(), Some(7), "{ran}");
        ran.verdict(Verdict::Fail).no_gaps();
        assert!(!ran.violations_of(ip(service)).is_empty(), "{ran}");
        nothing_arrived(&lab, &ran);
    }
}

#[test]
fn datagrams_to_a_service_are_judged_and_counted_by_the_address_that_was_asked_for() {
    let Some(lab) = cluster() else { return };
    for (service, pod) in [(SERVICE, POD), (SERVICE_V6, POD_V6)] {
        if ip(service).is_ipv6() && !lab.has_ipv6() {
            skip("no IPv6 here");
            continue;
        }
        for kind in ["connected", "unconnected"] {
            let line = [kind, service, "7", "300"];
            lab.clear();
            let ran = Run::new(&lab).policy(only(&[&format!("udp/{}", at(service, 7))])).python("echo_udp.py", &line);
            ran.passed();
            assert_eq!(ran.json()["server"], service);
            let d = ran.one(ip(service), 7);
            assert_eq!((d.connections, d.bytes_sent, d.bytes_received), (1, 300, 300), "{kind}\n{ran}");
            assert!(ran.to(ip(pod), 7).is_empty(), "{ran}");
            assert!(arrived(&lab).iter().any(|a| a.local == at(pod, 7)), "{:?}\n{ran}", lab.arrived());
            lab.clear();
            let ran = Run::new(&lab).policy(only(&[&format!("udp/{}", at(pod, 7))])).python("echo_udp.py", &line);
            assert_eq!(ran.errno().as_deref(), Some("EPERM"), "{ran}");
            assert!(!ran.violations_of(ip(service)).is_empty(), "{ran}");
            nothing_arrived(&lab, &ran);
        }
    }
}

#[test]
fn several_steps_in_one_session_keep_services_and_resolver_apart() {
    let rewrites = [(at(KUBE_DNS, 53), at(POD_DNS, 53)), (at(SERVICE, 7), at(POD, 7))];
    let Some(lab) = lab(&[KUBE_DNS], &rewrites) else { return };
    let policy = only(&["api.allowed.test:443", &format!("udp/{}", at(SERVICE, 7))]);
    let (ran, steps) = Run::new(&lab).policy(policy).steps(&[
        python_step("echo_udp.py", &["unconnected", SERVICE, "7", "10"]),
        step(&["getent", "ahostsv4", "api.allowed.test"]),
        python_step("echo_udp.py", &["connected", SERVICE, "7", "20"]),
        python_step("lookup_connect.py", &["api.allowed.test", "443"]),
    ]);
    assert!(steps.iter().all(|s| s.code == 0), "{steps:?}\n{ran}");
    ran.verdict(Verdict::Pass);
    let d = ran.one(ip(SERVICE), 7);
    assert_eq!((d.bytes_sent, d.bytes_received), (30, 30), "{ran}");
}
