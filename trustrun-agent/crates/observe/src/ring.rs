//! The ring buffer of the kernel programs.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};

/// The mapped ring buffer. It is mapped while privileged; reading it needs no privilege then.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// Maps the ring buffer.
    ///
    /// # Errors
    /// If the map is no ring buffer or cannot be mapped.
    pub fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { ring: RingBuf::try_from(map)? })
    }

    /// Hands every record that is there to `each`, oldest first, at most `most`; how many there were.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while n < most
            && let Some(record) = self.ring.next()
        {
            each(&record);
            n += 1;
        }
        n
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
