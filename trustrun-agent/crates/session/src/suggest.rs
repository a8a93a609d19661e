//! What to do about a violation, in words that can be acted on.

use std::net::IpAddr;

use trustrun_model::{Decided, Protocol, Reason, Untrusted};
use trustrun_policy::{ENCRYPTED_DNS, is_private_address};

pub(crate) fn connection(target: &str, port: u16, protocol: Protocol, decided: &Decided, rule: &str) -> String {
    let target = Untrusted::new(target);
    let prefix = if protocol == Protocol::Tcp { String::new() } else { format!("{protocol}/") };
    match decided.reason {
        Reason::Mismatch => {
            format!("the client named {target}, which DNS did not give for this address; check what it runs")
        }
        Reason::Unreadable => {
            format!(
                "several names share this address and the client named none; allow the address itself if all of {target} may be reached"
            )
        }
        Reason::Quic => format!(
            "QUIC hides its name from the kernel; the client will use TCP, or add `allow: [\"udp/{target}:443\"]`"
        ),
        Reason::EncryptedDns => encrypted_dns(),
        Reason::Full => "a kernel table was full: the report's gaps say which".into(),
        Reason::Kind | Reason::FakeResolver => {
            "sockets of this kind pass by the policy; the program must do without".into()
        }
        _ if rule == "default" || rule.is_empty() => {
            format!("if this is meant, add `allow: [\"{prefix}{target}:{port}\"]` to the policy")
        }
        _ => by_rule(rule),
    }
}

pub(crate) fn lookup(name: &str, rule: &str) -> String {
    if rule == "default" {
        format!("if this is meant, add `allow: [\"{}\"]` to the policy", Untrusted::new(name))
    } else {
        by_rule(rule)
    }
}

/// The machine's own name, which was asked of a resolver.
pub(crate) fn own_name(name: &str) -> String {
    let name = Untrusted::new(name);
    format!(
        "{name} is this machine's own name, and /etc/hosts does not have it: add it there (`127.0.1.1 {name}`), then \
         nobody is asked, or add `allow: [\"{name}\"]` to the policy"
    )
}

/// A name that the rule would let through, with another kind of address than this.
pub(crate) fn address(name: &str, address: IpAddr, rule: &str) -> String {
    let (name, rule) = (Untrusted::new(name), Untrusted::new(rule));
    if is_private_address(address) {
        format!(
            "DNS gave {name} the private address {address}, which anybody who answers for the name can do; if this is \
             meant, add `private: allow` to the policy's \"{rule}\""
        )
    } else {
        format!(
            "DNS gave {name} the public address {address}, and the policy's \"{rule}\" asks for a private one: check \
             that the private link is up"
        )
    }
}

fn encrypted_dns() -> String {
    "encrypted DNS hides which names are asked for; let the program use the system's resolver, or name this one under \
     `allow`"
        .into()
}

pub(crate) fn unreadable_lookup() -> String {
    "what was sent to the resolver is no single DNS question; check what the program sends there".into()
}

fn by_rule(rule: &str) -> String {
    if rule == ENCRYPTED_DNS {
        return encrypted_dns();
    }
    format!("the policy's \"{}\" says so; take the destination out of it if this is meant", Untrusted::new(rule))
}

pub(crate) fn socket(kind: u16) -> String {
    if kind == 3 {
        "raw sockets are refused under an enforcing policy; for ping add a rule such as `allow: [\"icmp/192.0.2.1\"]`"
            .into()
    } else {
        "this socket kind is refused under an enforcing policy, since its packets carry no decision".into()
    }
}
