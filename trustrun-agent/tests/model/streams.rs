//! The first payload of TCP connections, in whatever segments, against the agent's own decoders and the policy, asked
//! together.
//!
//! A client inside the session sends each stream; a server outside takes one segment at a time and says so. What is written
//! as honest clients write it, and refused by the policy, must be refused by the kernel. Of what is written to be read in
//! two ways the kernel may let through what it reads otherwise, and be stricter where it reads less; but then the report
//! says so: a second session of those alone must name every one of them, and not pass.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use trustrun_lab::{Entry, Lab};
use trustrun_model::{ClaimSource, Protocol};
use trustrun_policy::{Matcher, Policy};
use trustrun_wire::{First, classify, first};

use crate::{
    random::{Random, amount, hex, seed},
    support::{Ran, Run, started, text},
};

/// Streams, each a connection of its own.
const STREAMS: usize = 1500;
/// Granted by an address rule, as proxies often are.
const BY_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 80);
/// Granted by its name, `one.model.test`; `two.model.test` is there too, and refused on this port.
const BY_NAME: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 81);
const PORT: u16 = 4443;

const POLICY: &str = "version: 1\nname: model\ndefault: block\nrules:\n  - allow: [\"100.127.255.80:4443\", \
    \"one.model.test:4443\", \"two.model.test:80\", \"*.good.test\", \"198.51.100.0/24\"]\n  \
    - block: [\"bad.good.test\", \"198.51.100.66\"]\n";

#[derive(Clone, Debug)]
struct Stream {
    to: Ipv4Addr,
    segments: Vec<Vec<u8>>,
    /// As honest clients write it.
    plain: bool,
}

/// How many of them are plain.
const PLAIN: usize = 10;
/// Names and addresses that a client may ask for, allowed and not, and ways to write one that looks like another.
const HOSTS: [&str; 22] = [
    "api.good.test",
    "API.Good.Test",
    "bad.good.test",
    "BAD.good.test",
    "evil.test",
    "one.model.test",
    "two.model.test",
    "198.51.100.7",
    "198.51.100.66",
    "203.0.113.66",
    "[2001:db8::66]",
    "api.good.test:80@evil.test",
    "evil.test?.good.test",
    "evil.test#.good.test",
    "evil.test\\.good.test",
    "evil.test%2f.good.test",
    "evil.test,.good.test",
    "bad.good.test.",
    "api.good.test.",
    ".good.test",
    "3325256898",
    "0xcb.0.113.66",
];

fn hello(name: &str, pad: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if pad > 0 {
        extensions.extend([0, 21, (pad >> 8) as u8, pad as u8]);
        extensions.extend(vec![0; pad]);
    }
    let n = name.len() as u16;
    extensions.extend([0, 0]);
    for part in [n + 5, n + 3] {
        extensions.extend(part.to_be_bytes());
    }
    extensions.push(0);
    extensions.extend(n.to_be_bytes());
    extensions.extend(name.bytes());
    extensions.extend([0, 43, 0, 3, 2, 3, 4]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut stream = vec![0x16, 3, 1];
    stream.extend((body.len() as u16 + 4).to_be_bytes());
    stream.extend([1, 0, (body.len() >> 8) as u8, body.len() as u8]);
    stream.extend(body);
    stream
}

/// The messages of a SOCKS client, and whether it waits for an answer before it asks.
fn socks(random: &mut Random, host: &str) -> (Vec<Vec<u8>>, bool) {
    let port = random.pick(&[80u16, 443, 4443]).to_be_bytes();
    let mut request = vec![5, 1, 0];
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => request.extend([&[1][..], &a.octets()].concat()),
        Ok(IpAddr::V6(a)) => request.extend([&[4][..], &a.octets()].concat()),
        Err(_) => request.extend([&[3, host.len() as u8], host.as_bytes()].concat()),
    }
    request.extend(port);
    if random.percent(30) {
        // SOCKS4a.
        return (vec![[&[4, 1][..], &port, &[0, 0, 0, 1], b"me\0", host.as_bytes(), &[0]].concat()], true);
    }
    match random.below(3) {
        0 => (vec![[&[5, 1, 0][..], &request].concat()], false),
        1 => (vec![vec![5, 1, 2], b"\x01\x04user\x04pass".to_vec(), request], true),
        _ => (vec![vec![5, 1, 0], request], true),
    }
}

fn stream(random: &mut Random) -> Stream {
    let to = random.pick(&[BY_ADDRESS, BY_ADDRESS, BY_NAME]);
    let (which, port) = (random.below(HOSTS.len()), random.pick(&["", ":80", ":443", ":4443", ":", ":0443", ":99999"]));
    let host = HOSTS[which];
    let mut plain = which < PLAIN && !matches!(port, ":" | ":0443" | ":99999");
    let http = |line: String| vec![format!("{line} HTTP/1.1\r\nHost: {host}{port}\r\n\r\n").into_bytes()];
    let messages = match random.below(8) {
        0..=2 => {
            let pad = if random.percent(20) { random.below(3000) } else { 0 };
            vec![hello(host, pad)]
        }
        3 => {
            plain &= !port.is_empty();
            http(format!("CONNECT {host}{port}"))
        }
        4 => http(format!("GET http://{host}{port}/x")),
        5 => http(format!("POST http://{host}{port}/?q")),
        _ => {
            let (messages, waits) = socks(random, host);
            plain &= waits;
            messages
        }
    };
    let mut segments = Vec::new();
    for mut message in messages {
        if random.percent(15) {
            random.damage(&mut message);
            plain = false;
        }
        // Cut anywhere, sometimes more than once.
        for _ in 0..random.below(3) {
            if message.len() > 1 {
                let rest = message.split_off(1 + random.below(message.len() - 1));
                segments.push(std::mem::replace(&mut message, rest));
            }
        }
        if !message.is_empty() {
            segments.push(message);
        }
    }
    if segments.is_empty() {
        segments.push(vec![0]);
    }
    Stream { to, segments, plain }
}

/// What the agent's decoders and the policy make of the whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Refuse,
    Allow,
    /// A proxy request that is none.
    Unread,
    /// Nothing in it that names anybody, or not as far as it goes.
    Silent,
}

fn verdict(stream: &Stream, matcher: &Matcher) -> Verdict {
    let whole = stream.segments.concat();
    let mut first = classify(&whole);
    if whole.starts_with(b"CONNECT ") && matches!(first, First::Malformed(_)) {
        // The target is whom it asks for, and may be judged before the fields have come, whatever is wrong with those.
        let target = whole.split(|b| *b <= b' ').nth(1).unwrap_or_default();
        first = classify(&[b"CONNECT ", target, b" HTTP/1.0\r\n\r\n"].concat());
    }
    let Some((source, host, port)) = first.claim().and_then(|c| Some((c.source, c.host?, c.port))) else {
        let http = whole.starts_with(b"CONNECT ") || whole.windows(3).take(10).any(|w| w == b"://");
        return match first {
            First::Malformed(first::Error::Socks(_)) => Verdict::Unread,
            First::Malformed(first::Error::Http(_)) if http => Verdict::Unread,
            _ => Verdict::Silent,
        };
    };
    let refused = |port: u16| {
        let address = host.parse::<IpAddr>().ok();
        let name = address.is_none().then_some(&*host);
        matcher.decide(name, address, port, Protocol::Tcp).action.refuses()
    };
    let refuse = match source {
        ClaimSource::Proxy => refused(port.unwrap_or(80)),
        // Of an address rule only a rule on the name itself takes something away.
        ClaimSource::Sni if stream.to == BY_ADDRESS => host == "bad.good.test",
        // The names that DNS gave for it.
        ClaimSource::Sni => host != "one.model.test",
        ClaimSource::Host => return Verdict::Silent,
    };
    if refuse { Verdict::Refuse } else { Verdict::Allow }
}

/// Takes one segment at a time and says so.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let _ = client.set_nonblocking(false);
        let _ = client.set_read_timeout(Some(Duration::from_secs(10)));
        let mut buffer = [0; 16_384];
        while matches!(client.read(&mut buffer), Ok(n) if n > 0) && client.write_all(b"+").is_ok() {}
    }
}

fn run(lab: &Lab, all: &[Stream]) -> Ran {
    run_under(lab, POLICY, all)
}

fn run_under(lab: &Lab, policy: &str, all: &[Stream]) -> Ran {
    let line = |s: &Stream| {
        let segments: Vec<String> = s.segments.iter().map(|b| hex(b)).collect();
        format!("{} {PORT} {}\n", s.to, segments.join(","))
    };
    let file = lab.folder().join("streams");
    std::fs::write(&file, all.iter().map(line).collect::<String>()).expect("a file");
    let listener = lab.inside(|| TcpListener::bind(("0.0.0.0", PORT))).expect("inside").expect("a listener");
    listener.set_nonblocking(true).expect("non-blocking");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &stop));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let run = Run::new(lab).policy(policy).deadline(Duration::from_secs(600));
            run.python("segments.py", &[&text(&file), "one.model.test", "two.model.test"])
        }));
        stop.store(true, Ordering::Relaxed);
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn what_names_whom_the_policy_refuses_is_refused_or_told() {
    let names = ["one.model.test", "two.model.test"];
    let builder = names.into_iter().fold(Lab::builder(), |b, name| b.name(name, Entry::new().a(BY_NAME)));
    let Some(lab) = started(builder) else { return };
    let mut random = Random::new(seed("streams"));
    let all: Vec<Stream> = (0..amount(STREAMS)).map(|_| stream(&mut random)).collect();
    let policy = Policy::parse("model.yaml", POLICY.as_bytes()).expect("a policy");
    let matcher = policy.compile();
    let ran = run(&lab, &all);
    assert_eq!(ran.code(), Some(0), "{}\n{}", ran.stdout.chars().take(2000).collect::<String>(), ran.stderr);
    let answer = ran.json();
    let felt = answer["results"].as_array().expect("results");
    assert_eq!(felt.len(), all.len());
    let mut kinds: BTreeMap<(Verdict, &str), u64> = BTreeMap::new();
    let (mut laxer, mut plain) = (Vec::new(), String::new());
    for (stream, felt) in all.iter().zip(felt) {
        let (wanted, through) = (verdict(stream, &matcher), felt == "o");
        *kinds.entry((wanted, if through { "let through" } else { "refused" })).or_default() += 1;
        if matches!(wanted, Verdict::Refuse | Verdict::Unread) && through {
            if stream.plain {
                plain.push_str(&describe(stream));
            }
            laxer.push(stream.clone());
        }
    }
    eprintln!("{} streams in {:?}: {kinds:?}", all.len(), ran.took);
    if std::env::var_os("TRUSTRUN_SHOW").is_some() {
        laxer.iter().for_each(|stream| eprint!("{}", describe(stream)));
    }
    assert!(plain.is_empty(), "let through, though the policy refuses whom they name:\n{plain}");
    for kind in [(Verdict::Refuse, "refused"), (Verdict::Allow, "let through")] {
        assert!(kinds.contains_key(&kind), "{kinds:?}");
    }
    told(&lab, &laxer);
}

fn describe(stream: &Stream) -> String {
    let segments: Vec<String> = stream.segments.iter().map(|s| hex(s)).collect();
    let shown = String::from_utf8_lossy(&stream.segments.concat()).escape_debug().to_string();
    format!("{} {}\n  {shown}\n", stream.to, segments.join(","))
}

/// What the kernel lets through and the policy does not is in the report, each of it, and no pass.
fn told(lab: &Lab, laxer: &[Stream]) {
    if laxer.is_empty() {
        return;
    }
    let ran = run(lab, laxer);
    let told =
        |ran: &Ran| ran.report.violations.iter().map(|v| v.count).sum::<u64>() + ran.gap("proxy-hides-destination");
    eprintln!("{} let through, {} told: {:?}", laxer.len(), told(&ran), ran.report.verdict);
    assert_ne!(ran.report.verdict, trustrun_model::Verdict::Pass, "{ran}");
    if told(&ran) < laxer.len() as u64 {
        // Each alone, to know which.
        let silent: Vec<String> =
            laxer.iter().filter(|s| told(&run(lab, &[(*s).clone()])) == 0).map(describe).collect();
        panic!("{} let through and in no report:\n{}", silent.len(), silent.concat());
    }
}

/// What only some programs read as an address, and what may reach anybody, at a proxy that an address rule grants: refused
/// also where the default lets names through.
#[test]
fn numbers_that_stand_for_names_and_unknown_commands_are_refused_at_a_proxy() {
    const LAX: &str = "version: 1\nname: model\ndefault: alert\nrules:\n  - allow: [\"100.127.255.80:4443\"]\n  - block: \
        [\"203.0.113.66\"]\n";
    let names = ["one.model.test", "two.model.test"];
    let builder = names.into_iter().fold(Lab::builder(), |b, name| b.name(name, Entry::new().a(BY_NAME)));
    let Some(lab) = started(builder) else { return };
    let connect = |host: &str| format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n").into_bytes();
    let name = |command: u8, host: &str| {
        [&[5, 1, 0, 5, command, 0, 3, host.len() as u8][..], host.as_bytes(), &[1, 187]].concat()
    };
    let refused = [
        "0xcb.0.113.66",
        "127.1",
        "203.0.28994",
        "010.0.0.1",
        "3405803842",
        "0XCB007142",
        "a.good.test.0x7f",
        "203.0.113.66.",
        "1.2.3.256",
    ];
    let passed = ["0x.example", "1.2.3.4a", "1.2.3.4x", "api.good.test.", "host1", "0xg", "198.51.100.0"];
    let of = |hosts: &[&str]| {
        let many = hosts.iter().flat_map(|h| [connect(h), name(1, h)]);
        many.map(|bytes| Stream { to: BY_ADDRESS, segments: vec![bytes], plain: true }).collect::<Vec<_>>()
    };
    let commands =
        [0u8, 4, 0xf0, 0xf1].map(|c| Stream { to: BY_ADDRESS, segments: vec![name(c, "evil.test")], plain: true });
    let all = [of(&refused), commands.to_vec(), of(&passed)].concat();
    let ran = run_under(&lab, LAX, &all);
    assert_eq!(ran.code(), Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let answer = ran.json();
    let felt: Vec<bool> = answer["results"].as_array().expect("results").iter().map(|r| r == "o").collect();
    let wrong: Vec<String> = (0..all.len())
        .filter(|i| felt[*i] != (*i >= all.len() - 2 * passed.len()))
        .map(|i| describe(&all[i]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}
