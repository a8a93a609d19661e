//! The hooks and the locks, tried as `run` would use them.

use std::{path::PathBuf, time::SystemTime};

use trustrun_guard::{
    GuardError, Identity,
    locks::{Checked, Held, Stdio, Subject, stdio, survey},
    probe::{self, Probe},
};
use trustrun_session::Resolvers;
use trustrun_store::SessionId;

use super::host::Host;
use crate::{
    caller,
    commands::run::plan::{DNS_GRACE, RING_BYTES, mapped},
};

/// What came of trying.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) probe: Probe,
    /// The locks of an ordinary user's command.
    pub(super) user: Locked,
    /// The locks of root's.
    pub(super) root: Locked,
    /// Standard input, output or error with which `run` enforces nothing.
    pub(super) outside: bool,
}

/// The locks of one user's command.
#[derive(Debug)]
pub(super) struct Locked {
    /// Whose.
    pub(super) name: String,
    /// What the survey says, which `run --strict` asks as well.
    pub(super) survey: Vec<Checked>,
    /// Which held when they were taken on, or why no enforced command can be started. None where that was not tried.
    pub(super) held: Option<Result<Held, String>>,
}

impl Tried {
    /// Tries all of it; the hooks last, since that changes this process.
    pub(super) fn here(host: &Host) -> Self {
        let user = ordinary();
        let root = Identity { name: "root".into(), uid: 0, gid: 0, home: PathBuf::from("/root") };
        let outside = stdio().into_iter().any(|kind| matches!(kind, Stdio::Network | Stdio::Folder));
        let (user, root) = (Locked::of(&user, host.uid == 0), Locked::of(&root, host.uid == 0));
        Self { user, root, outside, probe: probe::hooks(&plan()) }
    }
}

#[cfg(test)]
impl Tried {
    /// A host that refused everything.
    pub(super) fn nothing(user: &str, why: &str) -> Self {
        let refused = |name: &'static str, optional| probe::HookState {
            name,
            optional,
            attached: false,
            seen: false,
            refused: Some(why.into()),
        };
        let hooks = trustrun_common::HOOK_NAMES.into_iter().map(|name| refused(name, false));
        let locked = |name: &str, uid| Locked {
            name: name.into(),
            survey: survey(&Subject { uid, ..Subject::default() }),
            held: Some(Err(why.into())),
        };
        Self {
            probe: Probe {
                hooks: hooks
                    .chain(["unix_peer", "unix_connect", "unix_send"].map(|name| refused(name, true)))
                    .collect(),
                refusal: None,
                failed: Some(GuardError::Guard { reason: why.into() }),
                no_scope: None,
            },
            user: locked(user, 1000),
            root: locked("root", 0),
            outside: false,
        }
    }
}

impl Locked {
    fn of(identity: &Identity, try_it: bool) -> Self {
        let subject = Subject { uid: identity.uid, gid: identity.gid, allowed: Vec::new() };
        let held = try_it.then(|| probe::locks(identity));
        Self { name: identity.name.clone(), survey: survey(&subject), held }
    }
}

/// The user behind sudo, who runs it, or nobody.
fn ordinary() -> Identity {
    let own = nix::unistd::getuid();
    let uid = caller::behind_sudo().map(|(uid, _)| uid).or((!own.is_root()).then_some(own));
    let found: Result<Identity, GuardError> = match uid {
        Some(uid) => Identity::by_id(uid.as_raw()),
        None => Identity::find("nobody"),
    };
    // A container may know no users.
    let other = uid.map_or(65534, nix::unistd::Uid::as_raw);
    found.unwrap_or_else(|_| Identity { name: other.to_string(), uid: other, gid: other, home: "/".into() })
}

/// A session without a policy.
fn plan() -> trustrun_guard::Plan {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let resolvers = Resolvers::read();
    trustrun_guard::Plan {
        session: SessionId::new(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)).to_string(),
        tables: None,
        conditions: None,
        enforce: false,
        resolvers: resolvers.addresses.iter().map(|a| mapped(*a)).collect(),
        search: resolvers.search,
        hosts: Vec::new(),
        dns_grace: DNS_GRACE,
        sizes: trustrun_guard::Sizes { ring_bytes: RING_BYTES, tables: Vec::new() },
        kinds: 0,
        packets: false,
        doors: Vec::new(),
        wait_all: false,
        as_root: false,
    }
}
