//! The rules as a person reads them, the matcher of user space and the tables of the kernel decide alike.

mod support;

use jiff::civil::date;
use proptest::prelude::*;
use support::{emulate, emulate_query, judge, judge_query, number, policy, scene, yaml};
use trustrun_model::Protocol;
use trustrun_policy::{Composer, Named, NoFiles};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn matcher_and_tables_decide_as_the_rules_say((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for dest in &destinations {
            let judged = judge(&rules, default, dest);
            let protocol = Protocol::from_number(dest.protocol);
            let decided = matcher.decide(dest.host.as_deref(), dest.addr, dest.port, protocol);
            prop_assert_eq!(decided, judged, "matcher, {:?}", dest);
            let kernel = emulate(&tables, dest);
            prop_assert_eq!(kernel, (number(judged.action), judged.rule.map(|r| r.0)), "tables, {:?}", dest);
        }
    }

    #[test]
    fn matcher_and_tables_judge_lookups_alike((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for host in destinations.iter().filter_map(|d| d.host.as_deref()) {
            let judged = judge_query(&rules, default, host);
            prop_assert_eq!(matcher.decide_query(host).action, judged, "matcher, {}", host);
            prop_assert_eq!(emulate_query(&tables, host), number(judged), "tables, {}", host);
        }
    }

    #[test]
    fn a_connection_that_is_let_through_could_be_looked_up((rules, default, destinations) in scene()) {
        let matcher = policy(&rules, default).compile();
        for dest in &destinations {
            let Some(host) = dest.host.as_deref() else { continue };
            let decided = matcher.decide(Some(host), None, dest.port, Protocol::from_number(dest.protocol));
            if decided.rule.is_some() && !decided.action.refuses() {
                prop_assert!(!matcher.decide_query(host).action.refuses(), "{:?}", dest);
            }
        }
    }

    #[test]
    fn the_order_of_rules_never_matters(
        ((rules, default, destinations), shuffled) in
            scene().prop_flat_map(|s| { let rules = s.0.clone(); (Just(s), Just(rules).prop_shuffle()) })
    ) {
        let (one, other) = (policy(&rules, default).compile(), policy(&shuffled, default).compile());
        for dest in &destinations {
            let protocol = Protocol::from_number(dest.protocol);
            let decide = |m: &trustrun_policy::Matcher| m.decide(dest.host.as_deref(), dest.addr, dest.port, protocol);
            prop_assert_eq!(decide(&one).action, decide(&other).action, "{:?}", dest);
        }
    }

    #[test]
    fn composing_decides_as_one_policy_with_all_rules((rules, default, destinations) in scene(), cut in 0usize..10) {
        let cut = cut.min(rules.len());
        let (first, second) = (rules[..cut].to_vec(), rules[cut..].to_vec());
        let part = |name: &str, rules| Named::Text(name.into(), yaml(rules, default).into_bytes());
        let parts = vec![part("first.yaml", &first), part("second.yaml", &second)];
        let compose = |parts: Vec<Named>| Composer::new(&mut NoFiles, date(2026, 11, 21)).compose(&parts).unwrap();
        let merged = compose(parts.clone());
        prop_assert_eq!(&merged, &compose(parts.into_iter().rev().collect()));
        let (merged, whole) = (merged.compile(), policy(&rules, default).compile());
        for dest in &destinations {
            let protocol = Protocol::from_number(dest.protocol);
            let decide = |m: &trustrun_policy::Matcher| m.decide(dest.host.as_deref(), dest.addr, dest.port, protocol);
            prop_assert_eq!(decide(&merged).action, decide(&whole).action, "{:?}", dest);
        }
    }
}
