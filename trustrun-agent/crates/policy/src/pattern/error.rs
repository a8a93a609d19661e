//! What is wrong with a pattern, and what to write instead.

use std::net::IpAddr;

use trustrun_model::Untrusted;

/// A pattern that was refused. `found` is already escaped and cropped, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields hold")]
pub enum PatternError {
    #[error("the pattern is empty: wanted a host name, an address, a network, `*` or `:PORT`")]
    Empty,
    #[error("nothing follows the protocol: wanted a host name, an address, a network or `*`")]
    NoTarget,
    #[error("`{found}` holds a space or a control character: wanted one destination, such as `example.org:443`")]
    Space { found: String },
    #[error("`{found}` is a URL: wanted a destination, without scheme and path; write `{meant}`")]
    Url { found: String, meant: String },
    #[error("`{found}` holds a path or a prefix length after a name: wanted a destination; write `{target}`")]
    Path { found: String, target: String },
    #[error("`{found}` is not a protocol: wanted tcp, udp, any, icmp, ipv6-icmp, sctp, udplite or ip-N with N up to \
             255{}", did_you_mean(.meant))]
    Protocol { found: String, meant: Option<&'static str> },
    #[error("`{found}` is not a port: wanted a number from 1 to 65535, or two with `-` between; {help}")]
    Port { found: String, help: &'static str },
    #[error("`{lo}-{hi}` is not a port range: the first is greater than the last; did you mean `{hi}-{lo}`?")]
    PortRange { lo: u16, hi: u16 },
    #[error("{protocol} with a port: wanted a port only with tcp, udp, sctp or udplite; {}", if .protocol == "any" {
        "write a `tcp/` and a `udp/` pattern, or leave the port out"
    } else {
        "leave the port out"
    })]
    NoPorts { protocol: String },
    #[error("{protocol} with an {family} address is what no ping sends: write `{meant}/`")]
    Family { protocol: &'static str, family: &'static str, meant: &'static str },
    #[error("`{found}` is not an address and no host name: {help}")]
    Address { found: String, help: &'static str },
    #[error("`{found}` names an interface: wanted an address without a zone; leave out `%` and what follows")]
    Zone { found: String },
    #[error("`/{found}` is not a prefix length: wanted 0 to {most} after `{address}`")]
    PrefixLength { found: String, address: IpAddr, most: u8 },
    #[error("`{found}` has bits set beyond its prefix length: wanted a network; did you mean `{net}`?")]
    HostBits { found: String, net: ipnet::IpNet },
    #[error(
        "`{found}` has brackets or colons in the wrong place: an IPv6 address with a port is `[ADDRESS]:PORT`; \
             did you mean `{meant}`?"
    )]
    Brackets { found: String, meant: String },
    #[error(
        "`{address}:{port}` can be read in two ways: write `[{address}:{port}]` for the address, or \
             `[{address}]:{port}` for the port"
    )]
    Ambiguous { address: String, port: String },
    #[error(
        "`{found}` is no internationalised name: it holds what IDNA (UTS 46) does not let into names; wanted letters, \
             digits and `-`, or the `xn--` form"
    )]
    Idn { found: String },
    #[error(
        "`{found}` has `*` in the wrong place: wanted it alone, or as the whole first label, as in `*.example.org`"
    )]
    Wildcard { found: String },
    #[error("`{found}` begins with a dot: did you mean `{meant}` (any depth below, itself not)?")]
    LeadingDot { found: String, meant: String },
    #[error("the name `{found}` has {octets} octets: wanted at most 253 (RFC 1035)")]
    NameLength { found: String, octets: usize },
    #[error("`{found}` has an empty label: wanted letters, digits, `-` or `_` between the dots")]
    EmptyLabel { found: String },
    #[error("the label `{found}` has {octets} octets: wanted at most 63 (RFC 1035)")]
    LabelLength { found: String, octets: usize },
    #[error("`{found}` holds {character:?}: wanted letters, digits, `-`, `_` and dots in a host name")]
    Character { found: String, character: char },
}

impl PatternError {
    /// A URL: what to write instead is its authority, with the scheme's port where it has none.
    pub(super) fn url(text: &str, scheme: &str, authority: &str) -> Self {
        let host = authority.split(['/', '?', '#']).next().unwrap_or("");
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let port = match (scheme, host.contains(':')) {
            ("https:", false) => ":443",
            ("http:", false) => ":80",
            _ => "",
        };
        let meant = if host.is_empty() { "example.org:443".into() } else { shown(&format!("{host}{port}")) };
        Self::Url { found: shown(text), meant }
    }

    /// Digits and dots, or colons, that are no address.
    pub(super) fn address(text: &str) -> Self {
        let help = if text.bytes().all(|b| b.is_ascii_digit()) {
            "wanted four numbers with dots between, or for a port a colon before it"
        } else if text.contains(':') {
            "wanted an IPv6 address as in `2001:db8::1`, with a port as in `[2001:db8::1]:443`"
        } else {
            "wanted four numbers up to 255 with dots between, as in `192.0.2.1` or `192.0.2.0/24`"
        };
        Self::Address { found: shown(text), help }
    }
}

/// Text of a file, fit for a message: escaped, and not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => Untrusted::new(text).to_string(),
        Some((end, _)) => format!("{}…", Untrusted::new(&text[..end])),
    }
}

/// The end of a message, where something similar is known.
pub(crate) fn did_you_mean(meant: &Option<&'static str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}
