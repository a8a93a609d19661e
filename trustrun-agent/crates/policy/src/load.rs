//! Reading a policy's file, and no more of it than a policy may have.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{Policy, PolicyError};

/// Most octets of a policy's text; a million exact names fit.
pub const MAX_BYTES: u64 = 16 << 20;

impl Policy {
    /// Reads and parses a policy file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is larger than [`MAX_BYTES`] (it is then not read), or is no policy.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(|e| PolicyError::unreadable(&name, e))?;
        Self::read(&name, file)
    }

    /// Reads and parses a policy from a file that is open; `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// As [`Policy::load`].
    pub fn read(name: &str, file: File) -> Result<Self, PolicyError> {
        let unreadable = |e| PolicyError::unreadable(name, e);
        let size = file.metadata().map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(too_large(name, format!("{size} octets")));
        }
        // A pipe or a device tells no size, and a file may grow meanwhile.
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(name, &bytes)
    }

    /// Parses the text of a policy. `source` is what messages call it: a path, or a name such as `<stdin>`.
    ///
    /// # Errors
    ///
    /// The text is larger than [`MAX_BYTES`], or is no policy.
    pub fn parse(source: &str, bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(too_large(source, format!("more than {MAX_BYTES} octets")));
        }
        crate::document::parse(source, bytes)
    }
}

fn too_large(file: &str, size: String) -> PolicyError {
    PolicyError::TooLarge { file: file.into(), size, limit: MAX_BYTES }
}

impl PolicyError {
    /// The file could not be opened or read.
    #[must_use]
    pub fn unreadable(file: &str, source: io::Error) -> Self {
        Self::Unreadable { help: help(&source), file: file.into(), source }
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
