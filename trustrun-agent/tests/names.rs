//! Names: which answers are believed, what they grant, and what the client's own words take back.

mod support;

use std::time::Duration;

use support::{AT_ONCE, Ran, Run, Step, arrived, lab, lab_with, nothing_arrived, only, python_step, started, step};
use trustrun_lab::{
    ALLOWED, Arrival, Behaviour, CDN, EVIL, Entry, Forger, Forgery, HONEST, HOSPITAL, Lab, NAMELESS, RESOLVER,
    RESOLVER_TWO, RESOLVER_V6, Transport, have, skip,
};
use trustrun_model::{Action, Evidence, Verdict};

/// Two names on one address, each for a port of its own.
const SHARED: [&str; 2] = ["api.allowed.test:443", "two.allowed.test:80"];

fn hello(name: &str, options: &[&str]) -> Vec<String> {
    let address = ALLOWED.to_string();
    python_step("client_hello.py", &[&[&address, "443", name], options].concat())
}

/// Looks both names up, then runs the steps. Gives the steps' own results.
fn after_both_lookups(lab: &Lab, steps: &[Vec<String>]) -> (Ran, Vec<Step>) {
    let lookups = ["api.allowed.test", "two.allowed.test"].map(|name| step(&["getent", "ahostsv4", name]));
    let all: Vec<_> = lookups.into_iter().chain(steps.iter().cloned()).collect();
    let (ran, mut results) = Run::new(lab).policy(only(&SHARED)).steps(&all);
    assert!(results[..2].iter().all(|r| r.code == 0), "{results:?}\n{ran}");
    results.drain(..2);
    (ran, results)
}

/// No server read this name, nor a whole hello.
#[track_caller]
fn never_said(far: &[Arrival], name: &str, ran: &Ran) {
    assert!(far.iter().all(|a| a.sni.as_deref() != Some(name) && a.requests == 0), "{far:?}\n{ran}");
}

#[test]
fn of_several_names_on_one_address_the_sni_selects() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (ran, results) = after_both_lookups(&lab, &[hello("api.allowed.test", &[])]);
    assert_eq!(results[0].code, 0, "{results:?}\n{ran}");
    ran.passed();
    let d = ran.one(ALLOWED, 443);
    assert_eq!((d.host.as_deref(), d.evidence), (Some("api.allowed.test"), Evidence::DnsSni), "{ran}");
    assert_eq!(arrived(&lab)[0].sni.as_deref(), Some("api.allowed.test"));
}

#[test]
fn an_sni_that_may_not_go_there_is_refused_at_once() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    // Bound but for another port; on the same address but never asked; nobody's; in another case.
    for name in ["two.allowed.test", "shared.other.test", "evil.test", "Two.Allowed.TEST"] {
        lab.clear();
        let (ran, results) = after_both_lookups(&lab, &[hello(name, &[])]);
        assert!(results[0].code == 1 && results[0].took < AT_ONCE, "{name}: {results:?}\n{ran}");
        never_said(&arrived(&lab), name, &ran);
        ran.verdict(Verdict::Fail).no_gaps();
        assert!(ran.violations_of(ALLOWED).iter().any(|v| v.action == Action::Block), "{name}\n{ran}");
        assert_eq!(ran.one(ALLOWED, 443).sni.as_deref(), Some(&*name.to_lowercase()), "{ran}");
    }
}

#[test]
fn without_an_sni_every_bound_name_must_be_allowed() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (ran, results) = after_both_lookups(&lab, &[hello("", &[])]);
    assert!(results[0].code == 1 && results[0].took < AT_ONCE, "{results:?}\n{ran}");
    assert!(arrived(&lab).iter().all(|a| a.requests == 0), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
    // Plain bytes name nobody either.
    let raw = python_step("socket_kinds.py", &["tcp", "203.0.113.10", "443"]);
    lab.clear();
    let (ran, _) = after_both_lookups(&lab, &[raw]);
    assert!(arrived(&lab).iter().all(|a| a.bytes == 0), "{:?}\n{ran}", lab.arrived());
    ran.verdict(Verdict::Fail);
    // With one name there is nothing to choose.
    let steps = [step(&["getent", "ahostsv4", "api.allowed.test"]), hello("", &[])];
    let (ran, results) = Run::new(&lab).policy(only(&SHARED)).steps(&steps);
    assert_eq!(results[1].code, 0, "{results:?}\n{ran}");
    ran.passed();
}

/// Ways in which a ClientHello may reach the network.
const SHAPES: [&[&str]; 8] = [
    &["--after", "1,4,5"],
    &["--after", "9,43,100"],
    &["--every", "1"],
    &["--every", "7"],
    &["--pad", "2000"],
    &["--pad", "5000", "--every", "1000"],
    &["--pad", "3000", "--sni-last"],
    &["--pad", "3000", "--sni-last", "--after", "1,1500,3000"],
];

#[test]
fn a_hello_in_pieces_or_larger_than_a_segment_works_where_it_agrees() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let steps: Vec<_> = SHAPES.iter().map(|shape| hello("api.allowed.test", shape)).collect();
    let (ran, results) = after_both_lookups(&lab, &steps);
    for (shape, result) in SHAPES.iter().zip(&results) {
        assert_eq!(result.code, 0, "{shape:?}: {result:?}\n{ran}");
    }
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 443).evidence, Evidence::DnsSni, "{ran}");
    assert_eq!(ran.one(ALLOWED, 443).connections, SHAPES.len() as u64, "{ran}");
}

#[test]
fn a_hello_in_pieces_or_larger_than_a_segment_is_refused_where_it_disagrees() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let steps: Vec<_> = SHAPES.iter().map(|shape| hello("two.allowed.test", shape)).collect();
    let (ran, results) = after_both_lookups(&lab, &steps);
    for (shape, result) in SHAPES.iter().zip(&results) {
        assert!(result.code == 1 && result.took < AT_ONCE, "{shape:?}: {result:?}\n{ran}");
    }
    never_said(&arrived(&lab), "two.allowed.test", &ran);
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn a_hello_in_several_records_never_gets_past_the_check() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let shapes: [&[&str]; 3] = [&["--records", "2"], &["--records", "3", "--every", "50"], &["--records", "40"]];
    let steps: Vec<_> = shapes.iter().map(|shape| hello("two.allowed.test", shape)).collect();
    let (ran, results) = after_both_lookups(&lab, &steps);
    assert!(results.iter().all(|r| r.code == 1 && r.took < AT_ONCE), "{results:?}\n{ran}");
    never_said(&arrived(&lab), "two.allowed.test", &ran);
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn an_alias_grants_the_name_that_was_asked_and_not_its_target() {
    let Some(lab) = lab_with(&["curl", "python3"]) else { return };
    let address = CDN.to_string();
    let steps = [
        step(&["curl", "-4", "-sS", "https://cname.allowed.test/"]),
        python_step("client_hello.py", &[&address, "443", "edge.cdn.test"]),
        step(&["curl", "-4", "-sS", "https://edge.cdn.test/"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["cname.allowed.test:443"])).steps(&steps);
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [0, 1, 6], "{results:?}\n{ran}");
    never_said(&arrived(&lab)[1..], "edge.cdn.test", &ran);
    assert!(ran.to(CDN, 443).iter().any(|d| d.host.as_deref() == Some("cname.allowed.test")), "{ran}");
    assert!(ran.lookup_refused("edge.cdn.test"), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn all_of_thirty_addresses_are_granted() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let names = ["big.allowed.test", "tcp.allowed.test"];
    for name in names {
        // The second one's answer fits into no datagram: glibc asks again over TCP.
        let ran = Run::new(&lab).policy(only(&[name])).python("lookup_connect.py", &[name, "9", "--expect", "30"]);
        ran.passed();
        assert_eq!(ran.report.destinations.iter().filter(|d| d.host.as_deref() == Some(name)).count(), 30, "{ran}");
        assert_eq!(arrived(&lab).len(), 30, "{ran}");
        lab.clear();
    }
}

#[test]
fn a_truncated_answer_is_asked_again_over_tcp_and_grants() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let name = "truncated.allowed.test";
    let ran = Run::new(&lab).policy(only(&[name])).python("lookup_connect.py", &[name, "9", "--expect", "1"]);
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 9).host.as_deref(), Some(name), "{ran}");
}

#[test]
fn names_outside_the_policy_are_refused_over_tcp_as_well() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let script = "import socket, struct, json, sys\n\
        q = struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + b'\\4evil\\4test\\0' + struct.pack('!HH', 1, 1)\n\
        try:\n\
        \x20   s = socket.create_connection((sys.argv[1], 53), 5)\n\
        \x20   s.sendall(struct.pack('!H', len(q)) + q)\n\
        \x20   a = s.recv(512)\n\
        except OSError as e:\n\
        \x20   a = b''\n\
        print(json.dumps({'length': len(a), 'rcode': a[5] & 15 if len(a) > 6 else None}))\n";
    let resolver = RESOLVER.to_string();
    let steps = [step(&[support::python(), "-c", script, &resolver])];
    let (ran, results) = Run::new(&lab).policy(only(&["api.allowed.test"])).steps(&steps);
    assert!(results[0].took < AT_ONCE && results[0].json()["rcode"] != 0, "{results:?}\n{ran}");
    nothing_arrived(&lab, &ran);
    assert!(!lab.dns().was_asked("evil.test"), "{ran}");
    assert!(ran.lookup_refused("evil.test"), "{ran}");
    ran.verdict(Verdict::Fail);
}

#[test]
fn a_name_with_an_ipv6_address_only_is_granted() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    if !lab.has_ipv6() {
        return skip("this kernel has no IPv6");
    }
    let ran = Run::new(&lab).policy(only(&["only6.allowed.test:443"])).command(&[
        "curl",
        "-sS",
        "https://only6.allowed.test/",
    ]);
    ran.passed();
    assert_eq!(ran.one(trustrun_lab::ONLY_V6, 443).evidence, Evidence::DnsSni, "{ran}");
}

#[test]
fn a_short_ttl_does_not_cut_off_a_program_that_takes_its_time() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let name = "short.allowed.test";
    let ran = Run::new(&lab).policy(only(&[name])).python("lookup_connect.py", &[name, "9", "--after", "2.5"]);
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 9).host.as_deref(), Some(name), "{ran}");
}

#[test]
fn upper_case_changes_nothing() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    let ran = Run::new(&lab).policy(only(&["Api.ALLOWED.test:443", "*.WILD.allowed.TEST"])).command(&[
        "curl",
        "-4",
        "-sS",
        "https://aPI.Allowed.TEST/",
        "https://x.Y.wild.ALLOWED.test/",
    ]);
    ran.passed();
    assert!(ran.report.destinations.iter().all(|d| d.host.as_ref().is_some_and(|h| *h == h.to_lowercase())), "{ran}");
    assert!(lab.dns().queries().iter().any(|q| q.asked != q.name), "the case did not reach the server");
}

#[test]
fn a_wildcard_is_any_depth_below_and_not_the_apex() {
    let Some(lab) = started(Lab::builder().name("wild.allowed.test", Entry::new().a(ALLOWED))) else { return };
    let steps = [
        step(&["getent", "ahostsv4", "a.wild.allowed.test"]),
        step(&["getent", "ahostsv4", "a.b.c.wild.allowed.test"]),
        step(&["getent", "ahostsv4", "wild.allowed.test"]),
        step(&["getent", "ahostsv4", "notwild.allowed.test"]),
    ];
    let (ran, results) = Run::new(&lab).policy(only(&["*.wild.allowed.test"])).steps(&steps);
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [0, 0, 2, 2], "{results:?}\n{ran}");
    assert!(ran.lookup_refused("wild.allowed.test") && ran.lookup_refused("notwild.allowed.test"), "{ran}");
}

#[test]
fn search_lists_with_ndots_work() {
    let Some(lab) = started(Lab::builder().search(&["corp.test", "allowed.test"]).option("ndots:5")) else { return };
    for program in ["curl", "python3"] {
        if !have(program) {
            return skip(&format!("{program} is not installed"));
        }
    }
    let steps = [
        step(&["getent", "ahostsv4", "two"]),
        step(&["curl", "-4", "-sS", "https://fhir.hospital.test/"]),
        python_step("lookup_connect.py", &["two", "9", "--expect", "1"]),
        python_step("lookup_connect.py", &["fhir.hospital.test", "9"]),
    ];
    let policy = only(&["two.allowed.test", "fhir.hospital.test"]);
    let (ran, results) = Run::new(&lab).policy(policy).steps(&steps);
    // Each expansion of an allowed name goes out, or glibc would never come to the name itself.
    assert!(
        lab.dns().was_asked("fhir.hospital.test.corp.test") && lab.dns().was_asked("fhir.hospital.test.allowed.test")
    );
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [0, 0, 0, 0], "{results:?}\n{ran}");
    assert!(results.iter().all(|r| r.took < AT_ONCE), "{results:?}\n{ran}");
    assert_eq!(ran.one(HOSPITAL, 443).evidence, Evidence::DnsSni, "{ran}");
    assert_eq!(ran.one(ALLOWED, 9).host.as_deref(), Some("two.allowed.test"), "{ran}");
    ran.passed();
}

#[test]
fn a_search_expansion_may_be_asked_and_binds_nothing() {
    let lab = Lab::builder()
        .search(&["corp.test"])
        .option("ndots:5")
        .name("fhir.hospital.test.corp.test", Entry::new().a(EVIL));
    let Some(lab) = started(lab) else { return };
    if !have("python3") {
        return skip("python3 is not installed");
    }
    let ran =
        Run::new(&lab).policy(only(&["fhir.hospital.test"])).python("lookup_connect.py", &["fhir.hospital.test", "9"]);
    assert!(lab.dns().was_asked("fhir.hospital.test.corp.test"), "{ran}");
    assert_eq!((ran.code(), ran.errno().as_deref()), (Some(1), Some("EPERM")), "{ran}");
    nothing_arrived(&lab, &ran);
    assert!(ran.to(EVIL, 9).iter().all(|d| d.evidence == Evidence::None && d.action == Action::Block), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

#[test]
fn an_ipv6_resolver_is_believed() {
    let Some(lab) = started(Lab::builder().resolvers(&[RESOLVER_V6.into()])) else { return };
    if !lab.has_ipv6() || !have("curl") {
        return skip("this kernel has no IPv6, or there is no curl");
    }
    let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).command(&[
        "curl",
        "-4",
        "-sS",
        "https://api.allowed.test/",
    ]);
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 443).evidence, Evidence::DnsSni, "{ran}");
    assert_eq!(ran.report.coverage.resolvers, [RESOLVER_V6.to_string()]);
}

#[test]
fn the_second_resolver_is_believed_when_the_first_is_not_there() {
    let Some(lab) = lab_with(&["curl"]) else { return };
    lab.set_resolv_conf(&format!("nameserver {NAMELESS}\nnameserver {RESOLVER_TWO}\n")).expect("resolv.conf");
    let ran = Run::new(&lab).policy(only(&["api.allowed.test:443"])).command(&[
        "curl",
        "-4",
        "-sS",
        "https://api.allowed.test/",
    ]);
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 443).evidence, Evidence::DnsSni, "{ran}");
}

#[test]
fn two_resolvers_in_turn_are_both_believed() {
    let Some(lab) = started(Lab::builder().option("rotate")) else { return };
    if !have("python3") {
        return skip("python3 is not installed");
    }
    let script = "import socket\n\
        for n in range(12):\n\
        \x20   socket.create_connection((f'n{n}.fresh.test', 9), 5).close()\n";
    let ran = Run::new(&lab).policy(only(&["*.fresh.test:9"])).command(&[support::python(), "-c", script]);
    ran.passed();
    let to: std::collections::BTreeSet<_> = lab.dns().queries().iter().map(|q| q.to.ip()).collect();
    assert_eq!(to, [RESOLVER.into(), RESOLVER_TWO.into()].into(), "{ran}");
    assert_eq!(arrived(&lab).len(), 12, "{ran}");
}

#[test]
fn answers_of_a_server_that_is_no_resolver_of_the_target_bind_nothing() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    lab.set_resolv_conf(&format!("nameserver {RESOLVER}\n")).expect("resolv.conf");
    let two = RESOLVER_TWO.to_string();
    let policy = only(&["*.fresh.test", "udp/203.0.113.54:53"]);
    let ran = Run::new(&lab).policy(policy).python("fresh_names.py", &["3", &two, "9"]);
    assert_eq!((ran.json()["refused"].as_u64(), ran.json()["unresolved"].as_u64()), (Some(3), Some(0)), "{ran}");
    nothing_arrived(&lab, &ran);
    ran.verdict(Verdict::Fail);
}

/// Asks for these forgeries, and finds that nothing of what came was believed.
fn binds_nothing(forgeries: &[Forgery]) {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let (resolver, evil) = (RESOLVER.to_string(), EVIL.to_string());
    let names: Vec<String> = forgeries.iter().map(|forgery| format!("{}.hostile.test", forgery.label())).collect();
    let arguments: Vec<&str> = [&*resolver, &evil, "9"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let ran =
        Run::new(&lab).policy(only(&["*.hostile.test", "api.allowed.test"])).python("hostile_names.py", &arguments);
    let answer = ran.json();
    assert_eq!(answer["reached"], serde_json::json!([]), "{ran}");
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert!(names.iter().all(|name| answer["heard"][name].as_u64() > Some(0)), "an answer did not come: {answer}");
    nothing_arrived(&lab, &ran);
    assert!(ran.to(EVIL, 9).iter().all(|d| d.action == Action::Block && d.evidence == Evidence::None), "{ran}");
    ran.verdict(Verdict::Fail).no_gaps();
}

/// Answers to the right question whose records are about somebody else.
const OTHER_OWNERS: [Forgery; 2] = [Forgery::OtherOwner, Forgery::ForgedExtra];

#[test]
fn hostile_answers_bind_nothing() {
    let others: Vec<_> = Forgery::ALL.into_iter().filter(|forgery| !OTHER_OWNERS.contains(forgery)).collect();
    binds_nothing(&others);
}

#[test]
fn records_about_another_name_bind_nothing() {
    binds_nothing(&OTHER_OWNERS);
}

/// A name as it is written in a message, without compression.
fn written(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// An answer to a query for an address, whose names are all written out: an alias in another case, then its address.
fn without_compression(query: &[u8]) -> Vec<Vec<u8>> {
    let Some(end) = query.iter().skip(12).position(|b| *b == 0).map(|n| 12 + n + 1) else { return Vec::new() };
    let (name, kind) = (&query[12..end], &query[end..end + 4]);
    if kind != [0, 1, 0, 1] {
        return Vec::new();
    }
    let target = written("Edge.CDN.test");
    let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0], name, kind].concat();
    answer.extend(name.to_ascii_uppercase());
    answer.extend([0, 5, 0, 1, 0, 0, 0, 30, 0, target.len() as u8]);
    answer.extend(&target);
    answer.extend(written("edge.cdn.test"));
    answer.extend([0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
    answer.extend(ALLOWED.octets());
    vec![answer]
}

#[test]
fn answers_without_compression_are_believed() {
    let entry = Entry::new().a(HONEST).behaviour(Behaviour::Raw(Forger::new(without_compression)));
    let Some(lab) = started(Lab::builder().name("plain.allowed.test", entry)) else { return };
    if !have("python3") {
        return skip("python3 is not installed");
    }
    let name = "plain.allowed.test";
    let ran = Run::new(&lab).policy(only(&[name])).python("lookup_connect.py", &[name, "9", "--expect", "1"]);
    ran.passed();
    assert_eq!(ran.one(ALLOWED, 9).host.as_deref(), Some(name), "{ran}");
}

#[test]
fn hostile_answers_do_not_lead_the_c_library_anywhere() {
    let Some(lab) = started(Lab::builder().option("timeout:1").option("attempts:1")) else { return };
    if !have("python3") {
        return skip("python3 is not installed");
    }
    let quick = [
        Forgery::OtherOwner,
        Forgery::ForgedExtra,
        Forgery::ForgedAdditional,
        Forgery::PointerLoop,
        Forgery::LongRdlength,
        Forgery::WrongClass,
        Forgery::NxWithRecord,
    ];
    let steps: Vec<_> = quick
        .iter()
        .map(|forgery| python_step("lookup_connect.py", &[&format!("{}.hostile.test", forgery.label()), "9"]))
        .collect();
    let (ran, _) = Run::new(&lab).policy(only(&["*.hostile.test"])).deadline(Duration::from_secs(90)).steps(&steps);
    let far = arrived(&lab);
    assert!(far.iter().all(|a| a.local.ip() == HONEST), "{far:?}\n{ran}");
    assert!(ran.to(EVIL, 9).iter().all(|d| d.action == Action::Block), "{ran}");
}

#[test]
fn queries_reach_the_resolver_over_the_transport_that_was_used() {
    let Some(lab) = lab() else { return };
    let ran = Run::new(&lab).policy(only(&["two.allowed.test"])).command(&["getent", "ahostsv4", "two.allowed.test"]);
    ran.passed();
    let asked = lab.dns().queries();
    assert!(asked.iter().all(|q| q.transport == Transport::Udp && q.to.ip() == RESOLVER), "{asked:?}\n{ran}");
    assert!(ran.report.destinations.is_empty(), "a lookup is no connection\n{ran}");
}

#[test]
fn an_answer_binds_for_its_ttl_and_one_beyond_31_bits_counts_as_none() {
    // RFC 2181 8; no address is another test's, since the map of any session is asked.
    let cases: [(&str, u32, [u8; 4], i64); 4] = [
        ("day.ttl.test", 86_400, [100, 127, 77, 1], 86_400),
        ("most.ttl.test", i32::MAX.unsigned_abs(), [100, 127, 77, 2], i64::from(i32::MAX)),
        ("beyond.ttl.test", 1 << 31, [100, 127, 77, 3], 60),
        ("last.ttl.test", u32::MAX, [100, 127, 77, 4], 60),
    ];
    let builder = cases
        .into_iter()
        .fold(Lab::builder(), |b, (name, ttl, address, _)| b.name(name, Entry::new().a(address.into()).ttl(ttl)));
    let Some(lab) = started(builder) else { return };
    if !have("python3") {
        skip("python3 is not installed");
        return;
    }
    let names = cases.map(|c| c.0);
    let ran = Run::new(&lab).policy(only(&["*.ttl.test:80"])).option("--observe").python("bindings.py", &names);
    assert_eq!(ran.code(), Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let lives = ran.json();
    for (name, _, _, wanted) in cases {
        let life = lives[name].as_i64().unwrap_or_default();
        assert!(life <= wanted && life > wanted - 30, "{name}: {life} s, not {wanted}");
    }
}
