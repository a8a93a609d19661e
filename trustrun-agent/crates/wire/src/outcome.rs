//! What comes of decoding the beginning of a stream.

/// What comes of decoding the beginning of a stream, of which more bytes may follow.
///
/// Decoders are functions of the prefix seen so far. For one stream the outcome moves once, from `Incomplete` to one
/// of the others, and stays there whatever bytes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T, E> {
    /// The message is whole.
    Complete(T),
    /// More bytes could still change the answer.
    Incomplete,
    /// This is some other protocol.
    Foreign,
    /// This protocol, but broken or built to be read in two ways.
    Malformed(E),
}

impl<T, E> Outcome<T, E> {
    /// The message, if it is whole.
    pub fn complete(self) -> Option<T> {
        match self {
            Self::Complete(message) => Some(message),
            Self::Incomplete | Self::Foreign | Self::Malformed(_) => None,
        }
    }

    /// Whether more bytes could still change the answer.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, Self::Incomplete)
    }
}
