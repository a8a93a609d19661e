//! The one hook that not every kernel has: who crosses the session's border over a unix socket (Linux 6.3).
//!
//! It refuses nothing and is not pinned. Without it a session is watched all the same, and its report says what cannot
//! be seen.

use aya::{
    maps::{Array, MapData},
    programs::{RawTracePoint, links::FdLink},
};

use super::Loaded;
use crate::GuardError;

pub(crate) const NAME: &str = "unix_peer";

impl Loaded {
    /// Loads and attaches it.
    ///
    /// # Errors
    /// If this kernel does not have the tracepoint, or refuses the program.
    pub(crate) fn watch_unix(&mut self) -> Result<(), GuardError> {
        self.set_unix_offsets()?;
        let program = self.load_unix()?;
        let link = program.attach("sk_data_ready").and_then(|id| program.take_link(id));
        self.unix_link = Some(FdLink::from(link.map_err(|e| failed("attach", &e))?));
        Ok(())
    }

    /// Tells the programs for unix sockets where this kernel has what they read.
    ///
    /// # Errors
    /// If it has not.
    pub(super) fn set_unix_offsets(&mut self) -> Result<(), GuardError> {
        let missing = || GuardError::Btf { what: "the members of unix sockets".into() };
        let offsets = self.unix_offsets.ok_or_else(missing)?;
        let mut map: Array<&mut MapData, trustrun_common::UnixOffsets> = self.map_mut("UNIX")?;
        map.set(0, offsets, 0).map_err(|e| failed("configure", &e))
    }

    /// Loads it.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) fn load_unix(&mut self) -> Result<&mut RawTracePoint, GuardError> {
        let program = self.ebpf.program_mut(NAME).ok_or(GuardError::Missing { what: "program", name: NAME.into() })?;
        let program: &mut RawTracePoint = program.try_into().map_err(|e| failed("load", &e))?;
        program.load().map_err(|e| failed("load", &e))?;
        Ok(program)
    }
}

fn failed(step: &'static str, e: &dyn std::fmt::Display) -> GuardError {
    GuardError::Program { step, name: NAME.into(), reason: e.to_string() }
}
