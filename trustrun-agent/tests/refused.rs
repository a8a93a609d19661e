//! What no rule allows does not reach the far end, and the program learns so at once: EPERM, or a lookup that fails.

mod support;

use std::process::Command;

use support::{
    AT_ONCE, Ran, Run, Step, arrived, client, lab, lab_with, nothing_arrived, only, policy, python, python_step,
    started, step, text,
};
use trustrun_lab::{ALLOWED, EVIL, EVIL_V6, Lab, MULTICAST_V4, MULTICAST_V6, RESOLVER_V6, Service, have, skip};
use trustrun_model::{Action, Verdict};

/// `socket_kinds.py`, with what is left of it on a machine that cannot do one kind at all.
fn kinds(lab: &Lab, policy: &str, attempts: &[(&str, &str, &str)]) -> (Ran, Vec<(String, Step)>) {
    let steps: Vec<_> = attempts.iter().map(|(k, a, p)| python_step("socket_kinds.py", &[k, a, p])).collect();
    let (ran, results) = Run::new(lab).policy(policy).steps(&steps);
    let named = attempts.iter().map(|(kind, address, port)| format!("{kind} {address} {port}")).zip(results);
    (ran, named.collect())
}

/// Every attempt failed with EPERM at once.
#[track_caller]
fn all_refused(ran: &Ran, results: &[(String, Step)]) {
    let mut wrong = Vec::new();
    for (attempt, step) in results {
        if step.code == 3 {
            skip(&format!("{attempt}: {}", step.text.trim()));
        } else if step.code != 1 || step.errno().as_deref() != Some("EPERM") || step.took > AT_ONCE {
            wrong.push(format!("{attempt}: {step:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{ran}");
}

/// The attempt's own command line is in a violation.
#[track_caller]
fn all_reported(ran: &Ran, results: &[(String, Step)]) {
    for (attempt, step) in results.iter().filter(|(_, step)| step.code != 3) {
        let told = |argv: &[String]| argv.len() == 5 && argv[2..].join(" ") == *attempt;
        assert!(ran.report.violations.iter().any(|v| told(&v.process.argv)), "{attempt} {step:?}\n{ran}");
    }
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn tcp_in_every_form_is_refused() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (v4, v6) = (EVIL.to_string(), EVIL_V6.to_string());
    let forms = ["tcp", "nonblocking", "mptcp", "fastopen", "fastopen-connect"];
    let mut attempts: Vec<(&str, &str, &str)> = forms.iter().map(|form| (*form, &*v4, "9")).collect();
    attempts.push(("mapped", &v4, "9"));
    if lab.has_ipv6() {
        attempts.extend(forms.iter().map(|form| (*form, &*v6, "9")));
    }
    let (ran, results) = kinds(&lab, &only(&["api.allowed.test:443"]), &attempts);
    all_refused(&ran, &results);
    all_reported(&ran, &results);
    nothing_arrived(&lab, &ran);
}

#[test]
fn udp_in_every_form_is_refused() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (v4, v6) = (EVIL.to_string(), EVIL_V6.to_string());
    let forms = ["udp-connect", "udp-sendto", "udp-sendmsg", "udp-large"];
    let mut attempts: Vec<(&str, &str, &str)> = forms.iter().map(|form| (*form, &*v4, "9")).collect();
    attempts.extend([("udp-mapped", &*v4, "9"), ("udp-from-53", &*v4, "9"), ("udp-sendto", &*v4, "53")]);
    if lab.has_ipv6() {
        attempts.extend(forms.iter().map(|form| (*form, &*v6, "9")));
    }
    let (ran, results) = kinds(&lab, &only(&["api.allowed.test:443"]), &attempts);
    all_refused(&ran, &results);
    all_reported(&ran, &results);
    nothing_arrived(&lab, &ran);
}

#[test]
fn multicast_is_refused() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (v4, v6) = (MULTICAST_V4.to_string(), MULTICAST_V6.to_string());
    let mut attempts = vec![("multicast", &*v4, "9999")];
    if lab.has_ipv6() {
        attempts.push(("multicast", &v6, "9999"));
    }
    let (ran, results) = kinds(&lab, &only(&["api.allowed.test:443"]), &attempts);
    all_refused(&ran, &results);
    all_reported(&ran, &results);
    nothing_arrived(&lab, &ran);
}

#[test]
fn sockets_whose_packets_carry_no_decision_cannot_be_made() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let to = EVIL.to_string();
    let kinds_of = ["icmp-raw", "ping-socket", "ip-hdrincl", "udplite", "sctp", "packet", "vsock"];
    let attempts: Vec<(&str, &str, &str)> = kinds_of.iter().map(|kind| (*kind, &*to, "9")).collect();
    let (ran, results) = kinds(&lab, &only(&["api.allowed.test:443"]), &attempts);
    all_refused(&ran, &results);
    nothing_arrived(&lab, &ran);
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn an_allowed_address_is_no_way_out_for_other_ports_protocols_and_source_53() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let to = ALLOWED.to_string();
    let attempts =
        [("tcp", &*to, "80"), ("udp-sendto", &*to, "7"), ("udp-connect", &*to, "7"), ("udp-from-53", &*to, "9")];
    let (ran, results) = kinds(&lab, &only(&["203.0.113.10:9", "udp/203.0.113.10:9"]), &attempts);
    all_refused(&ran, &results);
    nothing_arrived(&lab, &ran);
    ran.verdict(Verdict::Fail);
}

#[test]
fn each_peer_of_a_udp_socket_is_judged_for_itself() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let both = format!("{ALLOWED},{EVIL}");
    let ran =
        Run::new(&lab).policy(only(&["udp/203.0.113.10:9"])).python("socket_kinds.py", &["udp-two-peers", &both, "9"]);
    assert_eq!((ran.code(), ran.errno().as_deref()), (Some(1), Some("EPERM")), "{ran}");
    let far = arrived(&lab);
    assert_eq!((far.len(), far[0].local.ip(), far[0].bytes), (1, ALLOWED.into(), 5), "{ran}");
    assert_eq!(ran.one(ALLOWED, 9).action, Action::Allow, "{ran}");
    assert_eq!(ran.one(EVIL, 9).action, Action::Block, "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn quic_goes_only_where_a_rule_says_udp_443() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let to = ALLOWED.to_string();
    let attempts = [("udp-sendto", &*to, "443"), ("udp-connect", &*to, "443")];
    // Even where everything else is let through.
    let open = policy(Action::Allow, Action::Block, &["evil.test"]);
    for refusing in [open, only(&["api.allowed.test", "203.0.113.10"])] {
        let (ran, results) = kinds(&lab, &refusing, &attempts);
        all_refused(&ran, &results);
        all_reported(&ran, &results);
        nothing_arrived(&lab, &ran);
    }
    let (ran, results) = kinds(&lab, &only(&["udp/203.0.113.10:443"]), &attempts);
    assert!(results.iter().all(|(_, step)| step.code == 0), "{results:?}\n{ran}");
    assert_eq!(arrived(&lab).len(), 2, "{ran}");
    ran.passed();
}

#[test]
fn literal_addresses_and_forced_names_do_not_help_curl() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let v6 = format!("http://[{EVIL_V6}]/");
    let steps = [
        step(&["curl", "-sS", "http://203.0.113.66/"]),
        step(&["curl", "-sS", &v6]),
        // The name is allowed, the address was never its answer.
        step(&["curl", "-sS", "--resolve", "api.allowed.test:443:203.0.113.66", "https://api.allowed.test/"]),
        step(&["curl", "-sS", "--connect-to", "::203.0.113.66:", "http://api.allowed.test/"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert!(results.iter().all(|r| r.code == 7 && r.took < AT_ONCE), "{results:?}\n{ran}");
    nothing_arrived(&lab, &ran);
    let evil = ran.violations_of(EVIL);
    assert!(!evil.is_empty() && evil.iter().all(|v| v.process.argv[0] == "curl" && v.rule == "default"), "{ran}");
    assert!(evil[0].suggestion.contains("203.0.113.66"), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn refused_names_fail_at_once_for_programs_on_glibc() {
    let Some(lab) = lab_with(&["curl", "python3", "getent"]) else { return };
    let script = "import urllib.request as u; u.urlopen('https://evil.test/')";
    let connect = "import socket; socket.create_connection(('data.in.a.name.evil.test', 80))";
    let steps = [
        step(&["getent", "ahosts", "evil.test"]),
        step(&["getent", "ahostsv4", "evil.test"]),
        step(&["getent", "hosts", "evil.test"]),
        step(&["curl", "-sS", "https://evil.test/"]),
        step(&[python(), "-c", script]),
        step(&[python(), "-c", connect]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert!(results.iter().all(|r| r.code != 0 && r.took < AT_ONCE), "{results:?}\n{ran}");
    assert_eq!((results[0].code, results[3].code), (2, 6), "{results:?}\n{ran}");
    nothing_asked(&lab, &ran);
    assert!(ran.lookup_refused("evil.test") && ran.lookup_refused("data.in.a.name.evil.test"), "{ran}");
    let by: Vec<_> = ran.report.violations.iter().map(|v| v.process.argv[0].as_str()).collect();
    assert!(by.contains(&"getent") && by.contains(&"curl") && by.contains(&python()), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

/// Neither a query nor a connection got out: a name in a query is a way out, too.
#[track_caller]
fn nothing_asked(lab: &Lab, ran: &Ran) {
    nothing_arrived(lab, ran);
    let asked = lab.dns().queries();
    assert!(asked.is_empty(), "asked {asked:?}\n{ran}");
}

#[test]
fn refused_names_fail_at_once_for_node_which_asks_by_itself() {
    let Some(lab) = lab_with(&["node"]) else { return };
    let (resolve, fetch) = (client("resolve.mjs"), client("fetch.mjs"));
    let steps = [
        step(&["node", &resolve, "evil.test"]),
        step(&["node", &fetch, "https://evil.test/"]),
        step(&["node", &fetch, "https://203.0.113.66/"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert!(results.iter().all(|r| r.code == 1 && r.took < AT_ONCE), "{results:?}\n{ran}");
    assert_eq!(results[2].errno().as_deref(), Some("EPERM"), "{results:?}\n{ran}");
    nothing_asked(&lab, &ran);
    ran.verdict(Verdict::Fail).no_gaps();
}

/// The client on musl, built; a skip where that cannot be done.
fn musl(lab: &Lab) -> Option<String> {
    if !have("musl-gcc") {
        skip("musl-gcc is not installed");
        return None;
    }
    let program = text(&lab.folder().join("musl_lookup"));
    let built = Command::new("musl-gcc").args(["-static", "-O1", "-o", &program, &client("musl_lookup.c")]).status();
    assert!(built.is_ok_and(|status| status.success()), "musl-gcc could not build the client");
    Some(program)
}

#[test]
fn refused_names_fail_at_once_for_musl_which_ignores_a_failed_send() {
    let Some(lab) = lab() else { return };
    let Some(program) = musl(&lab) else { return };
    let steps = [
        step(&[&program, "evil.test"]),
        step(&[&program, "other.evil.test", "tracker.test"]),
        step(&[&program, "two.allowed.test"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["two.allowed.test"])).steps(&steps);
    assert!(results.iter().all(|r| r.took < AT_ONCE), "{results:?}\n{ran}");
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [1, 1, 0], "{results:?}\n{ran}");
    assert_eq!(results[2].json()["answers"]["two.allowed.test"], "203.0.113.10", "{results:?}\n{ran}");
    assert!(!lab.dns().was_asked("evil.test") && !lab.dns().was_asked("tracker.test"), "{ran}");
    assert!(ran.lookup_refused("evil.test") && ran.lookup_refused("tracker.test"), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn refused_names_fail_at_once_with_an_ipv6_resolver() {
    let Some(lab) = started(trustrun_lab::Lab::builder().resolvers(&[RESOLVER_V6.into()])) else { return };
    if !lab.has_ipv6() {
        return skip("this kernel has no IPv6");
    }
    let mut steps = vec![step(&["getent", "ahosts", "evil.test"])];
    if have("node") {
        steps.push(step(&["node", &client("resolve.mjs"), "evil.test"]));
    }
    steps.extend(musl(&lab).map(|program| step(&[&program, "evil.test"])));
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert!(results.iter().all(|r| r.code != 0 && r.took < AT_ONCE), "{results:?}\n{ran}");
    nothing_asked(&lab, &ran);
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn an_allowed_rule_of_the_same_session_still_works_beside_refusals() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let steps = [
        step(&["curl", "-4", "-sS", "https://evil.test/"]),
        step(&["curl", "-4", "-sS", "https://api.allowed.test/"]),
        step(&["curl", "-4", "-sS", "http://203.0.113.66/"]),
        step(&["curl", "-4", "-sS", "https://api.allowed.test/"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [6, 0, 7, 0], "{results:?}\n{ran}");
    let far = arrived(&lab);
    assert_eq!(far.len(), 2, "{far:?}\n{ran}");
    assert!(far.iter().all(|a| a.service == Service::Https && a.local.ip() == ALLOWED), "{far:?}");
    assert_eq!(ran.one(ALLOWED, 443).connections, 2, "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}
