//! The presets in `policies/`, as a table of the program.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies");
    let mut files = Vec::new();
    for kind in ["allow", "baa", "deny"] {
        let below = folder.join(kind);
        println!("cargo::rerun-if-changed={}", below.display());
        walk(&below, kind, &mut files)?;
    }
    // A folder that is not there yet is noticed by its parent.
    println!("cargo::rerun-if-changed={}", folder.display());
    files.sort();
    let rows =
        files.iter().map(|(name, path)| format!("    Preset {{ name: {name:?}, text: include_str!({path:?}) }},\n"));
    let table = format!("const PRESETS: &[Preset] = &[\n{}];\n", rows.collect::<String>());
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("presets.rs"), table)
}

/// Every `.yaml` below a folder, with its name as a preset.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{prefix}/{stem}");
        if path.is_dir() {
            walk(&path, &name, files)?;
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push((name, path.canonicalize()?));
        }
    }
    Ok(())
}
