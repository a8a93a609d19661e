//! Why a policy was refused: where, what was wanted, what was found, what to do. All that is wrong is told at once.

use std::{error::Error, fmt, io};

use trustrun_model::Untrusted;

pub use crate::fault::Fault;

/// Most faults that are told; of the rest their number.
pub const MAX_FAULTS: usize = 20;

/// A policy that could not be loaded. Shown text of the file is escaped.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file could not be opened or read.
    #[error("{file}: the policy cannot be read: {source}; {help}", file = Untrusted::new(.file))]
    Unreadable {
        /// As it was given.
        file: String,
        /// What the system said.
        source: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// The file is larger than [`crate::MAX_BYTES`]; it was not read.
    #[error("{file}: the policy has {size}: wanted at most {limit} octets; split it, or use wildcards and networks",
        file = Untrusted::new(.file))]
    TooLarge {
        /// As it was given.
        file: String,
        /// How large, in words.
        size: String,
        /// The limit in octets.
        limit: u64,
    },
    /// Whoever opens files does not take this one.
    #[error(transparent)]
    NotTaken(Box<dyn Error + Send + Sync>),
    /// The text is no policy.
    #[error("{}", listed(.faults, .more))]
    Invalid {
        /// What is wrong, in the order of the text; at least one, at most [`MAX_FAULTS`].
        faults: Vec<Wrong>,
        /// How many more there are.
        more: usize,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub at: Place,
    /// What.
    pub fault: Fault,
    /// The line, with what is meant underlined; begins with a newline where there is one.
    pub excerpt: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.at, self.fault, self.excerpt)
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or whatever the text was called.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", Untrusted::new(&self.file), self.line, self.column)
    }
}

fn listed(faults: &[Wrong], more: &usize) -> String {
    let mut text = faults.iter().map(Wrong::to_string).collect::<Vec<_>>().join("\n");
    if *more > 0 {
        text.push_str(&format!("\n… and {more} more"));
    }
    text
}

impl PolicyError {
    /// The file could not be opened or read.
    #[must_use]
    pub fn unreadable(file: &str, source: io::Error) -> Self {
        Self::Unreadable { help: help(&source), file: file.into(), source }
    }

    /// All that is wrong with the text, one by one; empty where it was not read.
    #[must_use]
    pub fn faults(&self) -> &[Wrong] {
        match self {
            Self::Invalid { faults, .. } => faults,
            _ => &[],
        }
    }
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path, which starts at the current directory unless it begins with `/`",
        io::ErrorKind::PermissionDenied => "give the user who runs trustrun the right to read it",
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => "check the file, or copy it elsewhere",
    }
}
