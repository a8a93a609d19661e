//! A policy file: what can be read is composed and compiled, and both forms of it answer. Documents end with a NUL each, and
//! extend each other as files in memory.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trustrun_model::Protocol;
use trustrun_policy::{Class, Composer, Facts, Named, Opened, Opener, Policy, PolicyError};

/// Documents by their place: `./1`, `./2` and so on.
struct Files<'d>(Vec<&'d [u8]>);

impl Opener for Files<'_> {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let name = path.to_string_lossy();
        let found = name.parse().ok().and_then(|index: usize| self.0.get(index));
        let octets = found.ok_or_else(|| PolicyError::unreadable(&name, std::io::ErrorKind::NotFound.into()))?;
        Ok(Opened { octets: octets.to_vec(), hidden: false, identity: Some(name.into_owned()) })
    }
}

fuzz_target!(|data: &[u8]| {
    answers(Policy::parse("fuzz", data));
    let mut files = Files(data.split(|octet| *octet == 0).take(8).collect());
    let today = jiff::civil::date(2026, 11, 21);
    let composed = Composer::new(&mut files, today).compose(&[Named::File("0".into())]);
    if let Ok(policy) = &composed {
        let read = Policy::parse_canonical(policy.canonical.as_bytes()).expect("its own canonical form");
        assert_eq!((read.rules.len(), &read.sha256), (policy.rules.len(), &policy.sha256));
        let _ = policy.lints(today, Facts::default());
    }
    answers(composed);
});

fn answers(policy: Result<Policy, PolicyError>) {
    let policy = match policy {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().contains('\u{1b}'), "nothing raw is shown");
            return;
        }
    };
    let matcher = policy.compile();
    let _ = policy.tables();
    for name in ["api.allowed.test", "a", ""] {
        let query = matcher.decide_query(name);
        assert!(query.rule.is_none_or(|rule| !matcher.rule_name(rule).is_empty()));
        let _ = matcher.is_search_expansion(Class::default(), name, &["test"]);
        let _ = matcher.decide(Some(name), Some([198, 51, 100, 7].into()), 443, Protocol::Tcp);
    }
}
