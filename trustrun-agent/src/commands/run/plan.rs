//! From arguments to a plan: plain data that touches nothing but the files it reads.

use std::{
    env, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use trustrun_common::Address;
use trustrun_guard::{ConditionError, Conditions, GuardError, Identity, Name, Sizes};
use trustrun_model::{LockState, PolicyFile, Untrusted};
use trustrun_policy::{Capture, Policy, PolicyError, Tables, TablesError};
use trustrun_session::Resolvers;
use trustrun_store::SessionId;

use crate::{caller, commands::run::RunArgs, policies::Chosen};

/// Shortest life of a name's binding: resolvers with a TTL of 0 are common, and a program may take its time.
pub(in crate::commands) const DNS_GRACE: Duration = Duration::from_secs(60);
/// 50,000 names asked, answered and connected to within three seconds fit while the engine gets little of a processor
/// that others keep busy. Measured: 16 MiB lost events in half of such runs, 64 MiB in none.
pub(in crate::commands) const RING_BYTES: u32 = 64 << 20;

/// Why a command cannot be run under trustrun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The policy is not usable.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy wants more than this version can do.
    #[error(
        "the policy says `capture: {capture}`, and no content of connections is captured yet: nothing is run, since less \
         would be kept than the policy promises; write `capture: metadata`"
    )]
    Capture {
        /// What it wants.
        capture: &'static str,
    },
    /// The policy is too large for the kernel.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A condition of a rule cannot be followed on this host.
    #[error("the policy cannot be enforced here: {0}")]
    Condition(#[from] ConditionError),
    /// The kernel side could not be set up.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A standard descriptor leads past the hooks.
    #[error(
        "{name} is {kind} that was opened outside, whose traffic cannot be refused: give the command a pipe, a file or \
         a terminal (`| cat`), or say --best-effort, which never passes"
    )]
    Outside {
        /// Which.
        name: &'static str,
        /// What it is.
        kind: &'static str,
    },
    /// `--strict`, and not every lock can be held.
    #[error("--strict wants every lock, and these do not hold here:{missing}")]
    Locks {
        /// A line for each.
        missing: String,
    },
    /// A file.
    #[error("{what} {}: {source}", Untrusted::new(path.to_string_lossy()))]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What will be done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) args: RunArgs,
    pub(super) session: SessionId,
    pub(super) policy: Option<Policy>,
    /// Where the policy was read from.
    pub(super) sources: Vec<PolicyFile>,
    /// The settings that name it.
    pub(super) settings: Option<String>,
    /// What the person is told about that choice.
    pub(super) said: Vec<String>,
    pub(super) tables: Option<Tables>,
    /// How processes are told apart, where the policy wants it.
    pub(super) conditions: Option<Conditions>,
    /// Whether the kernel refuses.
    pub(super) enforce: bool,
    pub(super) identity: Option<Identity>,
    /// The locks of an enforcing session, as far as this host can hold them.
    pub(super) surveyed: Vec<LockState>,
    /// Standard descriptors whose traffic cannot be seen.
    pub(super) from_outside: Vec<String>,
    pub(super) resolvers: Resolvers,
    pub(super) database: Option<PathBuf>,
    pub(super) started_ns: i64,
}

impl Plan {
    /// Reads the policies and finds out who the command runs as.
    ///
    /// # Errors
    /// If a policy is not usable or the user does not exist.
    pub(crate) fn new(args: RunArgs) -> Result<Self, RunError> {
        let Chosen { policy, sources, settings, said } = policy(&args)?;
        let enforce = policy.as_ref().is_some_and(Policy::enforcing) && !args.observe;
        let tables = policy.as_ref().map(Policy::tables).transpose()?;
        let identity = identity(&args, enforce)?;
        let conditions =
            tables.as_ref().map(|t| Conditions::resolve(&t.classes, identity.as_ref(), enforce)).transpose()?;
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let started_ns = i64::try_from(clock.as_nanos()).unwrap_or(i64::MAX);
        let mut plan = Self {
            session: SessionId::new(started_ns),
            policy,
            sources,
            settings,
            said,
            tables,
            conditions: conditions.flatten(),
            enforce,
            identity,
            surveyed: Vec::new(),
            from_outside: Vec::new(),
            resolvers: Resolvers::read(),
            database: args.db.clone().or_else(trustrun_store::default_path),
            started_ns,
            args,
        };
        plan.look_at_doors()?;
        Ok(plan)
    }

    /// What the guard is to set up.
    pub(super) fn guard(&mut self) -> trustrun_guard::Plan {
        let tables = self.tables.take();
        trustrun_guard::Plan {
            session: self.session.to_string(),
            kinds: tables.as_ref().map_or(0, kinds),
            tables,
            conditions: self.conditions.take(),
            enforce: self.enforce,
            resolvers: self.resolvers.addresses.iter().map(|a| mapped(*a)).collect(),
            search: self.resolvers.search.clone(),
            hosts: self.resolvers.hosts.iter().filter_map(|(a, n)| Some((*a, Name::new(n)?))).collect(),
            dns_grace: DNS_GRACE,
            sizes: Sizes { ring_bytes: self.args.ring_bytes.unwrap_or(RING_BYTES), tables: self.args.table.clone() },
            packets: !self.enforce && self.identity.as_ref().is_none_or(|i| i.uid == 0),
            doors: self.allowed_sockets(),
            wait_all: self.args.wait_all,
            as_root: self.identity.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |i| i.uid) == 0,
        }
    }

    /// The command for people and for the store, redacted.
    pub(super) fn command(&self) -> Vec<String> {
        let plain: Vec<String> = self.args.command.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        trustrun_session::redact::redact_argv(&plain)
    }

    /// The command's executable as a shell would find it; empty if it does not.
    pub(super) fn executable(&self) -> String {
        let Some(name) = self.args.command.first().map(PathBuf::from) else { return String::new() };
        if name.components().count() > 1 {
            return name.to_string_lossy().into_owned();
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).map(|d| d.join(&name)).find(|p| is_executable(p));
        found.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn policy(args: &RunArgs) -> Result<Chosen, RunError> {
    let chosen = args.policy.for_session(args.strict)?;
    match chosen.policy.as_ref().map(|policy| policy.capture) {
        None | Some(Capture::Metadata) => Ok(chosen),
        Some(capture) => Err(RunError::Capture { capture: capture.as_str() }),
    }
}

/// Observing changes nothing: the command stays who we are. Enforcing runs it as the user behind sudo.
fn identity(args: &RunArgs, enforce: bool) -> Result<Option<Identity>, RunError> {
    if let Some(name) = &args.run_as {
        return Ok(Some(Identity::find(name)?));
    }
    match caller::behind_sudo() {
        Some((uid, _)) if enforce => Ok(Some(Identity::by_id(uid.as_raw())?)),
        _ => Ok(None),
    }
}

/// Whether a rule lets ICMP out: then ping sockets may be made, and each packet is judged by its address.
fn kinds(tables: &Tables) -> u32 {
    let icmp = tables.ports.iter().any(|(key, bits, value)| {
        let allows = value.action == trustrun_common::ACTION_ALLOW || value.action == trustrun_common::ACTION_ALERT;
        allows && (*bits == 32 || key[4] == 1 || key[4] == 58)
    });
    if icmp { trustrun_common::KIND_ICMP } else { 0 }
}

pub(in crate::commands) fn mapped(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
