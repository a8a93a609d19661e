//! What runs on which kernel: all of it is data, and this is the one place to change it.

/// How the guest mounts its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// v2 alone, at /sys/fs/cgroup; and a bpffs.
    Pure,
    /// v1 controllers and v2 beside them, and no bpffs.
    Hybrid,
}

/// One of Debian's cloud kernels.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What it is called here, and how its version begins; the newest there is, whatever its version, where this is `newest`.
    pub(crate) name: &'static str,
    pub(crate) cgroups: Cgroups,
    /// How many processors the guest has. Where QEMU counts instructions (`qemu`), kernels of before 6.12 wait for their second
    /// processor for ever.
    pub(crate) processors: u32,
}

/// The kernels, the oldest first.
pub(crate) const KERNELS: &[Kernel] = &[
    // The oldest that is claimed to work. It has no cgroup.kill, no Landlock, and tells no count of verified instructions.
    Kernel { name: "5.10", cgroups: Cgroups::Hybrid, processors: 1 },
    Kernel { name: "6.1", cgroups: Cgroups::Pure, processors: 1 },
    Kernel { name: "6.12", cgroups: Cgroups::Pure, processors: 2 },
    Kernel { name: "newest", cgroups: Cgroups::Pure, processors: 2 },
];

/// The kernel that a command of one's own is run on where none is named.
pub(crate) const USUAL: &str = "6.12";

/// One test binary: what runs of it, and where.
#[derive(Debug)]
pub(crate) struct Suite {
    /// Its package, for cargo.
    pub(crate) package: &'static str,
    /// Its name: that of the file or folder below `tests/`.
    pub(crate) name: &'static str,
    /// Tests to run, as parts of their names; none: all of them.
    pub(crate) only: &'static [&'static str],
    /// Tests not to run, as parts of their names.
    pub(crate) without: &'static [&'static str],
    /// Names of the kernels that it runs on; none: all.
    pub(crate) kernels: &'static [&'static str],
    /// Whether it runs only where suites run whole.
    pub(crate) long: bool,
    /// Why not all of it, or not everywhere.
    pub(crate) why: &'static str,
    /// Further options of its binary.
    pub(crate) options: &'static [&'static str],
    /// How long it may take, in seconds.
    pub(crate) seconds: u32,
}

/// A suite that runs whole, everywhere.
const WHOLE: Suite = Suite {
    package: "trustrun-agent",
    name: "",
    only: &[],
    without: &[],
    kernels: &[],
    long: false,
    why: "",
    options: &[],
    seconds: 300,
};

/// Why less than all of a suite runs: emulation takes two to three seconds of a processor for a session, and all kernels are to be
/// done in six minutes on two. What runs is what asks the kernel; how clients differ is the same on every kernel.
const CHOSEN: &str = "emulation is slow: what depends on the kernel (--whole runs all)";

/// Where suites run that ask the kernel little.
const OLDEST: &[&str] = &["5.10"];
const NEWEST: &[&str] = &["newest"];

/// Why a suite runs nowhere but on this machine.
const OURS: &str = "it asks the agent and not the kernel (--whole runs it)";
const FULL: &str = "it fills maps by the ten thousand, which takes minutes in emulation (--whole runs it)";

/// The suites, in the order in which they run.
pub(crate) const SUITES: &[Suite] = &[
    // Every program loads, within the budget; what it prints is in the table's notes.
    Suite { package: "trustrun-guard", name: "verifier", options: &["--nocapture"], seconds: 120, ..WHOLE },
    Suite { name: "allowed", only: &["curl_fetches", "udp_is_answered"], why: CHOSEN, ..WHOLE },
    Suite {
        name: "refused",
        only: &["tcp_in_every_form", "udp_in_every_form", "sockets_whose_packets"],
        why: CHOSEN,
        ..WHOLE
    },
    Suite {
        name: "names",
        only: &[
            "of_several_names_on_one_address",
            "larger_than_a_segment_is_refused",
            "a_truncated_answer",
            "hostile_answers_bind_nothing",
        ],
        why: CHOSEN,
        ..WHOLE
    },
    Suite { name: "proxies", only: &["tunnels_to_anybody_else"], kernels: NEWEST, why: CHOSEN, ..WHOLE },
    Suite { name: "observe", only: &["without_a_policy", "kill_refuses"], why: CHOSEN, ..WHOLE },
    Suite { name: "attribution", only: &["threads_forks"], why: CHOSEN, ..WHOLE },
    Suite {
        name: "process",
        only: &["locks::", "run_as_becomes", "what_outlives", "nothing_is_left_behind", "every_hook_is_attached"],
        why: CHOSEN,
        ..WHOLE
    },
    Suite { name: "hooks", without: &["somebody_elses"], why: CHOSEN, ..WHOLE },
    Suite { name: "setup", long: true, why: "it fails at forty places, each a session (--whole runs it)", ..WHOLE },
    // The oldest kernel's connection tracking, and the guests' own nft.
    Suite { name: "nat", only: &["a_lookup_through_a_rewritten_resolver"], kernels: OLDEST, why: CHOSEN, ..WHOLE },
    Suite { name: "tcp_lookups", only: &["is_stored_with_its_answer"], kernels: NEWEST, why: CHOSEN, ..WHOLE },
    Suite { name: "readings", only: &["a_socks_request_for_an_ipv6"], kernels: NEWEST, why: CHOSEN, ..WHOLE },
    Suite { name: "lies", only: &["a_public_name_with_a_private"], kernels: NEWEST, why: CHOSEN, ..WHOLE },
    Suite { name: "failure", only: &["without_its_guard", "without_any_of_them"], why: CHOSEN, ..WHOLE },
    Suite { name: "failclosed", only: &["with_a_stopped_guard", "what_a_small_ring_loses"], why: CHOSEN, ..WHOLE },
    Suite {
        name: "input",
        only: &["without_cgroup2", "without_type_information", "could_not_be_set_up"],
        why: CHOSEN,
        ..WHOLE
    },
    // Where systemd is not the first process they skip.
    Suite { name: "scope", ..WHOLE },
    // Each known way around, as a user and as root.
    Suite { name: "bypass", seconds: 600, ..WHOLE },
    Suite { name: "decide", long: true, why: "forty sessions take minutes in emulation (--whole runs it)", ..WHOLE },
    Suite { name: "policy_files", long: true, why: OURS, ..WHOLE },
    Suite { name: "output", long: true, why: OURS, ..WHOLE },
    Suite { name: "demo", long: true, why: OURS, ..WHOLE },
    Suite { name: "examples", long: true, why: OURS, ..WHOLE },
    Suite { name: "model", long: true, why: OURS, ..WHOLE },
    Suite { name: "flood", long: true, why: FULL, ..WHOLE },
    Suite { name: "scale", long: true, why: FULL, ..WHOLE },
    Suite { name: "soak", long: true, why: FULL, ..WHOLE },
];

/// How many tests of a suite run at once.
pub(crate) const THREADS: u32 = 2;
/// The memory of a guest, in MiB. Its /tmp with the test programs is part of it.
pub(crate) const MEMORY: u32 = 2048;
/// How long one boot may take with all that it runs, in seconds.
pub(crate) const BOOT_SECONDS: u64 = 1200;

impl Suite {
    /// Whether it runs on this kernel; `asked` is that the person wants all of it.
    pub(crate) fn runs_on(&self, kernel: &Kernel, asked: bool) -> bool {
        asked || !self.long && (self.kernels.is_empty() || self.kernels.contains(&kernel.name))
    }

    /// What its binary is given; with a filter of the person's, that alone says what runs, and `whole` is all of it.
    pub(crate) fn arguments(&self, filter: Option<&str>, whole: bool) -> Vec<String> {
        let left_out = self.without.iter().flat_map(|name| ["--skip", name]);
        let chosen: Vec<&str> = match filter {
            Some(filter) => vec![filter],
            None if whole => Vec::new(),
            None => self.only.iter().copied().chain(left_out).collect(),
        };
        chosen.iter().chain(self.options).map(|&word| word.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_reason() {
        for suite in SUITES {
            let part = !suite.only.is_empty() || !suite.without.is_empty() || !suite.kernels.is_empty() || suite.long;
            assert_eq!(part, !suite.why.is_empty(), "{}", suite.name);
            assert!(!suite.name.is_empty());
        }
    }

    #[test]
    fn kernels_that_are_named_exist() {
        let known = |name: &str| KERNELS.iter().any(|kernel| kernel.name == name);
        assert!(SUITES.iter().flat_map(|suite| suite.kernels).all(|name| known(name)));
        assert!(known(USUAL));
    }

    #[test]
    fn a_long_suite_runs_where_all_is_asked_for() {
        let suite = Suite { long: true, ..WHOLE };
        assert!(!suite.runs_on(&KERNELS[0], false) && suite.runs_on(&KERNELS[0], true));
    }

    #[test]
    fn a_filter_replaces_the_choice_of_the_table() {
        let suite = Suite { only: &["a"], without: &["b", "c"], ..WHOLE };
        assert_eq!(suite.arguments(None, false), ["a", "--skip", "b", "--skip", "c"]);
        assert_eq!(suite.arguments(Some("x"), false), ["x"]);
        assert!(suite.arguments(None, true).is_empty());
        let suite = Suite { options: &["--nocapture"], ..WHOLE };
        assert_eq!(suite.arguments(Some("x"), false), ["x", "--nocapture"]);
    }
}
