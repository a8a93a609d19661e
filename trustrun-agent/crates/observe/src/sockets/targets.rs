//! Which processes of the system are the target's: those that were asked for, what they start, and what that starts.
//!
//! A process is its number and the moment it began, so that a number which is used again never moves a session to a
//! stranger. Whoever once belonged to the target belongs to it until it ends, also when its parent is gone; a child
//! that was born and orphaned between two looks is not found, which is one of the things that sampling cannot see.

use std::collections::{BTreeMap, BTreeSet};

/// A process as far as choosing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its parent at that moment.
    pub parent: u32,
    /// When it began.
    pub started: u64,
    /// Effective user id.
    pub uid: u32,
    /// The file name of its executable, else what it calls itself.
    pub name: String,
    /// Its cgroup of version 2, as a path below the root; empty elsewhere.
    pub cgroup: String,
}

/// What was asked for. Several are joined: whoever one of them means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This process, which began at that moment.
    Process {
        /// Its number.
        tgid: u32,
        /// When it began.
        started: u64,
    },
    /// All whose name matches, new ones too. `*` is any run of characters, `?` is one.
    Name(String),
    /// All of a user, new ones too.
    User(u32),
    /// All in a cgroup and below it, new ones too.
    Cgroup(String),
    /// Every process of the system but those given, which are ours.
    All {
        /// Ours.
        but: BTreeSet<u32>,
    },
}

/// The target's processes, look after look.
#[derive(Debug)]
pub struct Targets {
    wanted: Vec<Wanted>,
    children: bool,
    members: BTreeMap<u32, u64>,
}

impl Targets {
    /// What to watch, and whether what it starts as well.
    #[must_use]
    pub fn new(wanted: Vec<Wanted>, children: bool) -> Self {
        Self { wanted, children, members: BTreeMap::new() }
    }

    /// Who is of the target now: parent and start by thread group id.
    pub fn choose(&mut self, all: &BTreeMap<u32, Candidate>) -> BTreeMap<u32, (u32, u64)> {
        let member = |(tgid, process): (&u32, &Candidate)| {
            let stays = self.members.get(tgid) == Some(&process.started);
            (stays || self.wanted.iter().any(|w| w.means(*tgid, process))).then_some(*tgid)
        };
        let mut chosen: BTreeSet<u32> = all.iter().filter_map(member).collect();
        if self.children {
            // Children have larger numbers than their parents only until numbers wrap, so it goes round until nothing changes.
            loop {
                let born = |(tgid, process): (&u32, &Candidate)| {
                    (!chosen.contains(tgid) && chosen.contains(&process.parent)).then_some(*tgid)
                };
                let more: Vec<u32> = all.iter().filter_map(born).collect();
                if more.is_empty() {
                    break;
                }
                chosen.extend(more);
            }
        }
        let of = |tgid: &u32| all.get(tgid).map(|process| (*tgid, (process.parent, process.started)));
        let chosen: BTreeMap<u32, (u32, u64)> = chosen.iter().filter_map(of).collect();
        self.members = chosen.iter().map(|(tgid, (_, started))| (*tgid, *started)).collect();
        chosen
    }

    /// Whether nobody can come any more: single processes were asked for, and all have ended.
    #[must_use]
    pub fn over(&self) -> bool {
        self.members.is_empty() && self.wanted.iter().all(|w| matches!(w, Wanted::Process { .. }))
    }
}

impl Wanted {
    fn means(&self, tgid: u32, process: &Candidate) -> bool {
        match self {
            Self::Process { tgid: wanted, started } => *wanted == tgid && *started == process.started,
            Self::Name(glob) => matches(glob, &process.name),
            Self::User(uid) => process.uid == *uid,
            Self::Cgroup(path) => {
                process.cgroup.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::All { but } => !but.contains(&tgid),
        }
    }
}

/// Whether a glob of `*` and `?` matches all of a text. Linear in both but for the last star.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                // The last star takes one more.
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                g = at + 1;
                t = taken + 1;
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(parent: u32, started: u64, name: &str) -> Candidate {
        Candidate { parent, started, uid: 1000, name: name.into(), cgroup: "/user.slice/a".into() }
    }

    fn system(list: &[(u32, u32, u64, &str)]) -> BTreeMap<u32, Candidate> {
        list.iter().map(|(tgid, parent, started, name)| (*tgid, process(*parent, *started, name))).collect()
    }

    fn ids(targets: &mut Targets, all: &BTreeMap<u32, Candidate>) -> Vec<u32> {
        targets.choose(all).into_keys().collect()
    }

    #[test]
    fn follows_children_and_keeps_orphans() {
        let mut targets = Targets::new(vec![Wanted::Process { tgid: 10, started: 1 }], true);
        let all =
            system(&[(1, 0, 0, "init"), (10, 1, 1, "sh"), (11, 10, 2, "sh"), (12, 11, 3, "python3"), (13, 1, 3, "x")]);
        assert_eq!(ids(&mut targets, &all), [10, 11, 12]);
        // The child between is gone, and its own child is init's now.
        let all = system(&[(1, 0, 0, "init"), (10, 1, 1, "sh"), (12, 1, 3, "python3"), (14, 12, 9, "curl")]);
        assert_eq!(ids(&mut targets, &all), [10, 12, 14]);
        assert!(!targets.over());
        assert!(ids(&mut targets, &system(&[(1, 0, 0, "init")])).is_empty());
        assert!(targets.over());
    }

    #[test]
    fn a_number_that_is_used_again_is_a_stranger() {
        let mut targets = Targets::new(vec![Wanted::Process { tgid: 10, started: 1 }], true);
        assert_eq!(ids(&mut targets, &system(&[(10, 1, 1, "sh"), (11, 10, 1, "sh")])), [10, 11]);
        assert_eq!(ids(&mut targets, &system(&[(10, 1, 7, "sh"), (11, 1, 1, "sh")])), [11]);
        assert!(ids(&mut targets, &system(&[(10, 1, 7, "sh"), (11, 1, 8, "sh")])).is_empty());
    }

    #[test]
    fn without_children_only_those_that_were_asked_for() {
        let mut targets = Targets::new(vec![Wanted::Process { tgid: 10, started: 1 }], false);
        assert_eq!(ids(&mut targets, &system(&[(10, 1, 1, "sh"), (11, 10, 2, "sh")])), [10]);
    }

    #[test]
    fn names_users_and_cgroups_take_new_ones_too() {
        let mut targets = Targets::new(vec![Wanted::Name("python3*".into())], false);
        assert!(ids(&mut targets, &system(&[(2, 1, 1, "sh")])).is_empty() && !targets.over());
        assert_eq!(ids(&mut targets, &system(&[(2, 1, 1, "sh"), (3, 1, 2, "python3.13")])), [3]);
        let mut targets = Targets::new(vec![Wanted::User(0), Wanted::Cgroup("/user.slice".into())], false);
        assert_eq!(ids(&mut targets, &system(&[(2, 1, 1, "sh")])), [2]);
        let mut targets = Targets::new(vec![Wanted::Cgroup("/user".into())], false);
        assert!(ids(&mut targets, &system(&[(2, 1, 1, "sh")])).is_empty());
        let mut targets = Targets::new(vec![Wanted::All { but: BTreeSet::from([3]) }], false);
        assert_eq!(ids(&mut targets, &system(&[(2, 1, 1, "sh"), (3, 1, 1, "trustrun")])), [2]);
    }

    #[test]
    fn globs() {
        for (glob, text, wanted) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*b", "abab", true),
            ("*b*b", "abac", false),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(matches(glob, text), wanted, "{glob} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_as_a_regular_expression_would(glob in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(g: &[char], t: &[char]) -> bool {
                match g.split_first() {
                    None => t.is_empty(),
                    Some(('*', rest)) => (0..=t.len()).any(|n| slow(rest, &t[n..])),
                    Some((c, rest)) => t.split_first().is_some_and(|(d, more)| (c == d || *c == '?') && slow(rest, more)),
                }
            }
            let (g, t): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&glob, &text), slow(&g, &t));
        }
    }
}
