//! The client programs of the agent's integration tests, in the lab without TrustRun: each of them works here, so that
//! a refusal elsewhere is TrustRun's.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::{Ran, lab_with, run};
use trustrun_lab::{ALLOWED, EVIL, HOSPITAL, Lab, MULTICAST_V4, Service, UNREACHABLE, skip};

fn client(lab: &Lab, name: &str, arguments: &[&str]) -> Ran {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients").join(name);
    let program = if name.ends_with(".mjs") { "node" } else { "python3" };
    let ran = run(lab.command(program).arg(script).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1"));
    assert!(lab.settle(Duration::from_secs(10)), "{name}: {:?}", lab.arrived().last());
    ran
}

/// The client must succeed; false when it says that this machine cannot do it.
fn works(lab: &Lab, name: &str, arguments: &[&str]) -> bool {
    let ran = client(lab, name, arguments);
    if ran.code == Some(3) {
        skip(&format!("{name} {}: {}", arguments.join(" "), ran.stdout.trim()));
        return false;
    }
    assert_eq!(ran.code, Some(0), "{name} {arguments:?}: {} {}", ran.stdout, ran.stderr);
    true
}

#[test]
fn every_kind_of_tcp_socket_reaches_the_sink() {
    let Some(lab) = lab_with("python3") else { return };
    let address = EVIL.to_string();
    for kind in ["tcp", "mapped", "nonblocking", "fastopen", "fastopen-connect", "mptcp"] {
        lab.clear();
        if works(&lab, "socket_kinds.py", &[kind, &address, "9"]) {
            assert!(lab.arrived_at(EVIL).iter().any(|arrival| arrival.bytes == 5), "{kind}: {:?}", lab.arrived());
        }
    }
}

#[test]
fn every_kind_of_datagram_reaches_the_sink() {
    let Some(lab) = lab_with("python3") else { return };
    let (evil, multicast) = (EVIL.to_string(), MULTICAST_V4.to_string());
    for (kind, to, port) in [
        ("udp-connect", evil.as_str(), "9"),
        ("udp-sendto", &evil, "9"),
        ("udp-sendmsg", &evil, "9"),
        ("udp-mapped", &evil, "9"),
        ("udp-large", &evil, "9"),
        ("udp-from-53", &evil, "9"),
        ("udp-echo", &evil, "7"),
        ("udp-sendto", "2001:db8::66", "9"),
        ("ip-hdrincl", &evil, "9"),
        ("packet", &evil, "9"),
        ("multicast", &multicast, "9999"),
        ("multicast", "ff05::1234", "9999"),
    ] {
        lab.clear();
        if works(&lab, "socket_kinds.py", &[kind, to, port]) {
            assert!(
                lab.arrived().iter().any(|a| a.local.ip().to_string() == to && a.bytes >= 5),
                "{kind} {to}: {:?}",
                lab.arrived()
            );
        }
    }
    works(&lab, "socket_kinds.py", &["udp-two-peers", "203.0.113.10,203.0.113.66", "9"]);
    for kind in ["icmp-raw", "ping-socket", "udplite", "sctp"] {
        // Nobody listens for these; that they leave is all that can be said here.
        let ran = client(&lab, "socket_kinds.py", &[kind, &evil, "9"]);
        assert!(matches!(ran.code, Some(0 | 1 | 3)), "{kind}: {}", ran.stderr);
    }
}

#[test]
fn an_unreachable_address_is_reported_with_its_errno() {
    let Some(lab) = lab_with("python3") else { return };
    let ran = client(&lab, "socket_kinds.py", &["tcp", &UNREACHABLE.to_string(), "443"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("\"errno\": \"ENETUNREACH\""), "{}", ran.stdout);
}

#[test]
fn every_kind_of_process_connects() {
    let Some(lab) = lab_with("python3") else { return };
    for kind in ["plain", "thread", "fork", "double-fork", "exec-chain", "short", "renamed"] {
        lab.clear();
        assert!(works(&lab, "processes.py", &[kind, &HOSPITAL.to_string(), "9"]), "{kind}");
        assert_eq!(lab.arrived_at(HOSPITAL).len(), 1, "{kind}");
    }
}

#[test]
fn many_short_programs_all_arrive() {
    let Some(lab) = lab_with("python3") else { return };
    assert!(works(&lab, "many_short.py", &["300", &HOSPITAL.to_string(), "9"]));
    assert_eq!(lab.arrived_at(HOSPITAL).len(), 300);
}

#[test]
fn fresh_names_are_asked_and_connected_to() {
    let Some(lab) = lab_with("python3") else { return };
    let ran = client(&lab, "fresh_names.py", &["5000", "203.0.113.53", "80"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    eprintln!("{}", ran.stdout);
    assert_eq!((lab.arrived().len(), lab.dns().queries().len()), (5000, 5000));
}

#[test]
fn a_client_hello_in_pieces_is_still_one() {
    let Some(lab) = lab_with("python3") else { return };
    let address = ALLOWED.to_string();
    let base = [address.as_str(), "443", "two.allowed.test"];
    for options in [
        &[][..],
        &["--after", "1"],
        &["--after", "1,4,5"],
        &["--every", "1"],
        &["--records", "2"],
        &["--records", "3", "--after", "3,200"],
        &["--pad", "1600"],
        &["--pad", "8000", "--every", "700"],
        &["--pad", "3000", "--sni-last"],
        &["--pad", "3000", "--sni-last", "--records", "2", "--after", "1,1500"],
    ] {
        lab.clear();
        assert!(works(&lab, "client_hello.py", &[&base, options].concat()));
        assert_eq!(lab.arrived()[0].sni.as_deref(), Some("two.allowed.test"), "{options:?}");
    }
    lab.clear();
    assert!(works(&lab, "client_hello.py", &[&address, "443", ""]));
    assert_eq!(lab.arrived()[0].sni, None);
}

#[test]
fn one_connection_carries_many_requests() {
    let Some(lab) = lab_with("python3") else { return };
    let ran = client(&lab, "https_many.py", &["2000", "api.allowed.test", "/bytes/100"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    eprintln!("{}", ran.stdout);
    assert_eq!((lab.arrived().len(), lab.arrived()[0].requests), (1, 2000));
}

#[test]
fn asyncio_fetches_several_hosts() {
    let Some(lab) = lab_with("python3") else { return };
    assert!(works(&lab, "asyncio_fetch.py", &["api.allowed.test", "fhir.hospital.test", "cname.allowed.test"]));
    assert!(lab.arrived().iter().any(|arrival| arrival.sni.as_deref() == Some("fhir.hospital.test")));
}

#[test]
fn proxies_are_asked_whole_and_in_pieces() {
    let Some(lab) = lab_with("python3") else { return };
    for (kind, port) in [("connect", "3128"), ("absolute", "3128"), ("socks5", "1080"), ("socks4a", "1080")] {
        for every in ["0", "3"] {
            lab.clear();
            let to = ["proxy.allowed.test", port, "fhir.hospital.test", "80", "--every", every];
            assert!(works(&lab, "proxy_ask.py", &[&[kind], &to[..]].concat()), "{kind}");
            assert_eq!(lab.arrived()[0].host.as_deref(), Some("fhir.hospital.test:80"), "{kind}");
            assert!(matches!(lab.arrived()[0].service, Service::HttpProxy | Service::SocksProxy));
        }
    }
}

#[test]
fn a_notebook_works_on_loopback_and_its_kernel_fetches() {
    let Some(lab) = lab_with("python3") else { return };
    assert!(works(&lab, "notebook.py", &[]));
    assert!(lab.arrived().is_empty());
    assert!(works(&lab, "notebook.py", &["https://fhir.hospital.test/"]));
    assert_eq!(lab.arrived_at(HOSPITAL).len(), 1);
}

#[test]
fn node_fetches_and_resolves() {
    let Some(lab) = lab_with("node") else { return };
    assert!(works(&lab, "fetch.mjs", &["https://api.allowed.test/", "http://two.allowed.test/bytes/7"]));
    assert!(works(&lab, "resolve.mjs", &["two.allowed.test", "cname.allowed.test"]));
    let ran = client(&lab, "resolve.mjs", &["nowhere.test"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("ENOTFOUND"), "{}", ran.stdout);
}
