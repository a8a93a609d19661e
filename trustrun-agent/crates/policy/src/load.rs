//! Reading a policy's file, and no more of it than a policy may have.

use std::{fs::File, io::Read as _, path::Path};

use crate::{Opened, Opener, Policy, PolicyError, canonical, compose};

/// Most octets of a policy's text; a million rules with names fit.
pub const MAX_BYTES: u64 = 64 << 20;

/// Reads a policy file that is open; `name` is what messages call it.
///
/// # Errors
///
/// The file cannot be read, or is larger than [`MAX_BYTES`]; it is then not read.
pub fn read_file(name: &str, file: File) -> Result<Vec<u8>, PolicyError> {
    let unreadable = |e| PolicyError::unreadable(name, e);
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(too_large(name, format!("{size} octets")));
    }
    // A pipe or a device tells no size, and a file may grow meanwhile.
    let mut octets = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut octets).map_err(unreadable)?;
    if octets.len() as u64 > MAX_BYTES {
        return Err(too_large(name, format!("more than {MAX_BYTES} octets")));
    }
    Ok(octets)
}

/// An [`Opener`] that takes whatever it is given: for tools that run nothing under a policy.
#[derive(Clone, Copy, Debug)]
pub struct AnyFile;

impl Opener for AnyFile {
    fn open(&mut self, path: &Path) -> Result<Opened, PolicyError> {
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(|e| PolicyError::unreadable(&name, e))?;
        let identity = path.canonicalize().ok().map(|path| path.to_string_lossy().into_owned());
        Ok(Opened { octets: read_file(&name, file)?, hidden: false, identity })
    }
}

impl Policy {
    /// Reads and parses one document, as [`Policy::parse`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, is larger than [`MAX_BYTES`] (it is then not read), or is no policy.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(|e| PolicyError::unreadable(&name, e))?;
        Self::parse(&name, &read_file(&name, file)?)
    }

    /// Parses one document by itself: rules in the order of the text, expired ones among them, presets extended and no
    /// files. What a session runs under is composed ([`crate::Composer`]). `source` is what messages call it: a path, or
    /// a name such as `<stdin>`.
    ///
    /// # Errors
    ///
    /// The text is larger than [`MAX_BYTES`], or is no policy.
    pub fn parse(source: &str, octets: &[u8]) -> Result<Self, PolicyError> {
        if octets.len() as u64 > MAX_BYTES {
            return Err(too_large(source, format!("more than {MAX_BYTES} octets")));
        }
        compose::alone(source, octets)
    }

    /// Parses a canonical form ([`Policy`]'s `canonical`); its rules say as `origin` the document that they come from.
    ///
    /// # Errors
    ///
    /// The text is no canonical form.
    pub fn parse_canonical(octets: &[u8]) -> Result<Self, PolicyError> {
        canonical::read(octets)
    }
}

pub(crate) fn too_large(file: &str, size: String) -> PolicyError {
    PolicyError::TooLarge { file: file.into(), size, limit: MAX_BYTES }
}
