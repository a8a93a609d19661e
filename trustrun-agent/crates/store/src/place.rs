//! Where the database is when nobody names one (design 7).

use std::{env, path::PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

const SYSTEM: &str = "/var/lib/trustrun/events.db";

/// A database to read, and whether one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The file.
    pub path: PathBuf,
    /// Whether it can be read.
    pub exists: bool,
}

/// Where a session of this process is stored: the system's place whenever privileged, so that the watched user does
/// not own the evidence; else the user's state directory. `None` if there is neither HOME nor XDG_STATE_HOME.
#[must_use]
pub fn default_path() -> Option<PathBuf> {
    if geteuid().is_root() { Some(SYSTEM.into()) } else { own() }
}

/// Where to read sessions: the system's database for root and for whoever may read it, else one's own.
#[must_use]
pub fn readable_path() -> Readable {
    // access(2) rather than open(2): closing any descriptor of a database drops this process's locks on it.
    let readable = |path: &PathBuf| access(path, AccessFlags::R_OK).is_ok();
    let system = PathBuf::from(SYSTEM);
    if geteuid().is_root() || readable(&system) {
        return Readable { exists: readable(&system), path: system };
    }
    let path = own().unwrap_or(system);
    Readable { exists: readable(&path), path }
}

/// The XDG base directory specification ignores relative paths.
fn own() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/state")))?;
    Some(state.join("trustrun/events.db"))
}
