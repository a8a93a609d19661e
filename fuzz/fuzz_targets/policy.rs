//! A policy file: what can be read is compiled, and both forms of it answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_model::Protocol;
use trustrun_policy::Policy;

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = Policy::parse("fuzz", data) else { return };
    let matcher = policy.compile();
    let _ = policy.tables();
    for name in ["api.allowed.test", "a", ""] {
        let query = matcher.decide_query(name);
        assert!(query.rule.is_none_or(|rule| !matcher.rule_name(rule).is_empty()));
        let _ = matcher.is_search_expansion(name, &["test"]);
        let _ = matcher.decide(Some(name), Some([198, 51, 100, 7].into()), 443, Protocol::Tcp);
    }
});
