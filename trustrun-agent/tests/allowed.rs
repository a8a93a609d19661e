//! What a policy allows works under `default: block` as it does without TrustRun, and is reported with what is known.

mod support;

use std::time::Duration;

use support::{Run, arrived, lab, lab_with, only, python, started, text, works_bare};
use trustrun_lab::{ALLOWED, ALLOWED_V6, CDN, HOSPITAL, Lab, ONLY_V6, Service, skip};
use trustrun_model::{Action, Assurance, Direction, Evidence, Protocol, SelfTest};

#[test]
fn curl_fetches_over_ipv4_with_name_evidence_and_attribution() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let url = "https://api.allowed.test/bytes/100000";
    let line = ["curl", "-4", "-sS", "-o", "/dev/null", "-w", "%{size_download}", url];
    let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).command(&line);
    ran.passed();
    assert_eq!(ran.stdout, "100000", "{ran}");
    let d = ran.one(ALLOWED, 443);
    assert_eq!((d.host.as_deref(), d.sni.as_deref()), (Some("api.allowed.test"), Some("api.allowed.test")), "{ran}");
    assert_eq!((d.evidence, d.action, d.rule.as_str()), (Evidence::DnsSni, Action::Allow, "the rule"), "{ran}");
    assert_eq!((d.protocol, d.direction, d.connections), (Protocol::Tcp, Direction::Out, 1), "{ran}");
    assert_eq!(d.processes.len(), 1, "{ran}");
    assert_eq!(d.processes[0].argv, line, "{ran}");
    assert!(d.processes[0].exe.ends_with("/curl"), "{ran}");
    let far = arrived(&lab);
    assert_eq!((far.len(), far[0].service), (1, Service::Https));
    assert_eq!(d.local, far[0].peer.to_string(), "{ran}");
    // The far end counts the payload of TCP as we do.
    assert_eq!(d.bytes_sent, far[0].bytes, "{ran}");
    assert!(d.bytes_received > 100_000, "{ran}");
    let asked = ran.report.queries.iter().find(|q| q.name == "api.allowed.test" && q.kind == "A").expect("a query");
    assert_eq!((asked.action, &asked.answers), (Action::Allow, &vec![ALLOWED.to_string()]), "{ran}");
}

#[test]
fn the_report_says_what_was_looked_at() {
    let Some(lab) = lab() else { return };
    let ran = Run::new(&lab).policy(only(&["api.allowed.test"])).command(&["true"]);
    ran.passed();
    let coverage = &ran.report.coverage;
    assert_eq!(coverage.self_test, SelfTest::Passed, "{ran}");
    assert!(coverage.hooks.len() >= 12 && coverage.hooks.iter().all(|h| h.attached_at < h.detached_at), "{ran}");
    assert_eq!(coverage.resolvers, ["203.0.113.53", "203.0.113.54"], "{ran}");
    assert_eq!(ran.report.session.assurance, Assurance::Enforced);
    assert!(ran.report.destinations.is_empty() && ran.report.counters.emitted > 0, "{ran}");
}

#[test]
fn curl_fetches_over_ipv6() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    if !lab.has_ipv6() {
        return skip("this kernel has no IPv6");
    }
    let ran = Run::new(&lab).policy(only(&["api.allowed.test", "only6.allowed.test:8443"])).command(&[
        "curl",
        "-6",
        "-sS",
        "http://api.allowed.test/",
        "https://only6.allowed.test:8443/",
    ]);
    ran.passed();
    assert_eq!(ran.stdout.matches("hello from ").count(), 2, "{ran}");
    assert_eq!(ran.one(ALLOWED_V6, 80).host.as_deref(), Some("api.allowed.test"), "{ran}");
    assert_eq!(ran.one(ONLY_V6, 8443).evidence, Evidence::DnsSni, "{ran}");
}

#[test]
fn curl_moves_ten_megabytes_both_ways() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let file = lab.folder().join("upload");
    std::fs::write(&file, vec![7; 10_000_000]).expect("a file");
    let data = format!("@{}", text(&file));
    let ran = Run::new(&lab).policy(only(&["api.allowed.test"])).command(&[
        "curl",
        "-4",
        "-sS",
        "--data-binary",
        &data,
        "http://api.allowed.test/in",
        "--next",
        "-4",
        "-sS",
        "-o",
        "/dev/null",
        "http://api.allowed.test/bytes/10000000",
    ]);
    ran.passed();
    let d = ran.to(ALLOWED, 80);
    let total: (u64, u64) = (d.iter().map(|d| d.bytes_sent).sum(), d.iter().map(|d| d.bytes_received).sum());
    assert!(total.0 > 10_000_000 && total.1 > 10_000_000, "{ran}");
    // Retransmissions count, and there are none to speak of on loopback.
    assert!(total.0 < 10_500_000 && total.1 < 10_500_000, "{ran}");
}

#[test]
fn python_fetches_with_urllib_requests_and_asyncio() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let hosts = ["api.allowed.test", "fhir.hospital.test", "cname.allowed.test"];
    let requests = works_bare(&lab, python(), &["-c", "import requests"]);
    let fetch = if requests { "requests.get(u).text" } else { "urllib.request.urlopen(u).read().decode()" };
    if !requests {
        skip("python3 has no requests (urllib and asyncio are tested)");
    }
    let modules = if requests { "requests, urllib.request" } else { "urllib.request" };
    let script = format!(
        "import {modules}\nu = 'https://api.allowed.test/'\nprint(urllib.request.urlopen(u).read().decode(), {fetch})"
    );
    let allowed = only(&["*.allowed.test:443", "fhir.hospital.test"]);
    let ran = Run::new(&lab).policy(&*allowed).command(&[python(), "-c", &script]);
    ran.passed();
    assert_eq!(ran.stdout.matches("hello from api.allowed.test").count(), 2, "{ran}");
    assert!(ran.report.destinations.iter().all(|d| d.processes.iter().all(|p| p.exe == python())), "{ran}");
    let ran = Run::new(&lab).policy(allowed).python("asyncio_fetch.py", &hosts);
    ran.passed();
    assert_eq!(ran.one(HOSPITAL, 443).evidence, Evidence::DnsSni, "{ran}");
    assert_eq!(ran.one(CDN, 443).host.as_deref(), Some("cname.allowed.test"), "{ran}");
}

#[test]
fn node_fetches_and_resolves() {
    let Some(lab) = lab_with(&["node"]) else { return };
    let fetch = support::client("fetch.mjs");
    let allowed = only(&["*.allowed.test"]);
    let urls = ["https://api.allowed.test/", "http://two.allowed.test/bytes/7"];
    let ran = Run::new(&lab).policy(&*allowed).command(&["node", &fetch, urls[0], urls[1]]);
    ran.passed();
    // Over IPv4 or IPv6, whichever node finds quicker.
    let mut tls = ran.report.destinations.iter().filter(|d| d.port == 443 && d.evidence == Evidence::DnsSni);
    assert!(tls.any(|d| d.sni.as_deref() == Some("api.allowed.test")), "{ran}");
    let resolve = support::client("resolve.mjs");
    let ran = Run::new(&lab).policy(allowed).command(&["node", &resolve, "two.allowed.test", "cname.allowed.test"]);
    ran.passed();
    assert!(ran.report.destinations.is_empty(), "a lookup is no connection\n{ran}");
}

#[test]
fn git_clones_over_https() {
    let Some(lab) = lab_with(&["git"]) else { return };
    lab.publish_git("repo.git").expect("a repository");
    let place = text(&lab.folder().join("clone"));
    let line = ["git", "clone", "--quiet", "https://api.allowed.test/repo.git", &place];
    let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).command(&line);
    ran.passed();
    assert!(lab.folder().join("clone/README.md").is_file(), "{ran}");
    // git's transport is a program of its own.
    let helper = ran.report.destinations.iter().flat_map(|d| &d.processes);
    assert!(helper.clone().count() > 0 && helper.clone().all(|p| p.argv[0].contains("git")), "{ran}");
}

#[test]
fn a_notebook_runs_on_loopback_and_its_kernel_fetches_what_is_allowed() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let ran = Run::new(&lab)
        .policy(only(&["fhir.hospital.test:443"]))
        .python("notebook.py", &["https://fhir.hospital.test/"]);
    ran.passed();
    assert_eq!(ran.one(HOSPITAL, 443).processes[0].argv[2], "--kernel", "{ran}");
    let inner: Vec<_> = ran.report.destinations.iter().filter(|d| d.rule == "internal").collect();
    assert!(!inner.is_empty() && inner.iter().all(|d| d.address.is_loopback() && d.action == Action::Allow), "{ran}");
    assert!(ran.report.destinations.iter().any(|d| d.direction == Direction::In), "{ran}");
}

#[test]
fn a_notebook_of_a_blocking_policy_works_though_its_kernel_reaches_nobody() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let ran = Run::new(&lab).policy("version: 1\ndefault: block\n").python("notebook.py", &[]);
    ran.passed();
    let ran = Run::new(&lab).policy("version: 1\ndefault: block\n").python("notebook.py", &["https://evil.test/"]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(ran.json()["answer"].as_str().is_some_and(|a| a.starts_with("failed")), "{ran}");
    assert!(ran.lookup_refused("evil.test"), "{ran}");
    support::nothing_arrived(&lab, &ran);
}

#[test]
fn udp_is_answered_where_it_is_allowed() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let address = ALLOWED.to_string();
    let ran =
        Run::new(&lab).policy(only(&["udp/203.0.113.10:7"])).python("socket_kinds.py", &["udp-echo", &address, "7"]);
    ran.passed();
    let d = ran.one(ALLOWED, 7);
    assert_eq!((d.protocol, d.bytes_sent, d.bytes_received, d.connections), (Protocol::Udp, 5, 5, 1), "{ran}");
    assert_eq!(d.processes[0].argv[2], "udp-echo", "{ran}");
}

#[test]
fn addresses_and_ports_are_granted_without_a_name() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let ran = Run::new(&lab).policy(only(&["203.0.113.0/28:80-90", "[2001:db8::/64]:80"])).command(&[
        "curl",
        "-sS",
        "http://203.0.113.10/",
        "http://[2001:db8::10]/",
    ]);
    ran.passed();
    let d = ran.one(ALLOWED, 80);
    assert_eq!((d.evidence, d.sni.as_deref()), (Evidence::Claim, Some("203.0.113.10")), "{ran}");
}

#[test]
fn search_lists_and_slow_answers_do_not_hurt() {
    let Some(lab) = started(Lab::builder().search(&["corp.test", "allowed.test"]).option("ndots:5")) else { return };
    if !trustrun_lab::have("curl") {
        return skip("curl is not installed");
    }
    let allowed = only(&["two.allowed.test", "late.allowed.test"]);
    let ran = Run::new(&lab).policy(allowed).command(&[
        "curl",
        "-4",
        "-sS",
        "http://two.allowed.test/",
        "http://late.allowed.test/",
    ]);
    ran.passed();
    assert_eq!(ran.stdout.matches("hello").count(), 2, "{ran}");
    assert!(ran.took < Duration::from_secs(15), "{ran}");
}
