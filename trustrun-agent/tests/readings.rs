//! First payloads that one program reads otherwise than another: the kernel takes them as their receiver may, or refuses.

#[path = "support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use support::{Ran, Run, started, text};
use trustrun_lab::{Entry, Lab};
use trustrun_model::Verdict;

/// Granted by an address rule, as proxies often are.
const BY_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 80);
/// Granted by its name, `proxy.model.test`.
const BY_NAME: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 81);
const PORT: u16 = 4443;

const POLICY: &str = "version: 1\nname: readings\ndefault: block\nrules:\n  - allow: [\"100.127.255.80:4443\", \
    \"proxy.model.test:4443\", \"*.good.test\", \"198.51.100.0/24\", \"2001:db8:1::/48\"]\n  \
    - block: [\"bad.good.test\", \"198.51.100.66\"]\n";

/// Segments as Latin-1, so that every octet can be written.
type Stream = Vec<String>;

/// Takes one segment at a time and says so.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let _ = client.set_nonblocking(false);
        let _ = client.set_read_timeout(Some(Duration::from_secs(10)));
        let mut buffer = [0; 4096];
        while matches!(client.read(&mut buffer), Ok(n) if n > 0) && client.write_all(b"+").is_ok() {}
    }
}

/// Sends each stream to a destination; which went through whole.
fn send(lab: &Lab, to: Ipv4Addr, streams: &[Stream]) -> (Ran, Vec<bool>) {
    let hex = |segment: &String| {
        segment.chars().fold(String::new(), |mut line, c| {
            let _ = write!(line, "{:02x}", u8::try_from(u32::from(c)).expect("Latin-1"));
            line
        })
    };
    let line = |s: &Stream| format!("{to} {PORT} {}\n", s.iter().map(hex).collect::<Vec<_>>().join(","));
    let file = lab.folder().join("streams");
    std::fs::write(&file, streams.iter().map(line).collect::<String>()).expect("a file");
    let listener = lab.inside(|| TcpListener::bind(("0.0.0.0", PORT))).expect("inside").expect("a listener");
    listener.set_nonblocking(true).expect("non-blocking");
    let stop = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &stop));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Run::new(lab).policy(POLICY).python("segments.py", &[&text(&file), "proxy.model.test"])
        }));
        stop.store(true, Ordering::Relaxed);
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(ran.code(), Some(0), "{ran}");
    let through: Vec<bool> = ran.json()["results"].as_array().expect("results").iter().map(|r| r == "o").collect();
    assert_eq!(through.len(), streams.len(), "{ran}");
    (ran, through)
}

fn lab() -> Option<Lab> {
    started(Lab::builder().name("proxy.model.test", Entry::new().a(BY_NAME)))
}

/// Each is refused, to either proxy.
fn refused(streams: &[Stream]) {
    let Some(lab) = lab() else { return };
    for to in [BY_ADDRESS, BY_NAME] {
        let (ran, through) = send(&lab, to, streams);
        let passed: Vec<_> = streams.iter().zip(through).filter(|(_, through)| *through).map(|(s, _)| s).collect();
        assert!(passed.is_empty(), "to {to}: {passed:#?}\n{ran}");
        ran.verdict(Verdict::Fail);
    }
}

/// Each goes through, to the proxy that its address grants.
fn allowed(streams: &[Stream]) {
    let Some(lab) = lab() else { return };
    let (ran, through) = send(&lab, BY_ADDRESS, streams);
    let stopped: Vec<_> = streams.iter().zip(through).filter(|(_, through)| !through).map(|(s, _)| s).collect();
    assert!(stopped.is_empty(), "{stopped:#?}\n{ran}");
}

fn one(text: impl Into<String>) -> Stream {
    vec![text.into()]
}

/// A request to a SOCKS5 proxy for a name.
fn named(name: &str) -> String {
    format!("\x05\x01\0\x03{}{name}\0P", char::from(u8::try_from(name.len()).expect("a short name")))
}

/// IPv6 addresses in network order.
const ALLOWED_V6: &str = "\x20\x01\x0d\u{b8}\0\x01\0\0\0\0\0\0\0\0\0\x07";
const OTHER_V6: &str = "\x20\x01\x0d\u{b8}\0\x02\0\0\0\0\0\0\0\0\0\x66";

#[test]
fn an_authority_that_can_be_read_in_two_ways_is_refused() {
    let hosts = [
        "evil.test?.good.test",
        "evil.test#.good.test",
        "evil.test\\.good.test",
        "evil.test%2f.good.test",
        "evil.test,.good.test",
        "api.good.test:80@evil.test",
        "api.good.test@evil.test",
        ".good.test",
        "api.good.test:",
        "api.good.test:0",
        "api.good.test:99999",
        "api.good.test:000080",
        "api.good.test:80x",
        "[2001:db8:1::7]:80",
    ];
    let mut streams = Vec::new();
    for host in hosts {
        streams.push(one(format!("GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n")));
        streams.push(one(format!("CONNECT {host} HTTP/1.1\r\n\r\n")));
        streams.push(vec!["\x05\x01\0".into(), named(host)]);
        streams.push(one(format!("\x04\x01\0P\0\0\0\x01me\0{host}\0")));
    }
    streams.push(one("CONNECT api.good.test:80/ HTTP/1.1\r\n\r\n"));
    streams.push(one("CONNECT api.good.test HTTP/1.1\r\n\r\n"));
    refused(&streams);
}

#[test]
fn a_dot_at_the_end_makes_no_other_name() {
    let refuse = ["bad.good.test.", "bad.good.test..", "evil.test.", "BAD.Good.Test."];
    let mut streams = Vec::new();
    for host in refuse {
        streams.push(one(format!("GET http://{host}/ HTTP/1.1\r\n\r\n")));
        streams.push(one(format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n")));
        streams.push(vec!["\x05\x01\0".into(), named(host)]);
    }
    refused(&streams);
    // Of an address rule only a rule on the name itself takes something away.
    let Some(lab) = lab() else { return };
    let hello = |name: &str| one(hello(name));
    let streams = [hello("bad.good.test."), hello("api.good.test."), hello("bad.good.test")];
    let (ran, through) = send(&lab, BY_ADDRESS, &streams);
    assert_eq!(through, [false, true, false], "{ran}");
    let streams = [hello("proxy.model.test."), hello("api.good.test.")];
    let (ran, through) = send(&lab, BY_NAME, &streams);
    assert_eq!(through, [true, false], "{ran}");
    allowed(&[one("CONNECT api.good.test.:443 HTTP/1.1\r\n\r\n"), one("GET http://api.good.test./ HTTP/1.1\r\n\r\n")]);
}

/// A ClientHello with nothing but a server name.
fn hello(name: &str) -> String {
    let short = |n: usize| format!("{}{}", char::from((n >> 8) as u8), char::from((n & 255) as u8));
    let n = name.len();
    let extension = format!("\0\0{}{}\0{}{name}", short(n + 5), short(n + 3), short(n));
    let random = "\x07".repeat(32);
    let body = format!("\x03\x03{random}\0\0\x02\x13\x01\x01\0{}{extension}", short(extension.chars().count()));
    let size = body.chars().count();
    format!("\x16\x03\x01{}\x01\0{}{body}", short(size + 4), short(size))
}

#[test]
fn a_socks_client_that_does_not_wait_is_read_all_the_same() {
    let auth = "\x01\x04user\x04pass";
    let mut streams = Vec::new();
    for host in ["evil.test", "bad.good.test", "198.51.100.66"] {
        let request = named(host);
        streams.push(one(format!("\x05\x01\0{request}")));
        streams.push(one(format!("\x05\x01\0{request}and more behind it")));
        streams.push(vec!["\x05\x01\0\x05".into(), request[1..].into()]);
        streams.push(one(format!("\x05\x01\x02{auth}{request}")));
        streams.push(vec![format!("\x05\x01\x02{auth}"), request.clone()]);
        streams.push(vec!["\x05\x01\x02".into(), format!("{auth}{request}")]);
    }
    refused(&streams);
    let request = named("api.good.test");
    allowed(&[
        one(format!("\x05\x01\0{request}")),
        one(format!("\x05\x01\x02{auth}{request}")),
        vec![format!("\x05\x01\x02{auth}"), request.clone()],
        vec!["\x05\x01\x02".into(), format!("{auth}{request}")],
        vec!["\x05\x01\0".into(), named("198.51.100.7")],
    ]);
}

#[test]
fn a_socks_request_for_an_ipv6_address_is_judged_by_it() {
    let to = |address: &str| vec!["\x05\x01\0".into(), format!("\x05\x01\0\x04{address}\0P")];
    let pieces = vec!["\x05\x01\0".into(), "\x05\x01\0\x04".into(), format!("{OTHER_V6}\0P")];
    let unknown = vec!["\x05\x01\0".into(), "\x05\x01\0\x02evil.test\0P".into()];
    refused(&[to(OTHER_V6), pieces, unknown]);
    allowed(&[to(ALLOWED_V6)]);
}

#[test]
fn any_method_and_blank_lines_before_it_are_read() {
    let mut refuse = Vec::new();
    let mut allow = Vec::new();
    for method in ["GET", "PROPFIND", "BASELINE-CONTROL", "VERSION-CONTROL-XXXX", "\r\nGET", "\r\n\r\nPOST", "X"] {
        refuse.push(one(format!("{method} http://evil.test/ HTTP/1.1\r\n\r\n")));
        refuse.push(one(format!("{method} HTTP://evil.test/ HTTP/1.1\r\n\r\n")));
        refuse.push(one(format!("{method} https://bad.good.test HTTP/1.1\r\n\r\n")));
        refuse.push(vec![method.into(), " ht".into(), "tp://evil.test/ HTTP/1.1\r\n\r\n".into()]);
        allow.push(one(format!("{method} http://api.good.test/ HTTP/1.1\r\n\r\n")));
        allow.push(one(format!("{method} /http://evil.test/ HTTP/1.1\r\n\r\n")));
    }
    refuse.push(one("\r\nCONNECT evil.test:443 HTTP/1.1\r\n\r\n"));
    refuse.push(vec!["\r\n".into(), "CONNECT evil.test:443 HTTP/1.1\r\n\r\n".into()]);
    refused(&refuse);
    allowed(&allow);
}

#[test]
fn other_protocols_that_begin_like_socks_are_left_alone() {
    let ones = "\u{ff}".repeat(40);
    allowed(&[
        one("\x05\0\0\0\x05\0\0\0\0"),
        one("\x04\0\0\0\x01\0\0\0\x16\0\x01\0\x0bCQL_VERSION\0\x053.0.0"),
        one(format!("\x05\x02{ones}")),
        one(format!("\x04\x01\0\0\0\0\0\0{ones}{ones}")),
        one(format!("\x05\x01\0\x07{ones}")),
        one("\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c"),
        one("PING\r\n"),
        one("OPTIONS rtsp://camera.test/ RTSP/1.0\r\n\r\n"),
        one("SSH-2.0-OpenSSH_9.2\r\n"),
    ]);
}
