//! DNS messages in a TCP stream.

/// Cuts a TCP stream into DNS messages: each has its length before it, in two octets (RFC 1035 4.2.2).
///
/// Holds at most one unfinished message, so at most 64 KiB.
#[derive(Clone, Debug, Default)]
pub struct TcpFrames {
    /// The length octets and what there is of the message.
    pending: Vec<u8>,
}

impl TcpFrames {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes from `stream`, which is what follows in the stream, up to the end of a message and gives the message out
    /// (it may be empty). `None` when all was taken and the message is not whole yet.
    ///
    /// ```
    /// let mut frames = trustrun_wire::dns::TcpFrames::new();
    /// let mut stream: &[u8] = b"\x00\x02ab\x00\x01c\x00";
    /// let mut messages = Vec::new();
    /// while let Some(message) = frames.next(&mut stream) {
    ///     messages.push(message);
    /// }
    /// assert_eq!(messages, [b"ab".to_vec(), b"c".to_vec()]);
    /// ```
    pub fn next(&mut self, stream: &mut &[u8]) -> Option<Vec<u8>> {
        self.fill(stream, 2);
        let length: [u8; 2] = self.pending.get(..2)?.try_into().ok()?;
        let whole = 2 + usize::from(u16::from_be_bytes(length));
        self.fill(stream, whole);
        if self.pending.len() < whole {
            return None;
        }
        let message = self.pending.get(2..)?.to_vec();
        self.pending.clear();
        Some(message)
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves bytes over until `pending` has `wanted`.
    fn fill(&mut self, stream: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.pending.len()).min(stream.len());
        let (taken, rest) = stream.split_at(missing);
        self.pending.extend_from_slice(taken);
        *stream = rest;
    }
}
