//! Random numbers that a printed seed repeats.

use std::{env, time::SystemTime};

/// xorshift64* (Vigna 2016): good enough to choose bytes, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Damages bytes: some are changed, put in, taken out, or the end is missing.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(8) {
                0..=2 => bytes[at] = self.byte(),
                3 => bytes[at] ^= 1 << self.below(8),
                4 => bytes[at] = self.pick(&[0, 1, 0x3f, 0x40, 0xc0, 0xff, b'.']),
                5 => bytes.insert(at, self.byte()),
                6 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
    }
}

/// The seed of this run, printed.
pub(crate) fn seed(what: &str) -> u64 {
    let given = env::var("TRUSTRUN_SEED").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    let seed = given.unwrap_or_else(now);
    eprintln!("{what}: TRUSTRUN_SEED={seed}");
    seed
}

/// How many packets are to be tried: as many as asked for, else `usual`.
pub(crate) fn amount(usual: usize) -> usize {
    env::var("TRUSTRUN_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
