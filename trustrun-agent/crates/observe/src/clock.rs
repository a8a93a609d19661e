//! From the kernel's clock to the wall's.

use nix::time::{ClockId, clock_gettime};
use trustrun_model::Instants;

/// Turns CLOCK_BOOTTIME into wall time with one offset for the whole session, so that a clock that is set meanwhile
/// cannot reorder what was seen.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i64,
}

impl Clock {
    /// Reads both clocks now.
    #[must_use]
    pub fn new() -> Self {
        let wall = read(ClockId::CLOCK_REALTIME);
        Self { offset: wall - read(ClockId::CLOCK_BOOTTIME) }
    }

    /// A moment of CLOCK_BOOTTIME on both clocks.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Instants {
        Instants { boot_ns, wall_ns: i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.offset) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instants {
        self.at(u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}
