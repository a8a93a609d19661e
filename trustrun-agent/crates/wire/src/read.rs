//! A cursor over bytes that never reads past their end.

/// A cursor. Every method gives `None`, and moves nothing, where the bytes do not suffice. Integers are in network
/// byte order.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A vector with a length of one byte before it (RFC 8446 3.4).
    pub(crate) fn vec8(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let length = ahead.u8()?;
        let taken = ahead.take(length.into())?;
        *self = ahead;
        Some(taken)
    }

    /// A vector with a length of two bytes before it (RFC 8446 3.4).
    pub(crate) fn vec16(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let length = ahead.u16()?;
        let taken = ahead.take(length.into())?;
        *self = ahead;
        Some(taken)
    }

    /// A variable-length integer (RFC 9000 16).
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        let bytes = self.take(1 << (first >> 6))?;
        let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        Some(value & (u64::MAX >> (66 - 8 * bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9000 A.1.
    #[test]
    fn reads_variable_length_integers() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(Reader::new(bytes).varint(), Some(value));
            assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).varint(), None);
        }
    }

    #[test]
    fn moves_nothing_when_a_vector_is_cut() {
        let mut reader = Reader::new(&[0, 3, 1, 2]);
        assert_eq!(reader.vec16(), None);
        assert_eq!(reader.position(), 0);
        assert_eq!(reader.take(usize::MAX), None);
    }
}
