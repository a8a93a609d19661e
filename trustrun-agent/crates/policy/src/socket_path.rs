//! `unix_sockets`: which sockets of services outside a command under an enforcing policy finds, by their paths.

use std::path::{Component, Path, PathBuf};

use trustrun_model::Untrusted;

/// Longer ones no socket can be bound or connected to through (unix(7) has 108 octets for a socket, a folder may be
/// entered first).
const MOST: usize = 1024;
/// Folders that hold everything that the locks hide.
const TOO_MUCH: [&str; 4] = ["/", "/run", "/var/run", "/var"];

/// An absolute path without `.`, `..` and what a terminal would not show, or why it is none.
pub(crate) fn parse(text: &str) -> Result<PathBuf, &'static str> {
    if text.starts_with('@') {
        return Err("sockets without a path (abstract ones) cannot be let in");
    }
    if !text.starts_with('/') {
        return Err("it has to begin with `/`");
    }
    if text.len() > MOST {
        return Err("it is longer than any path of a socket");
    }
    if Untrusted::new(text).to_string() != text {
        return Err("it holds characters that a terminal does not show");
    }
    let path = Path::new(text);
    if text.split('/').any(|part| part == "." || part == "..") {
        return Err("it has to be written without `.` and `..`");
    }
    // Without doubled and trailing slashes.
    let path: PathBuf = path.components().filter(|c| matches!(c, Component::RootDir | Component::Normal(_))).collect();
    if TOO_MUCH.iter().any(|all| path == Path::new(all)) {
        return Err("it would let every service in: name the sockets, or a folder with few of them");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_that_name_something() {
        assert_eq!(parse("/run//postgresql/.s.PGSQL.5432").unwrap(), Path::new("/run/postgresql/.s.PGSQL.5432"));
        assert_eq!(parse("/tmp/.X11-unix/").unwrap(), Path::new("/tmp/.X11-unix"));
        for bad in ["", "run/x", "@/tmp/x", "/", "//", "/run", "/run/", "/var/run", "/a/../b", "/a/./b", "/a\u{1b}b"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&format!("/{}", "a".repeat(2000))).is_err());
    }
}
