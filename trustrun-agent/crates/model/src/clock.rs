//! When something happened, on both clocks.

use serde::{Deserialize, Serialize};

/// One moment on both clocks: `boot_ns` orders events and survives clock changes, `wall_ns` is what people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instants {
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// Nanoseconds since the Unix epoch, UTC.
    pub wall_ns: i64,
}

/// RFC 3339 in UTC with milliseconds, as every report and event writes time.
#[must_use]
pub fn rfc3339(wall_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).map_or_else(|_| String::new(), |t| format!("{t:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rfc3339_in_utc() {
        assert_eq!(rfc3339(1_772_323_200_123_000_000), "2026-03-01T00:00:00.123Z");
    }
}
