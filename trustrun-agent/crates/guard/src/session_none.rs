//! A build without kernel programs has no session to guard.

use crate::{Cgroup, Channel, Engine, GuardError, Plan, cgroup::Held};

/// Never made.
pub(crate) enum Session {}

impl Session {
    /// # Errors
    /// Always.
    pub(crate) fn set_up(_: Plan, _: (&Cgroup, Held), _: Channel, _: Engine<'_>) -> Result<Self, GuardError> {
        Err(GuardError::NoKernelPrograms)
    }

    pub(crate) fn run(self) -> i32 {
        match self {}
    }
}
