//! Why a policy was refused: where, what was wanted, what was found, what to do.

use std::{fmt, io};

use trustrun_model::Untrusted;

use crate::pattern::{PatternError, did_you_mean};

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
    /// The text is no policy.
    #[error("{at}: {fault}{excerpt}")]
    Invalid {
        /// Where.
        at: Place,
        /// What is wrong.
        fault: Box<Fault>,
        /// The line, and a caret below the place; begins with a newline where there is one.
        excerpt: String,
    },
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

/// What is wrong with a policy's text. Strings are already escaped and cropped, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields hold")]
pub enum Fault {
    #[error("`{found}` is no path of a socket: {why}, such as `/run/postgresql/.s.PGSQL.5432`")]
    SocketPath { found: String, why: &'static str },
    #[error("the policy is empty: wanted at least `version: 1`, `default: block` and `rules:`")]
    Empty,
    #[error("the policy is not UTF-8 text: octet {octet:#04x} begins no character; save it as UTF-8")]
    NotUtf8 { octet: u8 },
    #[error("not YAML as a policy wants it: {message}{help}")]
    Yaml { message: String, help: &'static str },
    #[error("a second YAML document begins: wanted one policy in a file; leave out the `---`")]
    SecondDocument,
    #[error("unknown key `{found}`: wanted one of {wanted}{}", did_you_mean(.meant))]
    UnknownKey { found: String, wanted: String, meant: Option<&'static str> },
    #[error("`{key}` is not yet supported in this version: leave it out, as it would not be followed")]
    NotYet { key: String },
    #[error("the key `{key}` is here a second time: put both into one")]
    DuplicateKey { key: String },
    #[error("`{key}` is missing: {help}")]
    MissingKey { key: &'static str, help: &'static str },
    #[error("found {found}: wanted {wanted}")]
    WrongType { found: String, wanted: String },
    #[error("version `{found}` is not known: wanted `version: 1`; a newer trustrun may know it")]
    Version { found: String },
    #[error("`{found}` is not an action: wanted allow, alert, block or kill{}", did_you_mean(.meant))]
    Action { found: String, meant: Option<&'static str> },
    #[error("capture `{found}` is not yet supported in this version: wanted `metadata`; no content is captured")]
    CaptureNotYet { found: String },
    #[error("`{found}` is not a kind of capture: wanted `metadata`{}", did_you_mean(.meant))]
    Capture { found: String, meant: Option<&'static str> },
    #[error("`private: {found}` is not known: wanted `allow` or `refuse`{}", did_you_mean(.meant))]
    Private { found: String, meant: Option<&'static str> },
    #[error("the name `{found}` is empty, longer than 200 characters or holds control characters: wanted one line")]
    Name { found: String },
    #[error("{rule} has no pattern: wanted a list under allow, alert, block or kill")]
    EmptyRule { rule: String },
    #[error("in {rule}: {error}")]
    Pattern { rule: String, error: PatternError },
}

impl PolicyError {
    /// An error at a place (both from 1) of a text.
    pub(crate) fn invalid(file: &str, text: &str, (line, column): (u64, u64), fault: Fault) -> Self {
        let at = Place { file: file.into(), line, column };
        Self::Invalid { excerpt: excerpt(text, line, column), at, fault: Box::new(fault) }
    }
}

/// The line of a place and a caret, cropped to a window around it.
fn excerpt(text: &str, line: u64, column: u64) -> String {
    const BEFORE: usize = 60;
    const AFTER: usize = 40;
    let (Ok(line_index), Ok(column)) = (usize::try_from(line.saturating_sub(1)), usize::try_from(column)) else {
        return String::new();
    };
    let Some(source) = text.lines().nth(line_index) else { return String::new() };
    let column = column.saturating_sub(1);
    let start = column.saturating_sub(BEFORE);
    let before: String = source.chars().skip(start).take(column - start).collect();
    let after: String = source.chars().skip(column).take(AFTER).collect();
    if before.trim().is_empty() && after.trim().is_empty() {
        return String::new();
    }
    // Tabs and what is escaped change the width, so the caret is placed below the shown text.
    let before = Untrusted::new(before).to_string();
    let margin = " ".repeat(line.to_string().len());
    let caret = " ".repeat(before.chars().count());
    format!("\n {line} | {before}{after}\n {margin} | {caret}^", after = Untrusted::new(after))
}
