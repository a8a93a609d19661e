//! The rules as a person reads them, the matcher of user space and the tables of the kernel decide alike.

mod support;

use jiff::civil::date;
use proptest::prelude::*;
use support::{
    Dest, class_of, emulate, emulate_query, judge, judge_query, judge_unknown, number, policy, processes, scene, yaml,
};
use trustrun_model::Protocol;
use trustrun_policy::{Class, Composer, Decision, Matcher, Named, NoFiles, Policy};

/// What is decided, with the rule's name.
fn decide(policy: &Policy, matcher: &Matcher, class: Class, dest: &Dest) -> (u8, Option<String>) {
    let protocol = Protocol::from_number(dest.protocol);
    named(policy, matcher.decide_as(class, dest.host.as_deref(), dest.addr, dest.port, protocol))
}

fn named(policy: &Policy, decision: Decision) -> (u8, Option<String>) {
    (number(decision.action), decision.rule.map(|rule| policy.rule_name(rule).to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn matcher_and_tables_decide_as_the_rules_say((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for dest in &destinations {
            let mut kernel = std::collections::HashMap::new();
            for process in processes() {
                let class = class_of(matcher.classes(), &process);
                prop_assert!(class != Class(0) || rules.iter().all(|r| r.when.is_none()), "{:?}", process);
                let judged = judge(&rules, default, &process, dest);
                let decided = decide(&policy, &matcher, class, dest);
                prop_assert_eq!(&decided, &judged, "matcher, {:?}, {:?}", dest, process);
                let kernel = kernel.entry(class).or_insert_with(|| emulate(&tables, class, dest, false));
                prop_assert_eq!(&*kernel, &judged, "tables, {:?}, {:?}", dest, process);
            }
        }
    }

    #[test]
    fn what_is_not_classified_gets_the_most_severe_word((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for dest in &destinations {
            let judged = judge_unknown(&rules, default, dest);
            prop_assert_eq!(&decide(&policy, &matcher, Class(0), dest), &judged, "matcher, {:?}", dest);
            prop_assert_eq!(&emulate(&tables, Class(0), dest, false), &judged, "tables, {:?}", dest);
        }
    }

    #[test]
    fn claims_are_judged_alike((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for dest in &destinations {
            let (Some(host), Some(addr)) = (&dest.host, dest.addr) else { continue };
            let protocol = Protocol::from_number(dest.protocol);
            for class in (0..matcher.classes().count()).map(|class| Class(class as u8)) {
                let decided = named(&policy, matcher.decide_claim(class, host, addr, dest.port, protocol));
                prop_assert_eq!(emulate(&tables, class, dest, true), decided, "{:?}, {:?}", dest, class);
            }
        }
    }

    #[test]
    fn matcher_and_tables_judge_lookups_alike((rules, default, destinations) in scene()) {
        let policy = policy(&rules, default);
        let (matcher, tables) = (policy.compile(), policy.tables().unwrap());
        for host in destinations.iter().filter_map(|d| d.host.as_deref()) {
            let mut most = None;
            for process in processes() {
                let class = class_of(matcher.classes(), &process);
                let judged = judge_query(&rules, default, &process, host);
                most = most.max(Some(judged));
                prop_assert_eq!(matcher.decide_query_as(class, host).action, judged, "matcher, {}", host);
                prop_assert_eq!(emulate_query(&tables, class, host), number(judged), "tables, {}", host);
            }
            prop_assert_eq!(Some(matcher.decide_query(host).action), most, "matcher, not classified, {}", host);
            prop_assert_eq!(Some(emulate_query(&tables, Class(0), host)), most.map(number), "tables, {}", host);
        }
    }

    #[test]
    fn a_connection_that_is_let_through_could_be_looked_up((rules, default, destinations) in scene()) {
        let matcher = policy(&rules, default).compile();
        for dest in &destinations {
            let Some(host) = dest.host.as_deref() else { continue };
            // Who is not classified gets the most severe word of all classes, and they need not be about the same class.
            let count = matcher.classes().count();
            for class in (usize::from(count > 1)..count).map(|class| Class(class as u8)) {
                let protocol = Protocol::from_number(dest.protocol);
                let decided = matcher.decide_as(class, Some(host), None, dest.port, protocol);
                if decided.rule.is_some() && !decided.action.refuses() {
                    prop_assert!(!matcher.decide_query_as(class, host).action.refuses(), "{:?}", dest);
                }
            }
        }
    }

    #[test]
    fn the_order_of_rules_never_matters(
        ((rules, default, destinations), shuffled) in
            scene().prop_flat_map(|s| { let rules = s.0.clone(); (Just(s), Just(rules).prop_shuffle()) })
    ) {
        let (one, other) = (policy(&rules, default), policy(&shuffled, default));
        let (first, second) = (one.compile(), other.compile());
        for dest in &destinations {
            for class in (0..first.classes().count()).map(|class| Class(class as u8)) {
                prop_assert_eq!(
                    decide(&one, &first, class, dest), decide(&other, &second, class, dest), "{:?}", dest
                );
            }
        }
        prop_assert_eq!(one.tables().unwrap(), other.tables().unwrap());
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
            for class in (0..whole.classes().count()).map(|class| Class(class as u8)) {
                let decide = |m: &Matcher| m.decide_as(class, dest.host.as_deref(), dest.addr, dest.port, protocol);
                prop_assert_eq!(decide(&merged).action, decide(&whole).action, "{:?}", dest);
            }
        }
    }
}
