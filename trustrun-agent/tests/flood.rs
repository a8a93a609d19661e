//! Floods: what is too much is refused and counted, what was allowed before keeps working, and nothing lost ever passes.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;
mod support;

use std::time::Duration;

use harness::{Case, FarEnd, have};
use support::{Run, lab_with, nothing_arrived, only};
use trustrun_lab::RESOLVER;
use trustrun_model::Verdict;

/// Addresses that the kernel binds to names: `BINDINGS` in trustrun-ebpf/src/maps.rs.
const BINDINGS: usize = 1 << 17;
/// UDP peers that it remembers: `DATAGRAMS`.
const DATAGRAMS: usize = 1 << 17;
/// First payloads that it gathers from pieces: `GATHER`.
const GATHER: usize = 512;
/// Connections of the flood; `TRUSTRUN_FLOOD` makes it another number.
const CONNECTIONS: u64 = 200_000;

const LONG: Duration = Duration::from_secs(300);

#[test]
fn when_bindings_are_full_new_names_are_refused_and_old_ones_work() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let names = (BINDINGS + 2000).to_string();
    // Port 99: nobody listens, and who is let through is reset.
    let run = Run::new(&lab).policy(only(&["*.fresh.test:99"])).deadline(LONG);
    let ran = run.python("flood_names.py", &[&names, &RESOLVER.to_string(), "99"]);
    eprintln!("{:?}, {}", ran.took, ran.stdout.trim());
    assert_eq!(ran.code(), Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let said = ran.json();
    assert_eq!(said["answered"], BINDINGS + 2000, "{}", ran.stdout);
    assert_eq!((&said["first_again"], &said["last"]), (&100.into(), &0.into()), "{}", ran.stdout);
    assert!(ran.gap("names-not-bound") >= 2000, "{:?}", ran.report.gaps);
    assert_eq!(ran.report.verdict, Verdict::Fail, "what was not bound was refused: {:?}", ran.report.gaps);
    assert_eq!(ran.gap("decision-mismatch"), 0, "a refusal that is explained: {:?}", ran.report.gaps);
    nothing_arrived(&lab, &ran);
}

#[test]
fn when_first_payloads_in_pieces_are_too_many_the_rest_is_refused() {
    let Some(lab) = lab_with(&["python3"]) else { return };
    let run = Run::new(&lab).policy(only(&["api.allowed.test:443"])).deadline(LONG);
    let count = (GATHER + 100).to_string();
    let ran = run.python("flood_hellos.py", &[&count, "api.allowed.test", "443"]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    let said = ran.json();
    let refused = said["refused"].as_u64().unwrap();
    assert!((100..=GATHER as u64 + 100).contains(&refused), "{}", ran.stdout);
    assert_eq!(said["after"], "ok", "{}", ran.stdout);
    assert_eq!(ran.gap("hello-not-gathered"), refused, "{:?}", ran.report.gaps);
    assert_ne!(ran.report.verdict, Verdict::Pass);
}

const CLIENT: &str = r#"
import errno, json, os, socket, sys
def tcp(port):
    with socket.socket() as s:
        try:
            s.connect(("127.0.0.1", port))
            return "through"
        except ConnectionRefusedError:
            return "through"
        except OSError as e:
            return errno.errorcode[e.errno]
"#;

/// The counters balance, and what was dropped is a gap.
#[track_caller]
fn balanced(ran: &harness::Ran) -> (u64, u64) {
    let counters = &ran.report()["counters"];
    let count = |v: &serde_json::Value| v.as_u64().unwrap();
    let dropped: u64 = counters["dropped"].as_object().unwrap().values().map(count).sum();
    assert_eq!(count(&counters["emitted"]), count(&counters["stored"]) + dropped, "{counters}");
    assert!(dropped == 0 || !ran.gaps().is_empty(), "{counters}");
    (count(&counters["emitted"]), dropped)
}

#[test]
fn when_udp_peers_are_full_new_ones_are_refused_and_old_ones_work() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let allowed = FarEnd::new();
    let rules = format!("rules:\n  - allow: [\"udp/127.0.0.0/8\", \"127.0.0.1:{}\"]\n", allowed.port());
    let case = case.policy(&format!("version: 1\nname: udp\ndefault: block\n{rules}"));
    let script = format!(
        r#"{CLIENT}
u = socket.socket(type=socket.SOCK_DGRAM)
sent = refused = 0
for n in range({peers}):
    try:
        u.sendto(b"x", (f"127.0.0.{{1 + n // 60000}}", 2000 + n % 60000))
        sent += 1
    except PermissionError:
        refused += 1
old = 0
for n in range(1000):
    u.sendto(b"y", ("127.0.0.1", 2000 + n))
    old += 1
other = socket.socket(type=socket.SOCK_DGRAM)
try:
    other.sendto(b"z", ("127.0.0.9", 9))
    new = "through"
except PermissionError:
    new = "EPERM"
u.close()
other.close()
print(json.dumps([sent, refused, old, new, tcp({port})]))
"#,
        peers = DATAGRAMS + 3000,
        port = allowed.port()
    );
    let ran = case.start(&["python3", "-c", &script]).end_within(LONG);
    let said: Vec<serde_json::Value> = serde_json::from_str(&ran.exits(0).out()).unwrap();
    assert_eq!(said[0], DATAGRAMS, "{said:?}");
    assert_eq!((&said[1], &said[2]), (&3000.into(), &1000.into()));
    assert_eq!((&said[3], &said[4]), (&"EPERM".into(), &"through".into()));
    assert_eq!(allowed.arrived(), 1);
    balanced(&ran);
    assert!(ran.gaps().contains(&"datagrams-not-kept".to_owned()), "{}", ran.report()["gaps"]);
    assert_ne!(ran.report()["verdict"], "pass");
}

#[test]
fn a_flood_of_connections_lets_none_through_that_is_refused_and_accounts_for_each() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let (allowed, refused) = (FarEnd::new(), FarEnd::new());
    let number = std::env::var("TRUSTRUN_FLOOD").ok().and_then(|n| n.parse().ok()).unwrap_or(CONNECTIONS);
    let case = case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())]));
    let script = format!(
        r#"{CLIENT}
felt = {{}}
for n in range({number}):
    result = tcp({refused})
    felt[result] = felt.get(result, 0) + 1
print(json.dumps([felt, tcp({allowed})]))
"#,
        refused = refused.port(),
        allowed = allowed.port()
    );
    let ran = case.start(&["python3", "-c", &script]).end_within(4 * LONG);
    assert_eq!(ran.exits(0).out(), format!("[{{\"EPERM\": {number}}}, \"through\"]\n"));
    assert_eq!((allowed.arrived(), refused.arrived()), (1, 0));
    let (emitted, dropped) = balanced(&ran);
    let destinations = ran.report()["destinations"].as_array().unwrap();
    let there = destinations.iter().filter(|d| d["port"] == refused.port());
    let told: u64 = there.map(|d| d["connections"].as_u64().unwrap()).sum();
    let lost = ran.report()["counters"]["dropped"]["ring"].as_u64().unwrap_or(0);
    eprintln!("{number} connections, {emitted} events, {dropped} dropped ({lost} by the ring)");
    assert!(told <= number && told + lost >= number, "{told} of {number}, {lost} lost");
    assert_eq!(ran.report()["verdict"], "fail");
}
