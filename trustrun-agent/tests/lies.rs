//! Names that lie: a Host that DNS did not give, a public name with a private address, lookups that carry data, and
//! resolvers that hide which names are asked.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use support::{Run, arrived, lab_with, nothing_arrived, only, python_step, started, step};
use trustrun_lab::{ALLOWED, Entry, Lab, NAMELESS, have, skip};
use trustrun_model::{Action, Verdict};

/// An address inside the house.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);
/// A cloud's metadata service.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

fn house() -> Option<Lab> {
    if !have("curl") {
        skip("curl is not installed");
        return None;
    }
    let lab = Lab::builder()
        .address(INSIDE.into())
        .address(METADATA.into())
        .name("rebound.example.org", Entry::new().a(INSIDE))
        .name("metadata.example.org", Entry::new().a(METADATA))
        .name("both.example.org", Entry::new().a(INSIDE).a(ALLOWED))
        .name("outside.example.org", Entry::new().a(ALLOWED))
        .name("fhir.hospital.internal", Entry::new().a(INSIDE));
    started(lab)
}

const CURL: [&str; 5] = ["curl", "-4", "-sS", "--max-time", "5"];

fn curl(url: &str) -> Vec<&str> {
    CURL.into_iter().chain([url]).collect()
}

fn with(rule: &str) -> String {
    format!("version: 1\ndefault: block\nrules:\n  - name: the rule\n    allow: [\"*.example.org\"]\n{rule}")
}

#[test]
fn a_public_name_with_a_private_address_is_refused() {
    let Some(lab) = house() else { return };
    for (name, address) in [("rebound.example.org", INSIDE), ("metadata.example.org", METADATA)] {
        lab.clear();
        let ran = Run::new(&lab).policy(with("")).command(&curl(&format!("http://{name}/")));
        assert_ne!(ran.code(), Some(0), "{ran}");
        nothing_arrived(&lab, &ran);
        ran.verdict(Verdict::Fail).no_gaps();
        let violations = ran.violations_of(address);
        let [violation] = violations.as_slice() else { panic!("{ran}") };
        assert_eq!((violation.action, violation.host.as_deref()), (Action::Block, Some(name)), "{ran}");
        assert!(violation.suggestion.contains("`private: allow`"), "{ran}");
    }
}

#[test]
fn the_rule_may_say_that_a_private_address_is_meant() {
    let Some(lab) = house() else { return };
    let ran = Run::new(&lab).policy(with("    private: allow\n")).command(&curl("http://rebound.example.org/"));
    assert_eq!(ran.code(), Some(0), "{ran}");
    ran.passed();
    // By a rule about the address, and by a name that nobody can register, it is no question.
    for allowed in ["10.9.0.0/16", "fhir.hospital.internal"] {
        let ran = Run::new(&lab).policy(only(&[allowed])).command(&curl("http://fhir.hospital.internal/"));
        let named = allowed.contains("internal");
        assert_eq!(ran.code() == Some(0), named, "{allowed}: {ran}");
        let ran = Run::new(&lab).policy(only(&[allowed])).command(&curl(&format!("http://{INSIDE}/")));
        assert_eq!(ran.code() == Some(0), !named, "{allowed}: {ran}");
    }
}

#[test]
fn of_two_addresses_the_public_one_is_used() {
    let Some(lab) = house() else { return };
    let ran = Run::new(&lab).policy(with("")).command(&curl("http://both.example.org/"));
    // curl tries the next address when one is refused.
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert!(arrived(&lab).iter().all(|a| a.local.ip() == IpAddr::V4(ALLOWED)), "{:?}\n{ran}", arrived(&lab));
}

#[test]
fn a_private_link_can_be_required() {
    let Some(lab) = house() else { return };
    let policy = with("    require_private_ip: true\n");
    let ran = Run::new(&lab).policy(policy.clone()).command(&curl("https://rebound.example.org/"));
    assert!(arrived(&lab).iter().any(|a| a.local.ip() == IpAddr::V4(INSIDE)), "{ran}");
    ran.verdict(Verdict::Pass);
    lab.clear();
    let ran = Run::new(&lab).policy(policy).command(&curl("http://outside.example.org/"));
    assert_ne!(ran.code(), Some(0), "{ran}");
    nothing_arrived(&lab, &ran);
    let violations = ran.violations_of(ALLOWED);
    assert!(violations.iter().all(|v| v.suggestion.contains("private link")) && !violations.is_empty(), "{ran}");
}

#[test]
fn a_request_for_another_host_is_a_violation() {
    let Some(lab) = house() else { return };
    let words = ["-H", "Host: evil.test", "http://api.allowed.test/"];
    let ran = Run::new(&lab).policy(only(&["api.allowed.test"])).command(&[&CURL[..], &words].concat());
    ran.verdict(Verdict::Fail);
    let violations = ran.violations_of(ALLOWED);
    let [violation] = violations.as_slice() else { panic!("{ran}") };
    assert_eq!((violation.action, violation.host.as_deref()), (Action::Alert, Some("evil.test")), "{ran}");
    // Where the address itself is allowed, or the Host is the address, nobody lied.
    for (allowed, words) in [
        ("203.0.113.10", words.to_vec()),
        ("api.allowed.test", vec!["-H", "Host: API.allowed.test:80", "http://api.allowed.test/"]),
    ] {
        let allowed = only(&[allowed, "api.allowed.test"]);
        let ran = Run::new(&lab).policy(allowed).command(&[&CURL[..], &words].concat());
        assert_eq!(ran.code(), Some(0), "{ran}");
        ran.passed();
    }
}

#[test]
fn data_in_lookups_is_told() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let code = "import socket, hashlib\n\
                for n in range(60):\n\
                \tlabel = hashlib.sha256(str(n).encode()).hexdigest()[:50]\n\
                \ttry: socket.gethostbyname(label + '.wild.allowed.test')\n\
                \texcept OSError: pass\n";
    let ran = Run::new(&lab).policy(only(&["*.allowed.test"])).command(&["python3", "-c", code]);
    assert_eq!(ran.gap("dns-tunnel"), 60, "{ran}");
    ran.verdict(Verdict::Incomplete);
    // The same names outside the policy never leave.
    let ran = Run::new(&lab).policy(only(&["api.allowed.test"])).command(&["python3", "-c", code]);
    assert_eq!(ran.gap("dns-tunnel"), 0, "{ran}");
    ran.verdict(Verdict::Fail);
}

#[test]
fn resolvers_that_hide_names_are_refused_unless_a_rule_names_them() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let lax = "version: 1\ndefault: allow\nrules:\n  - block: [\"evil.test\"]\n";
    let tls = python_step("socket_kinds.py", &["tcp", &NAMELESS.to_string(), "853"]);
    let other = python_step("socket_kinds.py", &["tcp", &NAMELESS.to_string(), "9"]);
    let https = step(&["getent", "ahostsv4", "dns.google"]);
    let (ran, results) = Run::new(&lab).policy(lax).steps(&[tls.clone(), other, https]);
    assert_eq!(results[1].code, 0, "{results:?}\n{ran}");
    assert!(results[0].code != 0 && results[2].code != 0, "{results:?}\n{ran}");
    assert!(arrived(&lab).iter().all(|a| a.local.port() == 9), "{:?}\n{ran}", arrived(&lab));
    assert!(!lab.dns().was_asked("dns.google"), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
    assert!(ran.violations_of(NAMELESS).iter().any(|v| v.rule == "encrypted DNS" && v.port == 853), "{ran}");

    let named = format!("{lax}  - allow: [\"{NAMELESS}:853\"]\n");
    let (ran, results) = Run::new(&lab).policy(named).steps(&[tls]);
    assert_eq!(results[0].code, 0, "{results:?}\n{ran}");
    ran.passed();
}
