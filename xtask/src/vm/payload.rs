//! This run's files: the freshly built programs at the paths where they are outside (tests know them by those), what the tests
//! read, and the list of what to run.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{done, kernels::tar_of, matrix::SUITES};
use crate::{host::Host, setup};

/// One line of the guest's list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) seconds: u32,
    pub(crate) threads: u32,
    /// Where it runs: tests of cargo run in the folder of their package.
    pub(crate) folder: PathBuf,
    pub(crate) command: Vec<String>,
}

impl Line {
    fn text(&self) -> String {
        let folder = self.folder.display();
        format!("{}\t{}\t{}\t{folder}\t{}\n", self.name, self.seconds, self.threads, self.command.join(" "))
    }
}

/// A built program of the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    /// The folder of its package.
    pub(crate) package: PathBuf,
    /// A copy without debug information.
    stripped: PathBuf,
}

/// Where compiled programs of the bypass suite are: below target/vm, and below /vm in a guest.
const WAYS: &str = "ways-programs";

/// Builds `trustrun` and every test of the suites; by the test's name.
pub(crate) fn build(host: &Host, folder: &Path) -> Result<BTreeMap<String, Program>> {
    setup::compiler(host)?;
    let mut cargo = host.cargo()?;
    cargo.args(["test", "--no-run", "--bins", "--tests", "--message-format=json-render-diagnostics"]);
    let mut packages: Vec<&str> = SUITES.iter().map(|suite| suite.package).collect();
    packages.sort_unstable();
    packages.dedup();
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let mut found = BTreeMap::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("cargo's output broke off")?;
            if let Some((name, program)) = artifact(&line) {
                found.insert(name, program);
            }
        }
    }
    let status = child.wait().context("cargo is lost")?;
    if !status.success() {
        bail!("the tests could not be built ({status}); cargo says why above");
    }
    compile_ways(host, folder)?;
    // Once, before guests are made side by side.
    for program in found.values_mut() {
        program.stripped = strip(host, folder, &program.file)?;
    }
    Ok(found)
}

/// The bypass suite's C programs, which on a machine of its own it compiles itself; in a guest the compiler would take longer
/// than the sessions.
fn compile_ways(host: &Host, folder: &Path) -> Result<()> {
    let (sources, to) = (host.root.join("trustrun-agent/tests/bypass/programs"), folder.join(WAYS));
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
        let source = entry.context("cannot read a folder")?.path();
        if let (Some("c"), Some(name)) = (source.extension().and_then(|e| e.to_str()), source.file_stem()) {
            let mut compile = Command::new("cc");
            done(compile.args(["-O1", "-pthread", "-static", "-o"]).arg(to.join(name)).arg(&source))?;
        }
    }
    Ok(())
}

/// The test, or the binary itself, that a line of cargo's JSON tells of. (See "External tools" in the Cargo book.)
fn artifact(line: &str) -> Option<(String, Program)> {
    let kind = value(line, "\"kind\":[\"")?;
    // The unit tests of a binary are of its kind too.
    let profile = &line[line.find("\"profile\":{")?..];
    let is_test = profile.contains("\"test\":true");
    if !line.contains("\"reason\":\"compiler-artifact\"")
        || is_test != (kind == "test")
        || !["test", "bin"].contains(&&*kind)
    {
        return None;
    }
    let file = PathBuf::from(value(line, "\"executable\":\"")?);
    let package = Path::new(&value(line, "\"manifest_path\":\"")?).parent()?.to_owned();
    // "name" is the target's, which follows its kind.
    let after = &line[line.find("\"kind\":[")?..];
    Some((value(after, "\"name\":\"")?, Program { file, package, stripped: PathBuf::new() }))
}

/// What follows `key` up to the next quote; cargo escapes nothing in the paths that we can use.
fn value(line: &str, key: &str) -> Option<String> {
    let rest = &line[line.find(key)? + key.len()..];
    let text = &rest[..rest.find('"')?];
    (!text.contains('\\')).then(|| text.to_owned())
}

/// Writes the archive that a guest unpacks over its image, in the folder `staging`.
pub(crate) fn write(
    host: &Host,
    staging: &Path,
    programs: &BTreeMap<String, Program>,
    list: &[Line],
) -> Result<PathBuf> {
    let tar = staging.join("payload.tar");
    Staging { root: staging.join("root"), files: Vec::new() }.fill(host, programs, list, &tar)?;
    fs::remove_dir_all(staging.join("root")).context("cannot clean up")?;
    Ok(tar)
}

/// A tree of what is to be in the guest, and the list of it. Only files are in the archive, so that no folder of the image
/// gets other permissions.
struct Staging {
    root: PathBuf,
    files: Vec<PathBuf>,
}

impl Staging {
    fn fill(mut self, host: &Host, programs: &BTreeMap<String, Program>, list: &[Line], tar: &Path) -> Result<()> {
        // All of them where a person's own command may want any; else unpacking them would take longer than a suite.
        let named = |program: &Program| list.iter().any(|line| Path::new(&line.command[0]) == program.file);
        let free = !programs.values().any(named);
        for (name, program) in programs.iter().filter(|(name, program)| free || *name == "trustrun" || named(program)) {
            let at = self.place(&program.file)?;
            // No link: tar of another guest, at the same time, would see its file change.
            fs::copy(&program.stripped, &at).with_context(|| format!("cannot copy {}", program.stripped.display()))?;
            let link = self.place(&Path::new("/vm/bin").join(name))?;
            symlink(&program.file, link).context("cannot make a link")?;
            self.text(&program.package.join(".keep"), "", 0o644)?;
        }
        for part in ["trustrun-agent/tests", "policies"] {
            self.copy(&host.root.join(part), &host.root.join(part))?;
        }
        self.copy(&host.target.join("vm").join(WAYS), &Path::new("/vm").join(WAYS))?;
        self.text(Path::new("/vm/init"), include_str!("guest/init.sh"), 0o755)?;
        self.text(Path::new("/vm/suites"), include_str!("guest/suites.sh"), 0o755)?;
        // As on a machine that somebody works on; else git asks for the host's own name.
        self.text(Path::new("/etc/gitconfig"), "[user]\n\tname = guest\n\temail = guest@localhost\n", 0o644)?;
        let units = Path::new("/etc/systemd/system");
        self.text(&units.join("vm.service"), include_str!("guest/vm.service"), 0o644)?;
        self.text(&units.join("vm.target"), include_str!("guest/vm.target"), 0o644)?;
        self.text(Path::new("/vm/list"), &list.iter().map(Line::text).collect::<String>(), 0o644)?;
        let names: Vec<String> = self.files.iter().map(|file| format!("{}\n", file.display())).collect();
        let index = tar.with_extension("files");
        fs::write(&index, names.concat()).context("cannot write the archive's list")?;
        done(tar_of(tar).arg("-C").arg(&self.root).arg("--no-recursion").arg("-T").arg(&index))
    }

    /// Where a file of the guest is staged; it is in the list from now on.
    fn place(&mut self, path: &Path) -> Result<PathBuf> {
        let relative = path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?;
        let place = self.root.join(relative);
        let parent = place.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        if !self.files.iter().any(|known| known == relative) {
            self.files.push(relative.to_owned());
        }
        Ok(place)
    }

    fn text(&mut self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, text).with_context(|| format!("cannot write {}", place.display()))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).context("cannot set permissions")
    }

    /// A folder of ours with all that is in it.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry.context("cannot read a folder")?;
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() {
                self.copy(&path, &to)?;
            } else {
                let to = self.place(&to)?;
                fs::copy(&path, to).with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// A copy without debug information, which is nine tenths of it; made anew where the program is newer.
fn strip(host: &Host, folder: &Path, file: &Path) -> Result<PathBuf> {
    let stripped = folder.join("stripped").join(file.file_name().context("a program has a name")?);
    let time = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    if let (Ok(old), Ok(new)) = (time(&stripped), time(file)) {
        if old > new {
            return Ok(stripped);
        }
    }
    fs::create_dir_all(folder.join("stripped")).context("cannot make a folder")?;
    let strip = host.which("strip").context("strip is not installed (package binutils)")?;
    // Half a file must never be taken for a program: a shell runs an empty one with success.
    let half = stripped.with_extension(std::process::id().to_string());
    done(Command::new(strip).arg("-o").arg(&half).arg(file))?;
    fs::rename(&half, &stripped).with_context(|| format!("cannot make {}", stripped.display()))?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/trustrun-agent#0.1.0","manifest_path":"/w/trustrun-agent/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"allowed","src_path":"/w/trustrun-agent/tests/allowed.rs","edition":"2024","doc":false,"doctest":false,"test":true},"profile":{"opt_level":"1","debuginfo":2,"test":true},"features":[],"filenames":["/t/debug/deps/allowed-6541"],"executable":"/t/debug/deps/allowed-6541","fresh":true}"#;

    #[test]
    fn tests_are_found_by_name() {
        let wanted = Program {
            file: "/t/debug/deps/allowed-6541".into(),
            package: "/w/trustrun-agent".into(),
            stripped: PathBuf::new(),
        };
        assert_eq!(artifact(LINE), Some(("allowed".to_owned(), wanted)));
        assert_eq!(artifact("{\"reason\":\"build-finished\",\"success\":true}"), None);
        let none = LINE.replace("\"executable\":\"/t/debug/deps/allowed-6541\"", "\"executable\":null");
        assert_eq!(artifact(&none), None);
        assert_eq!(artifact(&LINE.replace("[\"test\"]", "[\"lib\"]")), None, "unit tests are no suite");
        let bin = LINE.replace("[\"test\"]", "[\"bin\"]");
        assert_eq!(artifact(&bin), None, "nor are a binary's");
        let bin = bin.replace("\"debuginfo\":2,\"test\":true", "\"debuginfo\":2,\"test\":false");
        assert_eq!(artifact(&bin).expect("the binary itself").0, "allowed");
    }

    #[test]
    fn a_line_of_the_list_has_five_parts() {
        let line = Line {
            name: "names".into(),
            seconds: 60,
            threads: 2,
            folder: "/w".into(),
            command: vec!["/t/names-1".into(), "--skip".into(), "x".into()],
        };
        assert_eq!(line.text(), "names\t60\t2\t/w\t/t/names-1 --skip x\n");
    }
}
