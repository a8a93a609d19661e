//! The programs of the suite, built once for all tests of this process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use trustrun_lab::{have, skip};

/// C sources in `programs/`, each a program of its name.
const SOURCES: [&str; 7] = ["sockets", "outside", "others", "escape", "push", "names", "identity"];
/// Scripts beside them.
const SCRIPTS: [&str; 1] = ["terminal.py"];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    folder: tempfile::TempDir,
}

impl Programs {
    pub(crate) fn bin(&self) -> &Path {
        self.folder.path()
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bypass/programs")
}

/// The built programs; a skip where there is no compiler.
pub(crate) fn built() -> Option<&'static Programs> {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    for program in ["gcc", "timeout", "python3"] {
        if !have(program) {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    Some(BUILT.get_or_init(build))
}

fn build() -> Programs {
    let folder = tempfile::Builder::new().prefix("trustrun-bypass-").tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder for everybody");
    // Guests bring them along: a compiler is slow where the processor is emulated.
    let brought = std::env::var_os("TRUSTRUN_BYPASS_PROGRAMS").map(PathBuf::from);
    for name in SOURCES {
        if let Some(brought) = &brought {
            fs::copy(brought.join(name), folder.path().join(name)).expect("a program that was brought along");
            continue;
        }
        let source = sources().join(format!("{name}.c"));
        let built =
            Command::new("gcc").args(["-O1", "-pthread", "-o"]).arg(folder.path().join(name)).arg(&source).status();
        assert!(built.is_ok_and(|status| status.success()), "gcc could not build {}", source.display());
    }
    for name in SCRIPTS {
        fs::copy(sources().join(name), folder.path().join(name)).expect("a copy that everybody may read");
    }
    let suid = folder.path().join("sockets-suid");
    fs::copy(folder.path().join("sockets"), &suid).expect("a copy");
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).expect("a setuid program");
    Programs { folder }
}
