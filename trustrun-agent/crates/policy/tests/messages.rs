//! What bad input gets: file, line, column, what was wanted, what was found, what to do.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::io::Write;

use proptest::prelude::*;
use trustrun_policy::{MAX_BYTES, Policy};

/// The first line of the message.
fn refusal(text: &str) -> String {
    let message = Policy::parse("p.yaml", text.as_bytes()).unwrap_err().to_string();
    message.lines().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn refused(text: &str, message: &str) {
    assert_eq!(refusal(text), format!("p.yaml:{message}"));
}

/// A pattern in a policy; it stands at 5:13.
#[track_caller]
fn pattern_refused(pattern: &str, message: &str) {
    let text = format!("version: 1\ndefault: block\nrules:\n  - name: lab\n    allow: [{pattern:?}]\n");
    refused(&text, &format!("5:13: in rule `lab`: {message}"));
}

#[test]
fn keys() {
    refused(
        "version: 1\ndefualt: block\n",
        "2:1: unknown key `defualt`: wanted one of version, name, description, \
         extends, parameters, default, capture, unix_sockets, rules, listen, overlays, preset; did you mean `default`?",
    );
    refused(
        "version: 1\ndefault: block\nrules:\n  - alow: [\"a.b\"]\n",
        "4:5: unknown key `alow`: wanted one of name, allow, alert, block, kill, except, when, private, \
         require_private_ip, severity, reason, expires; did you mean `allow`?",
    );
    refused(
        "version: 1\ndefault: block\nrules:\n  - private: alow\n    allow: [\"a.b\"]\n",
        "4:14: `private: alow` is not known: wanted `allow` or `refuse`; did you mean `allow`?",
    );
    refused("version: 1\nversion: 1\n", "2:1: the key `version` is here a second time: put both into one");
    refused(
        "version: 1\ndefault: block\nrules:\n  - allow: [\"a.b\"]\n    allow: [\"c.d\"]\n",
        "5:5: the key `allow` is here a second time: put both into one",
    );
    refused(
        "version: 1\n",
        "1:1: `default` is missing: say what happens to a destination that no rule matches, for \
        instance `default: block`",
    );
    refused("default: block\n", "1:1: `version` is missing: begin the policy with `version: 1`");
    refused(
        "version: 2\ndefault: block\n",
        "1:10: version `2` is not known: wanted `version: 1`; a newer trustrun may know it",
    );
    refused(
        "version: 1\ndefault: blcok\n",
        "2:10: `blcok` is not an action: wanted allow, alert, block or kill; did you mean `block`?",
    );
    refused(
        "version: 1\ndefault: block\nrules:\n  - name: x\n",
        "4:5: rule `x` has no pattern: wanted a list under allow, alert, block or kill, such as \
         `allow: [\"example.org:443\"]`",
    );
}

#[test]
fn paths_of_sockets() {
    refused(
        "version: 1\ndefault: block\nunix_sockets: [/tmp/x, run/y]\n",
        "3:24: `run/y` is no path of a socket: it has to begin with `/`, such as `/run/postgresql/.s.PGSQL.5432`",
    );
    refused(
        "version: 1\ndefault: block\nunix_sockets:\n  - /run\n",
        "4:5: `/run` is no path of a socket: it would let every service in: name the sockets, or a folder with few of \
        them, such as `/run/postgresql/.s.PGSQL.5432`",
    );
}

#[test]
fn shapes() {
    refused("version: 1\ndefault: block\nrules: 5\n", "3:8: found `5`: wanted a list, such as `[\"example.org:443\"]`");
    refused(
        "version: 1\ndefault: block\nrules:\n  - allow: a.b\n",
        "4:12: found `a.b`: wanted a list, such as `[\"example.org:443\"]`",
    );
    refused("hello\n", "1:1: found `hello`: wanted keys with values, such as `version: 1`");
    refused(
        "version: 1\ndefault: block\nrules:\n  - allow: [*.example.org]\n",
        "4:13: not YAML as a policy wants it: \
        `*.example.org` stands for nothing that came before; a pattern that begins with `*` needs quotes, such as `\"*.example.org\"`",
    );
    refused(
        "version: 1\ndefault: block\n---\nversion: 1\n",
        "3:1: a second YAML document begins: wanted one policy in a file; leave out the `---`",
    );
    refused("# nothing\n\n", "1:1: the policy is empty: wanted at least `version: 1`, `default: block` and `rules:`");
    assert!(refusal("version: 1\ndefault: \"block\n").starts_with("p.yaml:3:1: not YAML"));
    assert!(
        refusal("version: 1\nname: \"a\\e[2J\"\ndefault: block\n").starts_with("p.yaml:2:7: the name `a\\u{1b}[2J`")
    );
    let message = Policy::parse("p.yaml", b"version: 1\na\xff").unwrap_err().to_string();
    assert!(message.starts_with("p.yaml:2:2: the policy is not UTF-8 text: octet 0xff"), "{message}");
}

#[test]
fn addresses_and_ports() {
    pattern_refused(
        "10.0.0.1/8",
        "`10.0.0.1/8` has bits set beyond its prefix length: wanted a network; did you mean `10.0.0.0/8`?",
    );
    pattern_refused("10.0.0.0/33", "`/33` is not a prefix length: wanted 0 to 32 after `10.0.0.0`");
    pattern_refused("[2001:db8::/129]:1", "`/129` is not a prefix length: wanted 0 to 128 after `2001:db8::`");
    pattern_refused(
        "10.0.0/8",
        "`10.0.0` is not an address and no host name: wanted four numbers up to 255 with dots \
        between, as in `192.0.2.1` or `192.0.2.0/24`",
    );
    pattern_refused(
        "example.org:https",
        "`https` is not a port: wanted a number from 1 to 65535, or two with `-` between; did you mean `443`?",
    );
    pattern_refused(
        "example.org:70000",
        "`70000` is not a port: wanted a number from 1 to 65535, or two with `-` between; ports end at 65535",
    );
    pattern_refused(
        "example.org:0",
        "`0` is not a port: wanted a number from 1 to 65535, or two with `-` between; leave the port out for all ports, or \
         write `0-0` where you mean it",
    );
    pattern_refused(
        "example.org:90-80",
        "`90-80` is not a port range: the first is greater than the last; did you mean `80-90`?",
    );
    pattern_refused(
        "2001:db8::1:443",
        "`2001:db8::1:443` can be read in two ways: write `[2001:db8::1:443]` for the \
        address, or `[2001:db8::1]:443` for the port",
    );
    pattern_refused(
        "2001:db8::/32:443",
        "`2001:db8::/32:443` has brackets or colons in the wrong place: an IPv6 address \
        with a port is `[ADDRESS]:PORT`; did you mean `[2001:db8::/32]:443`?",
    );
    pattern_refused(
        "any/example.org:53",
        "any with a port: wanted a port only with tcp, udp, sctp or udplite; write a \
        `tcp/` and a `udp/` pattern, or leave the port out",
    );
    pattern_refused("icmp/2001:db8::1", "icmp with an IPv6 address is what no ping sends: write `ipv6-icmp/`");
    pattern_refused(
        "upd/10.0.0.1:53",
        "`upd` is not a protocol: wanted tcp, udp, any, icmp, ipv6-icmp, sctp, udplite \
        or ip-N with N up to 255; did you mean `udp`?",
    );
}

#[test]
fn names() {
    let long = format!("{}org", "abcdefg.".repeat(32));
    pattern_refused(&long, &format!("the name `{}…` has 259 octets: wanted at most 253 (RFC 1035)", &long[..80]));
    pattern_refused(
        "bücher＊.example",
        "`bücher＊.example` is no internationalised name: it holds what IDNA (UTS 46) does not let \
         into names; wanted letters, digits and `-`, or the `xn--` form",
    );
    pattern_refused(
        "*x.org",
        "`*x.org` has `*` in the wrong place: wanted it alone, or as the whole first label, as in `*.example.org`",
    );
    pattern_refused(
        ".example.org",
        "`.example.org` begins with a dot: did you mean `*.example.org` (any depth below, itself not)?",
    );
    pattern_refused(
        "https://example.org/x",
        "`https://example.org/x` is a URL: wanted a destination, without scheme and path; write `example.org:443`",
    );
    pattern_refused("a..org", "`a..org` has an empty label: wanted letters, digits, `-` or `_` between the dots");
    pattern_refused("", "the pattern is empty: wanted a host name, an address, a network, `*` or `:PORT`");
}

#[test]
fn the_line_is_shown_with_what_is_meant_underlined() {
    let error = Policy::parse("p.yaml", b"version: 1\ndefault: nope\n").unwrap_err().to_string();
    assert!(error.ends_with("\n 2 | default: nope\n   |          ^^^^"), "{error}");
}

#[test]
fn files() {
    let missing = Policy::load("/nonexistent/p.yaml").unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/p.yaml: the policy cannot be read: No such file"), "{missing}");
    assert!(Policy::load("/").unwrap_err().to_string().ends_with("name a file in it"));
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(1 << 30).unwrap();
    let large = Policy::load(sparse.path()).unwrap_err().to_string();
    assert!(large.contains("1073741824 octets: wanted at most 67108864"), "{large}");
    // A device tells no size; no more than the limit is read.
    assert!(Policy::load("/dev/zero").unwrap_err().to_string().contains("more than 67108864 octets"));
    let mut small = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    small.write_all(b"version: 1\ndefault: block\n").unwrap();
    assert!(small.path().ends_with(format!("{}.yaml", Policy::load(small.path()).unwrap().name)));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "version: 1\ndefault: block\nrules:\n  - allow: &a0 [\"a.b\"]\n".to_owned();
    for i in 1..30 {
        let last = i - 1;
        text.push_str(&format!("  - allow: &a{i} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n"));
    }
    assert!(refusal(&text).starts_with("p.yaml:"));
    let mut wide = format!("version: 1\ndefault: block\nrules:\n  - allow: &a [{}]\n", "\"a.b\", ".repeat(10_000));
    wide.push_str(&"  - allow: *a\n".repeat(1000));
    assert!(refusal(&wide).contains("alias"), "{}", refusal(&wide));
}

/// Text of the largest size that makes a careless reader slow or deep.
#[test]
fn the_largest_hostile_texts_are_refused_in_time() {
    let full = |unit: &str| unit.repeat(MAX_BYTES as usize / unit.len());
    for unit in ["[", "{", "- ", "a: ", "? ", "\"", "&a ", "*a ", "#", "\n", " ", "!!", "|\n", "- - - \n", "[],", "a\n"]
    {
        let start = std::time::Instant::now();
        assert!(Policy::parse("p.yaml", full(unit).as_bytes()).is_err(), "{unit:?}");
        assert!(start.elapsed().as_secs() < 60, "{unit:?} took {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Policy::parse("p.yaml", &bytes);
    }

    #[test]
    fn yaml_shaped_text_never_panics_and_is_never_shown_raw(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..40)
    ) {
        if let Err(error) = Policy::parse("p\u{1b}.yaml", words.concat().as_bytes()) {
            prop_assert!(!error.to_string().contains(['\u{1b}', '\u{202e}']), "{}", error);
        }
    }

    #[test]
    fn arbitrary_patterns_never_panic(text in "(\\PC|[a-f0-9:./*\\[\\]-]){0,40}") {
        if let Ok(pattern) = text.parse::<trustrun_policy::Pattern>() {
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
    }
}

const WORDS: &[&str] = &[
    "version",
    "default",
    "rules",
    "allow",
    "kill",
    "name",
    ":",
    " ",
    "\n",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    ",",
    "1",
    "block",
    "*",
    "&a",
    "*a",
    "!x",
    "|",
    ">",
    "#",
    "---",
    "...",
    "?",
    "\t",
    "\u{1b}[2J",
    "\u{202e}",
    "10.0.0.0/8",
    "\"*.example.org\"",
    "é",
    "\0",
    "\r",
    "<<",
    "null",
    "\u{feff}",
];
