//! What a report is made of beside what the engine folded: what was known at the start, and what at the end.

use std::collections::BTreeMap;

use trustrun_common::counter;
use trustrun_guard::{Changed, locks::Held};
use trustrun_model::{Assurance, Instants, Limit, LockState, Operator, PolicyRef, SensorKind};

/// What is known of a session when it starts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its id.
    pub id: String,
    /// The command, redacted.
    pub command: Vec<String>,
    /// The command's executable, to hash; empty if it was not found.
    pub executable: String,
    /// The user that the target runs as.
    pub user: String,
    /// Who ran the tool.
    pub operator: Operator,
    /// The policy.
    pub policy: Option<PolicyRef>,
    /// What looks.
    pub sensor: SensorKind,
    /// Whether the kernel refuses.
    pub enforce: bool,
    /// The command's locks as far as this host can hold them; none where nothing is refused.
    pub locks: Vec<LockState>,
    /// What leads around the session by the operator's own choice: standard descriptors, sockets that the policy lets in.
    pub doors: Vec<Limit>,
    /// What the command was given whose traffic cannot be seen.
    pub from_outside: Vec<String>,
    /// A mode that can never pass, and why (`--best-effort`).
    pub no_pass: Option<String>,
    /// Resolvers whose answers are believed.
    pub resolvers: Vec<String>,
    /// Nanoseconds since the epoch.
    pub started_ns: i64,
}

impl Facts {
    /// What kind of looking it is, before it is known which locks the command took upon itself.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        match self.sensor {
            SensorKind::Sockets => Assurance::Sampled,
            _ if self.enforce => Assurance::Enforced,
            _ => Assurance::Observed,
        }
    }

    /// The locks that the command was under: those that this host can hold and that it told of itself.
    pub(super) fn locks(&self, held: Held) -> Vec<LockState> {
        let locks = self.locks.iter().enumerate().map(|(place, lock)| {
            let held = lock.held && held.has(place);
            let reason = lock.reason.clone().or_else(|| (!held).then(|| "the command did not come under it".into()));
            LockState { held, reason: reason.filter(|_| !held), ..lock.clone() }
        });
        locks.collect()
    }
}

/// A hook that was lost while the target ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostHook {
    /// Its place in [`HOOK_NAMES`].
    pub hook: u32,
    /// When that was noticed, nanoseconds since the epoch.
    pub noticed_ns: i64,
}

impl Final {
    /// The end of a session without the kernel's programs.
    pub(crate) fn without_kernel(received: u64, at: Instants) -> Self {
        Self {
            watched: true,
            status: None,
            counters: [0; counter::COUNT as usize],
            received,
            own: 0,
            undecoded: 0,
            stored: 0,
            dropped: BTreeMap::new(),
            leftovers: Vec::new(),
            lost_hooks: Vec::new(),
            changed: Vec::new(),
            held: Held::default(),
            unix: false,
            border: false,
            packets: false,
            attached_ns: at.wall_ns,
            no_scope: None,
            at,
        }
    }
}

/// What is known when it ends.
#[derive(Clone, Debug)]
pub struct Final {
    /// Whether it was watched until its end, so that a report on it can be made at all.
    pub watched: bool,
    /// The first child's wait status; `None` if the foreground process was lost.
    pub status: Option<i32>,
    /// The kernel's counters.
    pub counters: [u64; counter::COUNT as usize],
    /// Records that came out of the ring.
    pub received: u64,
    /// Events of the agent's own resolver, beside those of the ring.
    pub own: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Rows that reached the store.
    pub stored: u64,
    /// Rows that did not, by stage.
    pub dropped: BTreeMap<String, u64>,
    /// Processes that outlived the first child and its grace.
    pub leftovers: Vec<u32>,
    /// Hooks that somebody else took off or changed.
    pub lost_hooks: Vec<LostHook>,
    /// Files by which others are made to act that were changed meanwhile.
    pub changed: Vec<Changed>,
    /// The locks that the command told that it is under.
    pub held: Held,
    /// Whether what crosses the session's border over unix sockets was seen.
    pub unix: bool,
    /// Whether it was refused, but for what the policy lets in.
    pub border: bool,
    /// Whether packet sockets that were used are told.
    pub packets: bool,
    /// When the hooks were attached, nanoseconds since the epoch.
    pub attached_ns: i64,
    /// Why systemd made no scope for the session, where it should have.
    pub no_scope: Option<String>,
    /// Now.
    pub at: Instants,
}
