//! The program that tells of packet sockets, which the cgroup's hooks do not see: for a command of root's that is only
//! watched. It refuses nothing and is not pinned; without it the report's limit is all that is said.

use aya::programs::{RawTracePoint, links::FdLink};

use super::Loaded;
use crate::GuardError;

pub(crate) const NAME: &str = "packet_sent";

impl Loaded {
    /// Loads and attaches it.
    ///
    /// # Errors
    /// If this kernel has not what it reads, or refuses it.
    pub(crate) fn watch_packets(&mut self) -> Result<(), GuardError> {
        self.set_unix_offsets()?;
        let program = self.load_packets()?;
        let link = program.attach("net_dev_queue").and_then(|id| program.take_link(id));
        self.packet_link = Some(FdLink::from(link.map_err(|e| super::program_error("attach", NAME, &e))?));
        Ok(())
    }

    /// Loads it.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) fn load_packets(&mut self) -> Result<&mut RawTracePoint, GuardError> {
        let program = self.ebpf.program_mut(NAME).ok_or_else(|| super::missing("program", NAME))?;
        let program: &mut RawTracePoint = program.try_into().map_err(|e| super::program_error("load", NAME, &e))?;
        program.load().map_err(|e| super::program_error("load", NAME, &e))?;
        Ok(program)
    }
}
