//! Whether the hooks are still where they were put.
//!
//! A link stays attached while anyone holds it, but another process of root may take it off all the same
//! (`BPF_LINK_DETACH`, as `bpftool link detach` does) or put another program in it (`BPF_LINK_UPDATE`). The kernel tells
//! nobody, so it is asked once a second: a link that was taken off still exists, with no cgroup. Links of tracepoints can
//! be neither taken off nor changed; they are asked all the same. Other programs on the same cgroup take nothing away.

use std::time::{Duration, Instant};

use aya::programs::links::FdLink;
use trustrun_common::HOOK_NAMES;

use crate::{GuardError, sys};

/// How often the kernel is asked: two short system calls for each hook.
const EVERY: Duration = Duration::from_secs(1);
/// BPF_LINK_TYPE_CGROUP, include/uapi/linux/bpf.h
const CGROUP: u32 = 3;

/// What the kernel says of a link, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// BPF_LINK_TYPE_*.
    pub(crate) kind: u32,
    /// The id of the program in it.
    pub(crate) program: u32,
    /// The id of the cgroup that it is attached to, where it is such a link.
    pub(crate) cgroup: u64,
}

#[derive(Debug)]
struct Watched {
    /// Its place in [`HOOK_NAMES`].
    hook: u32,
    id: u32,
    was: State,
    lost: bool,
}

/// The links of a session, and how they were when they were made.
#[derive(Debug)]
pub(crate) struct Watch {
    links: Vec<Watched>,
    asked: Instant,
}

impl Watch {
    /// Remembers links that were just attached to this cgroup, or to tracepoints.
    ///
    /// # Errors
    /// If the kernel cannot be asked about one.
    pub(crate) fn new(links: &[(&'static str, FdLink)], cgroup: u64) -> Result<Self, GuardError> {
        let links = links.iter().map(|(name, link)| watched(name, link, cgroup)).collect::<Result<_, _>>()?;
        Ok(Self { links, asked: Instant::now() })
    }

    /// Whether it is time to ask again.
    pub(crate) fn due(&self) -> bool {
        self.asked.elapsed() >= EVERY
    }

    /// Asks the kernel; the hooks that were lost since it was last asked.
    pub(crate) fn lost(&mut self) -> Vec<u32> {
        self.asked = Instant::now();
        let mut lost = Vec::new();
        for link in self.links.iter_mut().filter(|l| !l.lost) {
            link.lost = !holds(link.was, sys::link_state(link.id).ok());
            if link.lost {
                lost.push(link.hook);
            }
        }
        lost
    }

    /// Whether any was ever lost.
    pub(crate) fn broken(&self) -> bool {
        self.links.iter().any(|l| l.lost)
    }
}

fn watched(name: &'static str, link: &FdLink, cgroup: u64) -> Result<Watched, GuardError> {
    let failed = |reason: String| GuardError::Program { step: "tell of its link", name: name.into(), reason };
    let hook = (0..).zip(HOOK_NAMES).find(|(_, n)| *n == name).map(|(i, _)| i);
    let hook = hook.ok_or_else(|| GuardError::Missing { what: "hook", name: name.into() })?;
    let id = link.info().map_err(|e| failed(e.to_string()))?.id();
    let mut was = sys::link_state(id).map_err(|e| failed(e.to_string()))?;
    if was.kind == CGROUP {
        // Not what it says: it may have been taken off already.
        was.cgroup = cgroup;
    }
    Ok(Watched { hook, id, was, lost: false })
}

/// Whether a link is as it was; one that the kernel does not know is not.
fn holds(was: State, is: Option<State>) -> bool {
    is.is_some_and(|is| is.program == was.program && (was.kind != CGROUP || is.cgroup == was.cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_without_its_cgroup_or_its_program_is_lost() {
        let was = State { kind: CGROUP, program: 7, cgroup: 99 };
        assert!(holds(was, Some(was)));
        assert!(!holds(was, Some(State { cgroup: 0, ..was })), "taken off by force");
        assert!(!holds(was, Some(State { program: 8, ..was })), "another program is in it");
        assert!(!holds(was, None));
        let tracepoint = State { kind: 1, program: 7, cgroup: 0 };
        assert!(holds(tracepoint, Some(State { cgroup: 5, ..tracepoint })), "its words mean something else");
    }
}
