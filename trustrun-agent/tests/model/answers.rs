//! DNS over UDP: which lookups go out, and which addresses their answers bind.
//!
//! A client inside the session sends each query and takes its answers, then connects to the addresses that the answers
//! may have bound: EPERM says that they did not. A server of the test's own answers from outside.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use trustrun_policy::{Matcher, Policy};
use trustrun_wire::dns::{CLASS_IN, Data, Message, NOERROR};

use crate::{
    dns::{Asked, asked, believed, bound},
    random::{Random, amount, hex, seed},
    support::{Ran, Run, lab_with, text},
};

/// Lookups, each with one answer or two.
const LOOKUPS: usize = 12_000;
/// A local address that no server of the lab answers at.
const SERVER: &str = "100.127.255.53";
/// Where nobody listens: who is let through is reset at once.
const PORT: u16 = 7777;
/// Addresses that the answers of one lookup may name.
const EACH: usize = 8;
const SEARCH: &str = "ward.test";

const POLICY: &str = "version: 1\nname: model\ndefault: block\nrules:\n  - allow: [\"*.allowed.test:7777\"]\n  \
    - alert: [\"*.odd.test:7777\"]\n";

/// One lookup.
#[derive(Clone, Debug)]
struct Lookup {
    query: Vec<u8>,
    answers: Vec<Vec<u8>>,
    /// Tried afterwards.
    addresses: Vec<IpAddr>,
}

/// The addresses that are this lookup's own; all of 100.64.0.0/10 is local in the lab.
fn address(lookup: usize, k: usize) -> [u8; 4] {
    let n = (lookup * EACH + k) as u32;
    (0x6440_0000 + n).to_be_bytes()
}

fn name(text: &str) -> Vec<u8> {
    text.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// The same name in other letters.
fn shuffled(random: &mut Random, text: &str) -> String {
    text.chars().map(|c| if random.percent(30) { c.to_ascii_uppercase() } else { c }).collect()
}

fn query(random: &mut Random, lookup: usize) -> (Vec<u8>, String) {
    let zone = random.pick(&[
        "allowed.test",
        "allowed.test",
        "allowed.test",
        "odd.test",
        "other.test",
        "allowed.test.ward.test",
        "other.test.ward.test",
    ]);
    let mut host = format!("c{lookup}.{zone}");
    if random.percent(3) {
        // Up to and beyond the longest name.
        let fill: Vec<String> = (0..3 + random.below(2)).map(|_| "x".repeat(40 + random.below(24))).collect();
        host = format!("{}.{host}", fill.join("."));
    }
    let host = if random.percent(30) { shuffled(random, &host) } else { host };
    let kind: u16 = random.pick(&[1, 1, 1, 28, 65, 16]);
    let class: u16 = if random.percent(4) { 3 } else { 1 };
    let mut m = vec![random.byte(), random.byte(), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    m.extend(name(&host));
    m.extend(kind.to_be_bytes());
    m.extend(class.to_be_bytes());
    if random.percent(20) {
        m[11] = 1;
        m.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    if random.percent(12) {
        random.damage(&mut m);
    }
    (m, host)
}

/// The owner of a record: mostly whose turn it is, `owner` being where that name is written.
fn owner(random: &mut Random, m: &[u8], owner: usize, host: &str) -> Vec<u8> {
    let pointer = |at: usize| (0xc000 | at as u16).to_be_bytes().to_vec();
    match random.below(12) {
        0..=6 => pointer(owner),
        7 => name(&shuffled(random, host)),
        8 => pointer(12),
        9 => pointer(random.below(m.len() + 4)),
        // A label, then a pointer to the rest.
        10 => [&name("www")[..4], &pointer(12)].concat(),
        _ => name("other.test"),
    }
}

fn record(random: &mut Random, m: &mut Vec<u8>, turn: &mut usize, host: &mut String, lookup: usize) {
    let owner = owner(random, m, *turn, host);
    m.extend(owner);
    let ttl: u32 = random.pick(&[0, 1, 60, 300, 86_400, u32::MAX, 1 << 31]);
    let class: u16 = if random.percent(4) { 3 } else { 1 };
    let v4 = address(lookup, random.below(EACH));
    let (kind, data): (u16, Vec<u8>) = match random.below(12) {
        0..=5 => (1, v4.to_vec()),
        6 => (28, [&[0; 10][..], &[0xff; 2], &v4].concat()),
        7 => (28, [&[0x20, 1, 0xd, 0xb8][..], &[0; 8], &v4[..]].concat()),
        8 | 9 => {
            let target = format!("cdn{}.test", random.below(3));
            *turn = m.len() + 10;
            host.clone_from(&target);
            // Compressed as servers do it, sometimes.
            (5, if random.percent(30) { [&name("cdn")[..4], &[0xc0, 12]].concat() } else { name(&target) })
        }
        10 => (1, v4[..random.below(4)].to_vec()),
        _ => (random.pick(&[2, 16, 46, 65]), (0..random.below(20)).map(|_| random.byte()).collect()),
    };
    m.extend(kind.to_be_bytes());
    m.extend(class.to_be_bytes());
    m.extend(ttl.to_be_bytes());
    m.extend((data.len() as u16).to_be_bytes());
    m.extend(data);
}

fn answer(random: &mut Random, query: &[u8], host: &str, lookup: usize) -> Vec<u8> {
    let mut m = query.to_vec();
    if m.len() < 12 {
        return m;
    }
    let records = match random.below(20) {
        0 => 0,
        1 => 25 + random.below(20),
        _ => 1 + random.below(5),
    };
    let flags = if random.percent(90) { [0x81, 0x80] } else { [random.byte(), random.byte()] };
    m[2..4].copy_from_slice(&flags);
    m[6..12].copy_from_slice(&[0, records as u8, 0, 0, 0, 0]);
    if random.percent(5) {
        m[7] = random.byte();
    }
    if random.percent(5) {
        m[0] ^= 1;
    }
    if random.percent(10) {
        // The same name in other letters, or another.
        let at = 12 + random.below(m.len().saturating_sub(12).max(1));
        if let Some(b) = m.get_mut(at) {
            *b = if random.percent(70) { b.to_ascii_uppercase() } else { random.byte() };
        }
    }
    let (mut turn, mut host) = (12, host.to_owned());
    for _ in 0..records {
        record(random, &mut m, &mut turn, &mut host, lookup);
    }
    if random.percent(35) {
        random.damage(&mut m);
    }
    m.truncate(1400);
    m
}

fn lookups(random: &mut Random, n: usize) -> Vec<Lookup> {
    let mut known = HashSet::new();
    let mut all = Vec::with_capacity(n);
    for lookup in 0..n {
        let (query, host) = query(random, lookup);
        if !known.insert(query.clone()) {
            continue; // two that damage has made one
        }
        let answers = (0..1 + random.below(2)).map(|_| answer(random, &query, &host, lookup)).collect();
        let addresses = (0..EACH).map(|k| address(lookup, k).into()).collect();
        all.push(Lookup { query, answers, addresses });
    }
    all
}

/// Answers each query as planned, until told to stop.
fn serve(socket: &UdpSocket, plan: &HashMap<&[u8], &[Vec<u8>]>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
        for answer in plan.get(&buffer[..n]).into_iter().copied().flatten() {
            let _ = socket.send_to(answer, from);
        }
    }
}

/// What the client felt: for each lookup `R` where it was refused, else for each address `o` if it was let through and
/// `x` if not.
fn felt(ran: &Ran) -> Vec<String> {
    let answer = ran.json();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("no results\n{ran}"));
    results.iter().map(|r| r.as_str().expect("a text").to_owned()).collect()
}

/// The same by the model; `?` for an address that an earlier answer, damaged, has bound instead of its own.
fn expected(lookup: &Lookup, matcher: &Matcher, earlier: &mut HashSet<IpAddr>) -> String {
    let asked = asked(&lookup.query, matcher, &[SEARCH.to_owned()]);
    if asked == Asked::Refused {
        return "R".into();
    }
    // The first that is believed takes the question away.
    let first = lookup.answers.iter().find(|answer| believed(&asked, answer));
    let bound = first.map(|answer| bound(&asked, answer)).unwrap_or_default();
    let here = |a: &IpAddr| match (bound.contains(a), earlier.contains(a)) {
        (true, _) => 'o',
        (false, true) => '?',
        (false, false) => 'x',
    };
    let text = lookup.addresses.iter().map(here).collect();
    earlier.extend(bound);
    text
}

/// Whether two such texts say the same.
fn same(kernel: &str, model: &str) -> bool {
    kernel.len() == model.len() && kernel.bytes().zip(model.bytes()).all(|(k, m)| k == m || m == b'?')
}

/// What the agent's own decoder makes of the answer that is believed; none where it refuses to read it, or where a name
/// has two aliases or is its own, of which each reader may follow another. It follows aliases in any order; of what the
/// kernel binds it must miss nothing, or the report would doubt the kernel's decision.
fn by_decoder(lookup: &Lookup, matcher: &Matcher) -> Option<String> {
    let asked = asked(&lookup.query, matcher, &[SEARCH.to_owned()]);
    let Asked::Sent { bind: true, .. } = asked else { return None };
    let message = Message::decode(lookup.answers.iter().find(|answer| believed(&asked, answer))?).ok()?;
    let aliases = message.answers.iter().filter(|r| matches!(r.data, Data::Cname(_))).map(|r| &r.owner);
    let (owners, count) = aliases.fold((HashSet::new(), 0), |(mut owners, n), owner| {
        owners.insert(owner);
        (owners, n + 1)
    });
    if owners.len() != count {
        return None;
    }
    let good = message.flags.rcode == NOERROR && !message.flags.truncated && message.question.qclass == CLASS_IN;
    let known: Vec<IpAddr> = message.addresses().into_iter().map(|(a, _)| a).filter(|_| good).collect();
    let known = |a: &IpAddr| known.iter().any(|k| k.to_canonical() == *a);
    Some(lookup.addresses.iter().map(|a| if known(a) { 'o' } else { 'x' }).collect())
}

fn describe(lookup: &Lookup, kernel: &str, model: &str) -> String {
    let mut text = format!("kernel {kernel}, model {model}\n  query  {}\n", hex(&lookup.query));
    for answer in &lookup.answers {
        let _ = writeln!(text, "  answer {}", hex(answer));
    }
    text
}

fn run(all: &[Lookup]) -> Option<Ran> {
    let lab = lab_with(&["python3"])?;
    lab.set_resolv_conf(&format!("nameserver {SERVER}\nsearch {SEARCH}\n")).expect("a resolv.conf");
    let plan: HashMap<&[u8], &[Vec<u8>]> = all.iter().map(|l| (&*l.query, &*l.answers)).collect();
    let lines = |l: &Lookup| {
        let addresses: Vec<String> = l.addresses.iter().map(ToString::to_string).collect();
        format!("{} {} {}\n", hex(&l.query), l.answers.len(), addresses.join(","))
    };
    let file = lab.folder().join("lookups");
    std::fs::write(&file, all.iter().map(lines).collect::<String>()).expect("a file");
    let socket = lab.inside(|| UdpSocket::bind((SERVER, 53))).expect("inside").expect("a name server's socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let stop = AtomicBool::new(false);
    Some(std::thread::scope(|scope| {
        scope.spawn(|| serve(&socket, &plan, &stop));
        let ran = std::panic::catch_unwind(|| {
            let run = Run::new(&lab).policy(POLICY).deadline(Duration::from_secs(600));
            run.python("lookups.py", &[&text(&file), SERVER, &PORT.to_string()])
        });
        stop.store(true, Ordering::Relaxed);
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }))
}

#[test]
fn the_kernel_reads_dns_as_the_model_does() {
    let mut random = Random::new(seed("DNS"));
    let all = lookups(&mut random, amount(LOOKUPS));
    let policy = Policy::parse("model.yaml", POLICY.as_bytes()).expect("a policy");
    let matcher = policy.compile();
    let Some(ran) = run(&all) else { return };
    assert_eq!(ran.code(), Some(0), "{}\n{}", ran.stdout.chars().take(2000).collect::<String>(), ran.stderr);
    let felt = felt(&ran);
    assert_eq!(felt.len(), all.len());
    let (mut kinds, mut earlier) = (BTreeMap::<&str, u64>::new(), HashSet::new());
    let (mut different, mut doubtful, mut refusals) = (String::new(), String::new(), 0);
    for (lookup, kernel) in all.iter().zip(&felt) {
        let model = expected(lookup, &matcher, &mut earlier);
        let kind = match &*model {
            "R" => "refused",
            text if text.contains('o') => "bound",
            _ => "bound nothing",
        };
        *kinds.entry(kind).or_default() += 1;
        if !same(kernel, &model) {
            different.push_str(&describe(lookup, kernel, &model));
        }
        refusals += u64::from(model == "R");
        if let Some(decoder) = by_decoder(lookup, &matcher) {
            let laxer = model.bytes().zip(decoder.bytes()).any(|(k, d)| k == b'o' && d == b'x');
            let stricter = model.bytes().zip(decoder.bytes()).any(|(k, d)| k == b'x' && d == b'o');
            *kinds.entry("bound by the agent's decoder alone").or_default() += u64::from(stricter);
            if laxer {
                doubtful.push_str(&describe(lookup, &model, &decoder));
            }
        }
    }
    eprintln!("{} lookups in {:?}: {kinds:?}", all.len(), ran.took);
    assert!(different.is_empty(), "{} lines differ:\n{different}", different.lines().count());
    assert!(doubtful.is_empty(), "the agent's decoder misses what the kernel binds:\n{doubtful}");
    // Every refusal is in the report, also of what was no lookup at all.
    let told = ran.report.violations.iter().filter(|v| v.protocol == "dns").map(|v| v.count).sum::<u64>();
    assert_eq!(told, refusals, "refused lookups in the report");
    assert!(["refused", "bound", "bound nothing"].iter().all(|k| kinds.get(k).is_some_and(|n| *n > 0)), "{kinds:?}");
    assert_ne!(ran.report.verdict, trustrun_model::Verdict::Pass, "much was refused");
}
