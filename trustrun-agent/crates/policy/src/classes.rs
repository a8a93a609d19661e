//! Conditions of rules (`when`) as classes of processes: a class is the set of conditions that hold for a process,
//! fixed when it executes a program. They are enumerated here, so that what a rule says to each class can be put into
//! tables before the session starts.

use std::{collections::BTreeSet, sync::Arc};

use crate::{Rule, When};

/// Most classes, that of processes which are not classified included.
pub const MAX_CLASSES: usize = 256;
/// Most different conditions: each is a bit.
const MAX_CONDITIONS: usize = 64;

/// Which conditions hold for a process. 0 is a process that is not classified, to which the most severe word that any
/// class gets applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u8);

/// The conditions of a policy, and the classes that they make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Each condition once; bit `i` of a mask says that condition `i` holds.
    conditions: Vec<Arc<When>>,
    /// What holds for class 1 and so on, ascending.
    masks: Vec<u64>,
    too_many: bool,
}

impl Classes {
    /// The classes that the rules tell apart.
    pub(crate) fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let distinct: BTreeSet<&Arc<When>> = rules.into_iter().filter_map(|rule| rule.when.as_ref()).collect();
        let conditions: Vec<Arc<When>> = distinct.into_iter().cloned().collect();
        let masks = enumerate(&conditions);
        Self { too_many: masks.is_none(), masks: masks.unwrap_or_default(), conditions }
    }

    /// The conditions, by their bits.
    #[must_use]
    pub fn conditions(&self) -> &[Arc<When>] {
        &self.conditions
    }

    /// How many classes there are, that of processes which are not classified included: 1 where no rule has a condition.
    #[must_use]
    pub fn count(&self) -> usize {
        self.masks.len() + 1
    }

    /// Whether there are more than [`MAX_CLASSES`]; then no process is classified.
    #[must_use]
    pub fn too_many(&self) -> bool {
        self.too_many
    }

    /// Each class but 0, with the conditions that hold for it.
    pub fn masks(&self) -> impl Iterator<Item = (Class, u64)> {
        (1..=u8::MAX).map(Class).zip(self.masks.iter().copied())
    }

    /// The class of processes for which exactly these conditions hold; class 0 where nobody thought that could be.
    #[must_use]
    pub fn of(&self, mask: u64) -> Class {
        self.masks.binary_search(&mask).ok().and_then(|i| u8::try_from(i + 1).ok()).map_or_else(Class::default, Class)
    }

    /// The bit of a condition.
    pub(crate) fn condition(&self, when: &Arc<When>) -> u32 {
        self.conditions.binary_search(when).map_or(u32::MAX, |i| i as u32)
    }

    /// Whether a condition holds for a class, which is not 0.
    pub(crate) fn holds(&self, class: Class, condition: u32) -> bool {
        let mask = usize::from(class.0).checked_sub(1).and_then(|i| self.masks.get(i));
        mask.is_some_and(|mask| mask.checked_shr(condition).unwrap_or(0) & 1 == 1)
    }

    /// All classes but 0.
    pub(crate) fn known(&self) -> impl Iterator<Item = Class> {
        self.masks().map(|(class, _)| class)
    }
}

/// The sets of conditions that can hold together, ascending; none where there are too many.
fn enumerate(conditions: &[Arc<When>]) -> Option<Vec<u64>> {
    if conditions.is_empty() {
        return Some(Vec::new());
    }
    if conditions.len() > MAX_CONDITIONS {
        return None;
    }
    let part = |words: fn(&When) -> &[String], exclusive: fn(&str, &str) -> bool| {
        possible(&conditions.iter().map(|c| words(c)).collect::<Vec<_>>(), exclusive)
    };
    let parts = [
        part(|w| &w.exe, |a, b| a != b && exclusive_globs(a, b))?,
        part(|w| &w.user, |a, b| a != b)?,
        part(|w| &w.unit, |a, b| a != b && exclusive_globs(a, b))?,
        part(|w| &w.argument, |_, _| false)?,
    ];
    let mut all: BTreeSet<u64> = [u64::MAX >> (MAX_CONDITIONS - conditions.len())].into();
    for part in parts {
        all = all.iter().flat_map(|a| part.iter().map(move |b| a & b)).collect();
        if all.len() >= MAX_CLASSES {
            return None;
        }
    }
    all.insert(0);
    (all.len() < MAX_CLASSES).then(|| all.into_iter().collect())
}

/// For one key of all conditions: the masks of conditions whose list holds, for every set of words that can be true of
/// one process. A condition without the key always holds.
fn possible(lists: &[&[String]], exclusive: fn(&str, &str) -> bool) -> Option<BTreeSet<u64>> {
    let free = (0..).zip(lists).filter(|(_, list)| list.is_empty()).fold(0u64, |mask, (i, _)| mask | 1 << i);
    let words: BTreeSet<&str> = lists.iter().flat_map(|list| list.iter().map(String::as_str)).collect();
    // Sets of words that are true together, each with the conditions that they make hold.
    let mut sets: Vec<(Vec<&str>, u64)> = vec![(Vec::new(), free)];
    for word in words {
        let bits =
            (0..).zip(lists).filter(|(_, l)| l.iter().any(|w| w == word)).fold(0u64, |mask, (i, _)| mask | 1 << i);
        let with: Vec<_> = sets
            .iter()
            .filter(|(others, _)| !others.iter().any(|other| exclusive(other, word)))
            .map(|(others, mask)| ([&others[..], &[word]].concat(), mask | bits))
            .collect();
        sets.extend(with);
        // Of sets with the same words' effect one is enough only where nothing excludes; so only the bound is kept.
        if sets.len() > MAX_CLASSES * MAX_CLASSES {
            return None;
        }
    }
    Some(sets.into_iter().map(|(_, mask)| mask).collect())
}

/// Whether no path matches both: what stands before the first wildcard differs, or neither has one.
fn exclusive_globs(a: &str, b: &str) -> bool {
    let literal = |glob: &str| glob.find(['*', '?', '[']).unwrap_or(glob.len());
    let (x, y) = (literal(a), literal(b));
    let common = x.min(y);
    if a.as_bytes()[..common] != b.as_bytes()[..common] {
        return true;
    }
    // A whole path is in the other only if it is at least as long as what is certain of that.
    (x == a.len() && y > x) || (y == b.len() && x > y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(when: When) -> Rule {
        Rule { when: Some(Arc::new(when)), ..Rule::default() }
    }

    fn exe(paths: &[&str]) -> When {
        When { exe: paths.iter().map(|p| (*p).to_owned()).collect(), ..When::default() }
    }

    fn user(names: &[&str]) -> When {
        When { user: names.iter().map(|p| (*p).to_owned()).collect(), ..When::default() }
    }

    #[test]
    fn a_process_has_one_executable_and_one_user() {
        let classes = |whens: Vec<When>| Classes::new(&whens.into_iter().map(rule).collect::<Vec<_>>());
        assert_eq!(Classes::new([]).count(), 1);
        // Unclassified, none, one of three.
        assert_eq!(classes(vec![exe(&["/a"]), exe(&["/b"]), exe(&["/c"])]).count(), 5);
        assert_eq!(classes(vec![exe(&["/opt/a/*"]), exe(&["/opt/b/*"])]).count(), 4);
        assert_eq!(classes(vec![exe(&["/opt/*"]), exe(&["/opt/b/*"])]).count(), 5);
        assert_eq!(classes(vec![exe(&["/a"]), user(&["x"]), user(&["y"])]).count(), 7);
        let both = When { user: vec!["x".into()], ..exe(&["/a"]) };
        assert_eq!(classes(vec![both, exe(&["/a"])]).masks, [0, 1, 3]);
    }

    #[test]
    fn more_than_can_be_told_apart_is_said() {
        let globs: Vec<Rule> = (0..9).map(|i| rule(exe(&[&format!("/**/{i}")]))).collect();
        let classes = Classes::new(&globs);
        assert!(classes.too_many() && classes.count() == 1);
        let users: Vec<Rule> = (0..60).map(|i| rule(user(&[&format!("u{i}")]))).collect();
        assert_eq!(Classes::new(&users).count(), 62);
    }

    #[test]
    fn what_nobody_thought_of_is_not_classified() {
        let classes = Classes::new(&[rule(exe(&["/a"])), rule(exe(&["/b"]))]);
        assert_eq!(classes.of(3), Class(0));
        assert!(classes.masks().all(|(class, mask)| classes.of(mask) == class));
    }
}
