//! Encrypted DNS at public resolvers hides which names a program asks for, so an enforcing policy refuses it unless a
//! rule names the resolver, also where its default lets other things through. DNS over TLS and QUIC is refused by its
//! port (853), in the kernel; DNS over HTTPS can only be known by who answers it, and those are here.

use std::borrow::Cow;

use trustrun_model::{Action, Protocol};

use crate::{
    Pattern, Policy, Rule,
    pattern::{Net, Target, mapped},
};

/// The name of the rule that is added.
pub const ENCRYPTED_DNS: &str = "encrypted DNS";

/// Who answers DNS over HTTPS for everybody.
struct Provider {
    /// Exact, or with `*.` in front.
    names: &'static [&'static str],
    addresses: &'static [&'static str],
}

/// Well-known public resolvers, as their operators' pages name them (2026-11): developers.google.com/speed/public-dns,
/// developers.cloudflare.com/1.1.1.1, quad9.net, opendns.com, nextdns.io, adguard-dns.io, cleanbrowsing.org, controld.com,
/// mullvad.net, dns0.eu, dns.sb, alidns.com, dnspod.cn. The last is asked by Firefox before it turns DNS over HTTPS on
/// by itself (support.mozilla.org, "canary domain"): refused, it stays off.
const PROVIDERS: [Provider; 14] = [
    Provider {
        names: &["dns.google", "*.dns.google", "dns.google.com"],
        addresses: &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"],
    },
    Provider {
        names: &["cloudflare-dns.com", "*.cloudflare-dns.com", "one.one.one.one", "*.cloudflare-gateway.com"],
        addresses: &[
            "1.1.1.1",
            "1.1.1.2",
            "1.1.1.3",
            "1.0.0.1",
            "1.0.0.2",
            "1.0.0.3",
            "2606:4700:4700::1111",
            "2606:4700:4700::1001",
            "2606:4700:4700::1112",
            "2606:4700:4700::1002",
            "2606:4700:4700::1113",
            "2606:4700:4700::1003",
        ],
    },
    Provider {
        names: &["dns.quad9.net", "dns9.quad9.net", "dns10.quad9.net", "dns11.quad9.net", "dns12.quad9.net"],
        addresses: &[
            "9.9.9.9",
            "9.9.9.10",
            "9.9.9.11",
            "149.112.112.112",
            "149.112.112.9",
            "149.112.112.10",
            "149.112.112.11",
            "2620:fe::fe",
            "2620:fe::9",
            "2620:fe::10",
            "2620:fe::11",
        ],
    },
    Provider {
        names: &["doh.opendns.com", "doh.familyshield.opendns.com", "dns.opendns.com", "dns.umbrella.com"],
        addresses: &["208.67.222.222", "208.67.220.220", "146.112.41.2", "2620:119:35::35", "2620:119:53::53"],
    },
    Provider { names: &["dns.nextdns.io", "*.dns.nextdns.io"], addresses: &[] },
    Provider {
        names: &["dns.adguard.com", "dns.adguard-dns.com", "*.adguard-dns.com", "*.d.adguard-dns.com"],
        addresses: &["94.140.14.14", "94.140.15.15", "94.140.14.140", "94.140.14.141"],
    },
    Provider { names: &["doh.cleanbrowsing.org"], addresses: &["185.228.168.168", "185.228.168.10", "185.228.168.9"] },
    Provider { names: &["dns.controld.com", "freedns.controld.com"], addresses: &["76.76.2.0", "76.76.10.0"] },
    Provider { names: &["dns.mullvad.net", "*.dns.mullvad.net"], addresses: &["194.242.2.2"] },
    Provider { names: &["dns0.eu", "*.dns0.eu"], addresses: &["193.110.81.0", "185.253.5.0"] },
    Provider { names: &["doh.sb", "doh.dns.sb", "dot.sb"], addresses: &["185.222.222.222", "45.11.45.11"] },
    Provider { names: &["dns.alidns.com"], addresses: &["223.5.5.5", "223.6.6.6"] },
    Provider { names: &["doh.pub", "dns.pub"], addresses: &["1.12.12.12", "120.53.53.53"] },
    Provider { names: &["use-application-dns.net"], addresses: &[] },
];

impl Policy {
    /// The policy with a rule that blocks the known public resolvers over HTTPS which none of its rules names, if it
    /// is one that enforces and lets through by default.
    pub(crate) fn without_encrypted_dns(&self) -> Cow<'_, Self> {
        if self.default.refuses() || !self.enforcing() {
            return Cow::Borrowed(self);
        }
        let patterns = PROVIDERS.iter().filter_map(|provider| {
            let targets: Vec<Target> = provider.targets().collect();
            let named = self.rules.iter().flat_map(|rule| &rule.patterns).any(|(action, pattern)| {
                !action.refuses() && targets.iter().any(|target| overlap(&pattern.target, target))
            });
            (!named).then_some(targets)
        });
        let patterns = patterns.flatten().flat_map(|target| match target {
            // The address also answers plain DNS, which is read.
            Target::Net(_) => vec![over_https(&target, Protocol::Tcp), over_https(&target, Protocol::Udp)],
            _ => vec![Pattern { target, protocol: None, ports: (0, u16::MAX) }],
        });
        let patterns = patterns.map(|pattern| (Action::Block, pattern)).collect();
        let mut policy = self.clone();
        policy.rules.push(Rule { name: ENCRYPTED_DNS.into(), patterns, ..Rule::default() });
        Cow::Owned(policy)
    }
}

impl Provider {
    fn targets(&self) -> impl Iterator<Item = Target> {
        let names = self.names.iter().map(|name| match name.strip_prefix("*.") {
            Some(parent) => Target::Below(parent.into()),
            None => Target::Name((*name).into()),
        });
        let addresses = self.addresses.iter().filter_map(|address| address.parse().ok());
        names.chain(addresses.map(|address| Target::Net(Net { address: mapped(address), bits: 128 })))
    }
}

/// The public resolver that a rule's target names, by one of its names or addresses.
pub(crate) fn resolver(target: &Target) -> Option<&'static str> {
    let named = |provider: &&Provider| provider.targets().any(|known| overlap(target, &known));
    PROVIDERS.iter().find(named).and_then(|provider| provider.names.first().copied())
}

fn over_https(target: &Target, protocol: Protocol) -> Pattern {
    Pattern { target: target.clone(), protocol: Some(protocol), ports: (443, 443) }
}

/// Whether a rule's target names one of these: what is said about everything names nobody.
fn overlap(rule: &Target, known: &Target) -> bool {
    match (rule, known) {
        (Target::Any, _) => false,
        (Target::Name(a), Target::Name(b)) => a == b,
        (Target::Name(name), Target::Below(parent)) | (Target::Below(parent), Target::Name(name)) => {
            below(name, parent)
        }
        (Target::Below(a), Target::Below(b)) => a == b || below(a, b) || below(b, a),
        (Target::Net(net), Target::Net(address)) => net.bits > 96 && net.contains(address.address),
        _ => false,
    }
}

fn below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(default: &str, rules: &str) -> Policy {
        let text = format!("version: 1\ndefault: {default}\nrules:\n{rules}");
        Policy::parse("p.yaml", text.as_bytes()).unwrap()
    }

    #[test]
    fn every_address_is_one() {
        for provider in &PROVIDERS {
            assert_eq!(provider.targets().count(), provider.names.len() + provider.addresses.len());
        }
    }

    #[test]
    fn known_resolvers_are_refused_where_others_are_let_through() {
        let lax = policy("allow", "  - block: [\"tracker.example.org\"]\n");
        let tcp = |p: &Policy, host, ip: &str, port| {
            p.compile().decide(host, Some(ip.parse().unwrap()), port, Protocol::Tcp).action
        };
        assert_eq!(tcp(&lax, Some("dns.google"), "203.0.113.1", 443), Action::Block);
        assert_eq!(tcp(&lax, None, "1.1.1.1", 443), Action::Block);
        assert_eq!(tcp(&lax, None, "1.1.1.1", 80), Action::Allow);
        assert_eq!(lax.compile().decide(None, Some([8, 8, 8, 8].into()), 53, Protocol::Udp).action, Action::Allow);
        assert_eq!(lax.compile().decide_query("mozilla.cloudflare-dns.com").action, Action::Block);
        assert_eq!(lax.compile().decide_query("use-application-dns.net").action, Action::Block);
        let d = lax.compile().decide(None, Some([1, 1, 1, 1].into()), 443, Protocol::Tcp);
        assert_eq!(lax.compile().rule_name(d.rule.unwrap()), ENCRYPTED_DNS);
        assert!(lax.tables().unwrap().rules.iter().any(|rule| rule == ENCRYPTED_DNS));
    }

    #[test]
    fn a_rule_that_names_the_resolver_is_followed() {
        for allow in ["dns.google:443", "8.8.8.0/24", "*.google"] {
            let named = policy("allow", &format!("  - allow: [\"{allow}\"]\n    block: [\"x.test\"]\n"));
            assert_eq!(
                named.compile().decide(None, Some([8, 8, 8, 8].into()), 443, Protocol::Tcp).action,
                Action::Allow
            );
            assert_eq!(named.compile().decide_query("dns.google").action, Action::Allow, "{allow}");
            assert_eq!(named.compile().decide_query("dns.quad9.net").action, Action::Block, "{allow}");
        }
    }

    #[test]
    fn nothing_is_added_where_nothing_can_be_refused_or_all_is() {
        for (default, rules) in [("allow", "  - allow: [\"a.test\"]\n"), ("block", "  - allow: [\"*.google\"]\n")] {
            assert_eq!(policy(default, rules).without_encrypted_dns().rules.len(), 1);
        }
    }
}
