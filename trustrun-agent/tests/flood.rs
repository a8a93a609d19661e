//! Floods: what is too much is refused and counted, what was allowed before keeps working, and nothing lost ever passes.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

mod harness;
mod support;

use std::time::{Duration, Instant};

use harness::{Case, FarEnd, Parts, Ran, have, status};
use support::{Run, lab_with, nothing_arrived, only};
use trustrun_lab::{RESOLVER, wait_until};
use trustrun_model::Verdict;

/// Addresses that the kernel binds to names: `BINDINGS` in trustrun-ebpf/src/maps.rs.
const BINDINGS: usize = 1 << 17;
/// UDP peers that it remembers: `DATAGRAMS`.
const DATAGRAMS: usize = 1 << 17;
/// First payloads that it gathers from pieces: `GATHER`.
const GATHER: usize = 512;
/// Sockets that are open at once: `SOCKETS`.
const SOCKETS: u64 = 1 << 16;
/// Places where the session listens: `LISTENERS`.
const LISTENERS: u64 = 1 << 12;
/// Connections of the flood; `TRUSTRUN_FLOOD` makes it another number.
const CONNECTIONS: u64 = 1_000_000;

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
import errno, json, os, socket, sys, time
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
fn balanced(ran: &Ran) -> (u64, u64) {
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
while not os.path.exists("measured"):
    time.sleep(0.02)
"#,
        refused = refused.port(),
        allowed = allowed.port()
    );
    let began = Instant::now();
    let mut running = case.start(&["python3", "-c", &script]);
    assert!(wait_until(LONG, || allowed.arrived() == 1 || !running.lives()), "the flood does not end");
    let took = began.elapsed();
    let parts = Parts::of(running.id());
    let [guard, engine] = [parts.guard, parts.engine].map(|pid| status(pid, "RssAnon"));
    case.file("measured", "");
    let ran = running.end_within(LONG);
    assert_eq!(ran.exits(0).out(), format!("[{{\"EPERM\": {number}}}, \"through\"]\n"));
    assert_eq!(refused.arrived(), 0);
    let (emitted, dropped) = balanced(&ran);
    let told: u64 = destinations(&ran, refused.port()).iter().map(|d| d["connections"].as_u64().unwrap()).sum();
    let lost = ran.report()["counters"]["dropped"]["ring"].as_u64().unwrap_or(0);
    eprintln!(
        "{number} connections in {took:.1?}, {emitted} events, {dropped} dropped ({lost} by the ring); memory of \
         their own: guard {guard}, engine {engine}"
    );
    assert!(told <= number && told + lost >= number, "{told} of {number}, {lost} lost");
    assert_eq!(ran.report()["verdict"], "fail");
    // They are one destination, so that they cost no memory each.
    let kilobytes = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(kilobytes(&guard) < 100_000 && kilobytes(&engine) < 400_000, "{guard} {engine}");
}

/// The destinations of a report with this port.
fn destinations(ran: &Ran, port: u16) -> Vec<&serde_json::Value> {
    ran.report()["destinations"].as_array().unwrap().iter().filter(|d| d["port"] == port).collect()
}

/// How many a gap counts; 0 where it is not there.
fn counted(ran: &Ran, kind: &str) -> u64 {
    let gaps = ran.report()["gaps"].as_array().unwrap();
    gaps.iter().find(|g| g["kind"] == kind).map_or(0, |g| g["count"].as_u64().unwrap())
}

/// Python that opens `pairs` connections to listeners of its own and keeps both ends open, in as many processes as that
/// takes with the files that each may have. Then it asks whether the first of each process still works, and whether
/// `allowed` can be reached and `refused` cannot: with the table full, and with room again.
fn many_sockets(pairs: u64, allowed: u16, refused: u16) -> String {
    format!(
        r#"{CLIENT}
EACH = 5000
def work(pairs, gate, out):
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(4096)
    ends, felt = [], {{}}
    for n in range(pairs):
        client = socket.socket()
        client.settimeout(20)
        try:
            client.connect(server.getsockname())
            ends.append((client, server.accept()[0]))
            result = "through"
        except PermissionError:
            result = "EPERM"
        felt[result] = felt.get(result, 0) + 1
    os.write(out, b"ready\n")
    os.read(gate, 1)
    old = None
    if ends:
        client, accepted = ends[0]
        client.sendall(b"old")
        accepted.settimeout(20)
        old = accepted.recv(3).decode()
    os.write(out, (json.dumps([felt, old]) + "\n").encode())
gate, out = os.pipe(), os.pipe()
counts = [min(EACH, {pairs} - start) for start in range(0, {pairs}, EACH)]
said = os.fdopen(out[0])
for pairs in counts:
    if os.fork() == 0:
        os.close(gate[1])
        work(pairs, gate[0], out[1])
        os._exit(0)
    assert said.readline() == "ready\n"
full = [tcp({allowed}), tcp({refused})]
os.close(gate[1])
felt, old = {{}}, []
for _ in counts:
    f, o = json.loads(said.readline())
    old.append(o)
    for result in f:
        felt[result] = felt.get(result, 0) + f[result]
    os.wait()
print(json.dumps([felt, sorted(set(o for o in old if o)), full, [tcp({allowed}), tcp({refused})]]))
"#
    )
}

#[test]
fn when_sockets_are_full_new_ones_are_refused_and_old_ones_work() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let (allowed, refused) = (FarEnd::new(), FarEnd::new());
    let case = case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())]));
    let script = many_sockets(50_000, allowed.port(), refused.port());
    let ran = case.start(&["python3", "-c", &script]).end_within(LONG);
    let said: serde_json::Value = serde_json::from_str(&ran.exits(0).out()).unwrap();
    // The listeners are sockets as well.
    let through = said[0]["through"].as_u64().unwrap();
    assert!((SOCKETS / 2 - 10..=SOCKETS / 2).contains(&through), "{said}");
    assert_eq!(said[0]["EPERM"], 50_000 - through, "{said}");
    assert_eq!(
        (&said[1], &said[2]),
        (&serde_json::json!(["old"]), &serde_json::json!(["EPERM", "EPERM"])),
        "what was open works"
    );
    assert_eq!(said[3], serde_json::json!(["through", "EPERM"]), "where there is room again");
    assert_eq!((allowed.arrived(), refused.arrived()), (1, 0));
    balanced(&ran);
    assert!(counted(&ran, "sockets-not-kept") >= 50_000 - through, "{}", ran.report()["gaps"]);
    assert_ne!(ran.report()["verdict"], "pass");
    // What was refused for want of room is told so, and the policy is not blamed for it.
    let told = destinations(&ran, allowed.port());
    assert!(told.iter().any(|d| d["action"] == "block" && d["rule"] == "table full"), "{told:?}");
    let violations = ran.report()["violations"].as_array().unwrap();
    assert!(violations.iter().all(|v| v["port"] == refused.port()), "{violations:?}");
}

#[test]
fn with_a_larger_table_a_hundred_thousand_sockets_are_open_at_once() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let allowed = FarEnd::new();
    let case = case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())]));
    let script = many_sockets(50_000, allowed.port(), allowed.port());
    let ran = case.with(&["--table", "SOCKETS=131072"]).start(&["python3", "-c", &script]).end_within(LONG);
    let said: serde_json::Value = serde_json::from_str(&ran.exits(0).out()).unwrap();
    assert_eq!(said, serde_json::json!([{"through": 50_000}, ["old"], ["through", "through"], ["through", "through"]]));
    assert_eq!(balanced(&ran).1, 0);
    assert_eq!((ran.report()["verdict"].as_str(), ran.gaps()), (Some("pass"), Vec::new()), "{}", ran.stderr);
}

#[test]
fn when_sockets_are_full_and_nothing_is_refused_the_verdict_is_incomplete() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let allowed = FarEnd::new();
    let case =
        case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())])).with(&["--observe", "--run-as", "nobody"]);
    let script = many_sockets(300, allowed.port(), allowed.port());
    let ran = case.with(&["--table", "SOCKETS=200"]).run(&["python3", "-c", &script]);
    let said: serde_json::Value = serde_json::from_str(&ran.exits(0).out()).unwrap();
    assert_eq!(said, serde_json::json!([{"through": 300}, ["old"], ["through", "through"], ["through", "through"]]));
    assert!(counted(&ran, "sockets-not-kept") >= 400, "{}", ran.report()["gaps"]);
    ran.verdict("incomplete");
    assert_eq!(ran.gaps(), ["sockets-not-kept"]);
    balanced(&ran);
}

#[test]
fn when_listeners_are_full_the_earlier_are_reached_and_the_later_judged_like_others() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let (allowed, refused) = (FarEnd::new(), FarEnd::new());
    let case = case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())]));
    let script = format!(
        r#"{CLIENT}
def listener():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    return s
def reach(s):
    return tcp(s.getsockname()[1])
many = [listener() for _ in range({more})]
full = [reach(many[0]), reach(many[{last}]), reach(many[-1])]
many[0].close()
print(json.dumps([full, reach(listener()), tcp({allowed}), tcp({refused})]))
"#,
        more = LISTENERS + 100,
        last = LISTENERS - 1,
        allowed = allowed.port(),
        refused = refused.port()
    );
    let ran = case.start(&["python3", "-c", &script]).end_within(LONG);
    let wanted = r#"[["through", "through", "EPERM"], "through", "through", "EPERM"]"#;
    assert_eq!(ran.exits(0).out().trim_end(), wanted);
    assert_eq!((allowed.arrived(), refused.arrived()), (1, 0));
    assert_eq!(counted(&ran, "listeners-not-kept"), 100, "{}", ran.report()["gaps"]);
    balanced(&ran);
    ran.verdict("fail");
}

#[test]
fn when_processes_are_full_the_verdict_is_incomplete_and_blocked_stays_blocked() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let (allowed, refused) = (FarEnd::new(), FarEnd::new());
    let case = case.policy(&only(&[&format!("127.0.0.1:{}", allowed.port())]));
    // The real table holds 65,536; more processes than that are more than most machines allow.
    let case = case.with(&["--table", "TASKS=16"]);
    let script = |port: u16| {
        format!(
            r#"{CLIENT}
gate, out = os.pipe(), os.pipe()
for _ in range(100):
    if os.fork() == 0:
        os.close(gate[1])
        os.read(gate[0], 1)
        os.write(out[1], (tcp({port}) + "\n").encode())
        os._exit(0)
os.close(gate[1])
os.close(out[1])
lines = open(out[0]).read().split()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
print(json.dumps(sorted(set(lines)) + [len(lines)]))
"#
        )
    };
    let ran = case.run(&["python3", "-c", &script(allowed.port())]);
    assert_eq!(ran.exits(0).out(), "[\"through\", 100]\n");
    assert_eq!(allowed.arrived(), 100);
    assert!(counted(&ran, "processes-not-kept") >= 80, "{}", ran.report()["gaps"]);
    // Without the loss this would be a pass.
    ran.verdict("incomplete");
    assert_eq!(ran.gaps(), ["processes-not-kept"]);
    let ran = case.run(&["python3", "-c", &script(refused.port())]);
    assert_eq!((ran.exits(0).out().as_str(), refused.arrived()), ("[\"EPERM\", 100]\n", 0));
    ran.verdict("fail");
}
