//! What to do about a violation, in words that can be acted on.

use trustrun_model::{Decided, Protocol, Reason, Untrusted};

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
        Reason::Kind | Reason::FakeResolver => {
            "sockets of this kind pass by the policy; the program must do without".into()
        }
        Reason::Full => "a kernel table was full; report this, and split the work over several sessions".into(),
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

fn by_rule(rule: &str) -> String {
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
