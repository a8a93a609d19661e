//! Which of equally severe rules is named: the one whose name sorts first, of equal names by what they say, so that no
//! order of writing changes what is reported.

use std::cmp::Ordering;

use trustrun_model::Action;

use crate::{Except, Pattern, Policy, Rule, RuleIndex};

/// The rules of a policy in the order that decides between equals.
#[derive(Debug)]
pub(crate) struct Ranks {
    /// The rule of each rank.
    pub(crate) rules: Vec<RuleIndex>,
    /// The rank of each rule.
    ranks: Vec<u32>,
}

impl Ranks {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self::of(&policy.rules)
    }

    pub(crate) fn of(list: &[Rule]) -> Self {
        let mut rules: Vec<RuleIndex> = (0..).map(RuleIndex).take(list.len()).collect();
        if !list.is_sorted_by(|a, b| order(a, b).is_le()) {
            rules.sort_by(|a, b| order(&list[a.0 as usize], &list[b.0 as usize]));
        }
        let mut ranks = vec![0; rules.len()];
        for (rank, rule) in (0..).zip(&rules) {
            ranks[rule.0 as usize] = rank;
        }
        Self { rules, ranks }
    }

    /// The rule of a rank.
    pub(crate) fn rule(&self, rank: u32) -> RuleIndex {
        self.rules.get(rank as usize).copied().unwrap_or_default()
    }

    /// The rank of a rule.
    pub(crate) fn rank(&self, rule: RuleIndex) -> u32 {
        self.ranks.get(rule.0 as usize).copied().unwrap_or(u32::MAX)
    }

    /// Each rank with its rule.
    pub(crate) fn ranked<'a>(&self, rules: &'a [Rule]) -> impl Iterator<Item = (u32, &'a Rule)> {
        (0..).zip(self.rules.iter().map(|rule| &rules[rule.0 as usize]))
    }
}

fn order(a: &Rule, b: &Rule) -> Ordering {
    a.name.cmp(&b.name).then_with(|| content(a).cmp(&content(b)))
}

/// What a rule says, in an order of its own. Where all of it is equal, only the place in the text differs.
fn content(rule: &Rule) -> impl Ord {
    let mut patterns: Vec<&(Action, Pattern)> = rule.patterns.iter().collect();
    patterns.sort_unstable();
    let excepted = |e: &Except| (e.pattern.clone(), e.expires);
    let mut except: Vec<_> = rule.except.iter().map(excepted).collect();
    except.sort_unstable();
    let patterns: Vec<(Action, Pattern)> = patterns.into_iter().cloned().collect();
    let said = (rule.severity, rule.reason.clone(), rule.expires, rule.remedy.clone());
    (patterns, except, rule.when.clone(), rule.private as u8, said, rule.origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, pattern: &str) -> Rule {
        let patterns = vec![(Action::Block, pattern.parse().unwrap())];
        Rule { name: name.into(), patterns, ..Rule::default() }
    }

    #[test]
    fn names_come_first_and_then_what_is_said() {
        let rules = [rule("b", "a.test"), rule("a", "z.test"), rule("a", "b.test")];
        let named = |order: &[usize]| -> Vec<String> {
            let rules: Vec<Rule> = order.iter().map(|i| rules[*i].clone()).collect();
            let ranks = Ranks::of(&rules);
            ranks.ranked(&rules).map(|(_, r)| format!("{} {}", r.name, r.patterns[0].1)).collect()
        };
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            assert_eq!(named(&order), ["a b.test", "a z.test", "b a.test"]);
        }
    }
}
