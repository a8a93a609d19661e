//! Real programs in the lab, without TrustRun: what works here must work unchanged under an allowing policy.

mod support;

use std::time::{Duration, Instant};

use support::{lab, lab_with, output, run, started};
use trustrun_lab::{ALLOWED, ALLOWED_V6, EVIL, Lab, PROXY, Service, Transport, UNREACHABLE, fresh_address};

#[test]
fn curl_fetches_over_http_and_https_and_both_families() {
    let Some(lab) = lab_with("curl") else { return };
    for (url, family) in [
        ("http://api.allowed.test/", "-4"),
        ("https://api.allowed.test/", "-4"),
        ("http://api.allowed.test/", "-6"),
        ("https://api.allowed.test/", "-6"),
        ("https://only6.allowed.test:8443/", "-6"),
        ("https://evil.test/", "-4"),
        ("https://a.b.wild.allowed.test/", "-4"),
        ("https://cname.allowed.test/", "-4"),
    ] {
        let text = output(lab.command("curl").args(["-sS", family, url]));
        assert!(text.starts_with("hello from "), "{url}: {text:?}");
    }
    let arrived = lab.arrived();
    assert_eq!(arrived[0].service, Service::Http);
    assert_eq!(arrived[0].host.as_deref(), Some("api.allowed.test"));
    assert_eq!(arrived[1].sni.as_deref(), Some("api.allowed.test"));
    assert_eq!(arrived[1].host.as_deref(), Some("api.allowed.test"));
    assert!(arrived[1].bytes > 300 && arrived[1].first[0] == 0x16, "a ClientHello: {:?}", arrived[1]);
    assert_eq!(arrived[2].local.ip(), ALLOWED_V6);
    assert_eq!(arrived[5].local.ip(), EVIL);
    assert!(lab.dns().was_asked("API.allowed.test."));
}

#[test]
fn curl_moves_bytes_both_ways_and_keeps_its_connection() {
    let Some(lab) = lab_with("curl") else { return };
    let size = output(
        lab.command("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{size_download}"])
            .arg("https://api.allowed.test/bytes/10000000"),
    );
    assert_eq!(size, "10000000");
    let post =
        output(lab.command("curl").args(["-sS", "http://api.allowed.test/in", "--data-binary", "@/proc/self/exe"]));
    assert!(post.starts_with("received "), "{post:?}");
    lab.clear();
    let many: Vec<String> = (0..50).map(|n| format!("https://two.allowed.test/bytes/{n}")).collect();
    output(
        lab.command("curl").args(["-sS", "-o", "/dev/null"]).args(many.iter().flat_map(|url| ["-o", "/dev/null", url])),
    );
    let arrived = lab.arrived();
    assert_eq!((arrived.len(), arrived[0].requests), (1, 50));
}

#[test]
fn an_unassigned_address_and_a_closed_port_fail_at_once() {
    let Some(lab) = lab_with("curl") else { return };
    let before = Instant::now();
    let ran = run(lab.command("curl").args(["-sS", "-4"]).arg(format!("http://{UNREACHABLE}/")));
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    let ran = run(lab.command("curl").args(["-sS", "http://api.allowed.test:4444/"]));
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    let ran = run(lab.command("curl").args(["-sS", "https://nowhere.test/"]));
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    assert!(lab.arrived().is_empty());
}

#[test]
fn python_fetches_with_urllib() {
    let Some(lab) = lab_with("python3") else { return };
    let script = "import urllib.request as u; print(u.urlopen('https://api.allowed.test/').read().decode())";
    assert!(output(lab.command("python3").args(["-c", script])).starts_with("hello from api.allowed.test"));
}

#[test]
fn python_fetches_with_requests() {
    let Some(lab) = lab_with("python3") else { return };
    if run(lab.command("python3").args(["-c", "import requests"])).code != Some(0) {
        return trustrun_lab::skip("python3 has no requests");
    }
    let script = "import requests; print(requests.get('https://three.allowed.test/').text)";
    assert!(output(lab.command("python3").args(["-c", script])).starts_with("hello from three.allowed.test"));
}

#[test]
fn getent_and_search_lists_work() {
    let Some(lab) = started(Lab::builder().search(&["corp.test", "allowed.test"]).option("ndots:5")) else { return };
    let text = output(lab.command("getent").args(["ahostsv4", "two"]));
    assert!(text.contains(&ALLOWED.to_string()), "{text}");
    assert!(lab.dns().was_asked("two.corp.test") && lab.dns().was_asked("two.allowed.test"));
    let text = output(lab.command("getent").args(["ahostsv4", "fhir.hospital.test"]));
    assert!(text.contains("203.0.113.20"), "{text}");
    assert!(lab.dns().was_asked("fhir.hospital.test.allowed.test"));
}

#[test]
fn many_addresses_and_truncated_answers_reach_glibc() {
    let Some(lab) = lab() else { return };
    for (name, transport) in [
        ("big.allowed.test", Transport::Udp),
        ("tcp.allowed.test", Transport::Tcp),
        ("truncated.allowed.test", Transport::Tcp),
    ] {
        let text = output(lab.command("getent").args(["ahostsv4", name]));
        let expected = if name.starts_with("trunc") { 1 } else { 30 };
        assert_eq!(text.lines().filter(|line| line.contains("STREAM")).count(), expected, "{name}: {text}");
        let last = lab.dns().queries().pop().expect("a query");
        assert_eq!((last.name.as_str(), last.transport), (name, transport));
    }
}

#[test]
fn refused_and_missing_names_fail_quickly() {
    let Some(lab) = lab() else { return };
    for name in ["refused.test", "servfail.test", "nowhere.test", "dangling.allowed.test"] {
        let before = Instant::now();
        assert_eq!(run(lab.command("getent").args(["ahostsv4", name])).code, Some(2), "{name}");
        assert!(before.elapsed() < Duration::from_secs(1), "{name}: {:?}", before.elapsed());
    }
}

#[test]
fn node_fetches_and_resolves_with_c_ares() {
    let Some(lab) = lab_with("node") else { return };
    let script = "
        const dns = require('dns').promises;
        (async () => {
            const page = await fetch('https://api.allowed.test/');
            console.log((await page.text()).trim(), await dns.resolve4('two.allowed.test'));
            console.log(await dns.resolve4('big.allowed.test').then(a => a.length), await dns.resolve6('only6.allowed.test'));
        })();";
    let text = output(lab.command("node").args(["-e", script]));
    assert!(text.starts_with("hello from api.allowed.test"), "{text}");
    assert!(text.contains("203.0.113.10") && text.contains("30 ") && text.contains("2001:db8::11"), "{text}");
}

#[test]
fn git_clones_over_https() {
    let Some(lab) = lab_with("git") else { return };
    lab.publish_git("repo.git").expect("a repository");
    let place = lab.folder().join("clone");
    output(lab.command("git").args(["clone", "--quiet", "https://api.allowed.test/repo.git"]).arg(&place));
    assert!(place.join("README.md").is_file());
}

#[test]
fn busybox_looks_up_and_fetches() {
    let Some(lab) = lab_with("busybox") else { return };
    let text = output(lab.command("busybox").args(["nslookup", "two.allowed.test"]));
    assert!(text.contains("203.0.113.10"), "{text}");
    let text = output(lab.command("busybox").args(["wget", "-q", "-O", "-", "http://two.allowed.test/"]));
    assert!(text.starts_with("hello from two.allowed.test"), "{text}");
}

#[test]
fn proxies_fetch_for_a_program() {
    let Some(lab) = lab_with("curl") else { return };
    for (proxy, url, service) in [
        ("http://proxy.allowed.test:3128", "http://api.allowed.test/", Service::HttpProxy),
        ("http://proxy.allowed.test:3128", "https://fhir.hospital.test/", Service::HttpProxy),
        ("socks5h://proxy.allowed.test:1080", "https://api.allowed.test/", Service::SocksProxy),
        ("socks5://proxy.allowed.test:1080", "https://two.allowed.test/", Service::SocksProxy),
        ("socks4a://proxy.allowed.test:1080", "http://api.allowed.test/", Service::SocksProxy),
        ("socks4://proxy.allowed.test:1080", "http://api.allowed.test/", Service::SocksProxy),
    ] {
        lab.clear();
        let text = output(lab.command("curl").args(["-sS", "-x", proxy, url]));
        assert!(text.starts_with("hello from "), "{proxy} {url}: {text}");
        let arrived = lab.arrived();
        assert_eq!(arrived[0].service, service);
        assert_eq!(arrived[0].local.ip(), PROXY);
        assert!(arrived[0].host.is_some(), "{:?}", arrived[0]);
        assert_eq!(arrived[1].peer.ip(), PROXY, "{proxy} {url}: {:?}", arrived[1]);
    }
    let ran = run(lab.command("curl").args(["-sS", "-x", "http://proxy.allowed.test:3128", "https://nowhere.test/"]));
    assert_eq!(ran.code, Some(56), "{}", ran.stderr);
}

#[test]
fn dns_over_https_answers() {
    let Some(lab) = lab_with("curl") else { return };
    let doh = ["--doh-url", "https://api.allowed.test/dns-query", "https://fhir.hospital.test/"];
    let text = output(lab.command("curl").arg("-sS").args(doh));
    assert!(text.starts_with("hello from fhir.hospital.test"), "{text}");
    let queries = lab.dns().queries();
    assert!(queries.iter().any(|query| query.name == "fhir.hospital.test" && query.transport == Transport::Https));
    assert!(!queries.iter().any(|query| query.name == "fhir.hospital.test" && query.transport == Transport::Udp));
}

#[test]
fn fresh_names_have_addresses_of_their_own() {
    let Some(lab) = lab_with("curl") else { return };
    for name in ["n1.fresh.test", "n4000000.fresh.test", "anything.at.all.fresh.test"] {
        let url = format!("https://{name}/");
        let text = output(lab.command("curl").args(["-sS", &url]));
        assert!(text.contains(name), "{text}");
        assert_eq!(lab.arrived().pop().expect("an arrival").local.ip(), fresh_address(name));
    }
}

#[test]
fn a_command_runs_as_another_user_in_its_own_folder() {
    let Some(lab) = lab() else { return };
    let mut command = lab.command_as(65534, 65534, "sh");
    let text = output(command.args(["-c", "id -u; pwd; cat /etc/resolv.conf"]).current_dir("/usr"));
    assert!(text.starts_with("65534\n/usr\nnameserver 203.0.113.53\n"), "{text}");
    let outside = std::fs::read_to_string("/etc/resolv.conf").expect("the machine's own");
    assert!(!outside.contains("203.0.113.53"), "{outside}");
}
