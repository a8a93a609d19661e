//! Proxies: the authority inside is judged, as a destination of its own, however its bytes come.

mod support;

use support::{AT_ONCE, Ran, Run, Step, arrived, lab_with, only, python, python_step, step};
use trustrun_lab::{Arrival, EVIL, HOSPITAL, Lab, PROXY, Service};
use trustrun_model::{Action, Evidence, Verdict};

/// Every way of asking, with the proxy's port.
const KINDS: [(&str, &str); 4] = [("connect", "3128"), ("absolute", "3128"), ("socks5", "1080"), ("socks4a", "1080")];
/// Ways after which the connection is the authority's alone.
const TUNNELS: [(&str, &str); 3] = [KINDS[0], KINDS[2], KINDS[3]];
/// Whole, and in pieces of three octets.
const PIECES: [&str; 2] = ["0", "3"];

fn ask(kinds: &[(&str, &str)], host: &str, port: &str) -> Vec<Vec<String>> {
    let one = |(kind, proxy): (&str, &str), every| {
        python_step("proxy_ask.py", &[kind, "proxy.allowed.test", proxy, host, port, "--every", every])
    };
    kinds.iter().flat_map(|kind| PIECES.map(|every| one(*kind, every))).collect()
}

fn through(lab: &Lab, allowed: &[&str], steps: &[Vec<String>]) -> (Ran, Vec<Step>) {
    Run::new(lab).policy(only(allowed)).steps(steps)
}

/// The proxy was asked for nobody, and fetched from nobody.
#[track_caller]
fn never_asked(far: &[Arrival], ran: &Ran) {
    assert!(far.iter().all(|a| a.host.is_none() && a.local.ip() == PROXY), "{far:?}\n{ran}");
}

#[test]
fn tunnels_to_an_allowed_authority_work_and_pass() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let steps = ask(&TUNNELS, "fhir.hospital.test", "80");
    let (ran, results) = through(&lab, &["proxy.allowed.test", "fhir.hospital.test:80"], &steps);
    assert!(results.iter().all(|r| r.code == 0), "{results:?}\n{ran}");
    ran.passed();
    let inside: Vec<_> = ran.report.destinations.iter().filter(|d| d.address == PROXY).collect();
    assert_eq!(inside.iter().map(|d| d.connections).sum::<u64>(), 6, "{ran}");
    for d in inside {
        assert_eq!((d.host.as_deref(), d.evidence), (Some("fhir.hospital.test"), Evidence::Claim), "{ran}");
        assert_eq!(d.sni.as_deref(), Some("fhir.hospital.test:80"), "{ran}");
    }
    let far = arrived(&lab);
    assert_eq!(far.iter().filter(|a| a.local.ip() == HOSPITAL && a.peer.ip() == PROXY).count(), 6, "{far:?}");
}

#[test]
fn tunnels_to_anybody_else_never_reach_the_proxy() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    // Another host, another port of an allowed host, an address.
    for (host, port) in [("evil.test", "80"), ("fhir.hospital.test", "443"), ("203.0.113.66", "80")] {
        lab.clear();
        let steps = ask(&TUNNELS, host, port);
        let (ran, results) = through(&lab, &["proxy.allowed.test", "fhir.hospital.test:80"], &steps);
        assert!(results.iter().all(|r| r.code == 1 && r.took < AT_ONCE), "{host}:{port} {results:?}\n{ran}");
        never_asked(&arrived(&lab), &ran);
        ran.verdict(Verdict::Fail).no_gaps();
        assert_eq!(ran.report.violations.iter().map(|v| v.count).sum::<u64>(), 6, "{ran}");
        assert!(ran.report.violations.iter().all(|v| v.action == Action::Block), "{ran}");
    }
}

#[test]
fn a_proxy_that_is_granted_by_its_address_is_no_way_around() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let steps = ask(&TUNNELS, "evil.test", "80");
    let (ran, results) = through(&lab, &["203.0.113.80", "proxy.allowed.test", "fhir.hospital.test:80"], &steps);
    assert!(results.iter().all(|r| r.code == 1 && r.took < AT_ONCE), "{results:?}\n{ran}");
    never_asked(&arrived(&lab), &ran);
    ran.verdict(Verdict::Fail);
}

#[test]
fn the_absolute_form_is_judged_and_never_passes() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let allowed = ["proxy.allowed.test", "fhir.hospital.test:80"];
    let (ran, results) = through(&lab, &allowed, &ask(&[KINDS[1]], "fhir.hospital.test", "80"));
    assert!(results.iter().all(|r| r.code == 0), "{results:?}\n{ran}");
    // A second request on the same connection might be for somebody else.
    ran.verdict(Verdict::Incomplete);
    assert_eq!(ran.gap("proxy-hides-destination"), 2, "{ran}");
    lab.clear();
    let (ran, results) = through(&lab, &allowed, &ask(&[KINDS[1]], "evil.test", "80"));
    assert!(results.iter().all(|r| r.code == 1 && r.took < AT_ONCE), "{results:?}\n{ran}");
    never_asked(&arrived(&lab), &ran);
    ran.verdict(Verdict::Fail);
}

#[test]
fn curl_goes_through_every_kind_of_proxy() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let url = "https://fhir.hospital.test/";
    let proxies =
        ["http://proxy.allowed.test:3128", "socks5h://proxy.allowed.test:1080", "socks4a://proxy.allowed.test:1080"];
    let steps = proxies.map(|proxy| step(&["curl", "-4", "-sS", "-x", proxy, url]));
    let allowed = ["proxy.allowed.test", "fhir.hospital.test:443"];
    let (ran, results) = through(&lab, &allowed, &steps);
    assert!(results.iter().all(|r| r.code == 0 && r.text.starts_with("hello from")), "{results:?}\n{ran}");
    ran.passed();
    lab.clear();
    let steps = proxies.map(|proxy| step(&["curl", "-4", "-sS", "-x", proxy, "https://evil.test/"]));
    let (ran, results) = through(&lab, &allowed, &steps);
    assert!(results.iter().all(|r| r.code != 0 && r.took < AT_ONCE), "{results:?}\n{ran}");
    never_asked(&arrived(&lab), &ran);
    assert!(ran.report.violations.iter().all(|v| v.host.as_deref() == Some("evil.test")), "{ran}");
    ran.verdict(Verdict::Fail);
}

#[test]
fn a_socks_proxy_that_is_given_addresses_is_judged_by_them() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let line = |host: &str| {
        let url = format!("http://{host}/");
        step(&["curl", "-4", "-sS", "-x", "socks5://proxy.allowed.test:1080", &url])
    };
    let (ran, results) =
        through(&lab, &["proxy.allowed.test", "203.0.113.20:80"], &[line("203.0.113.20"), line("203.0.113.66")]);
    assert!(results[0].code == 0 && results[1].code != 0 && results[1].took < AT_ONCE, "{results:?}\n{ran}");
    let far = arrived(&lab);
    assert!(far.iter().any(|a| a.local.ip() == HOSPITAL) && far.iter().all(|a| a.local.ip() != EVIL), "{far:?}\n{ran}");
    ran.verdict(Verdict::Fail);
}

#[test]
fn the_usual_variables_lead_through_the_proxy() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
    for (host, code) in [("fhir.hospital.test", 0), ("evil.test", 1)] {
        lab.clear();
        let ran = Run::new(&lab)
            .policy(only(&["proxy.allowed.test:3128", "fhir.hospital.test:443"]))
            .env("HTTPS_PROXY", "http://proxy.allowed.test:3128")
            .command(&[python(), "-c", script, &format!("https://{host}/")]);
        assert_eq!(ran.code(), Some(code), "{ran}");
        let far = arrived(&lab);
        if code == 0 {
            ran.passed();
            assert!(
                far.iter().any(|a| a.service == Service::HttpProxy) && far.iter().any(|a| a.local.ip() == HOSPITAL)
            );
        } else {
            never_asked(&far, &ran);
            ran.verdict(Verdict::Fail);
        }
    }
}
