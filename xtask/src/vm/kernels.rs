//! Debian's cloud kernels, downloaded and unpacked below target/vm, never installed. apt checks their signatures, with lists
//! and settings of its own there: the system's are neither read for this nor changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{cpio::Cpio, done, matrix::Kernel, output};
use crate::{host::Host, setup::say};

/// Who signs Debian's lists.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the kernels are: archive and suite.
const SOURCES: &[(&str, &str)] = &[
    ("debian", "bullseye"),
    ("debian-security", "bullseye-security"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "sid"),
];

/// Folders of modules that the guests get; the rest of `kernel/` is for hardware that QEMU is not asked for.
const MODULES: &[&str] =
    &["arch", "crypto", "lib", "net", "fs", "drivers/net", "drivers/virtio", "drivers/block", "drivers/vhost"];

/// Modules that the first file system needs, for its disks.
const DISKS: &[&str] = &["virtio_pci", "virtio_blk"];

/// A kernel that is ready to be booted.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) kernel: &'static Kernel,
    /// Its release, as `uname -r` says it.
    pub(crate) release: String,
    pub(crate) folder: PathBuf,
}

impl Ready {
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The first file system: busybox, our script, and the modules for the disks in the order in which they load.
    pub(crate) fn initramfs(&self, host: &Host) -> Result<Vec<u8>> {
        let busybox = host.which("busybox").context("busybox is not installed (package busybox-static)")?;
        let mut cpio = Cpio::default();
        for folder in ["bin", "dev", "proc", "sys", "root", "modules"] {
            cpio.folder(folder);
        }
        cpio.program("bin/busybox", &fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?);
        cpio.link("bin/sh", "busybox");
        cpio.program("init", include_bytes!("guest/initramfs.sh"));
        for entry in fs::read_dir(self.disks()).context("cannot read the kernel's folder")? {
            let entry = entry.context("cannot read the kernel's folder")?;
            let bytes = fs::read(entry.path()).context("cannot read a module")?;
            cpio.program(&format!("modules/{}", entry.file_name().to_string_lossy()), &bytes);
        }
        Ok(cpio.finish())
    }

    fn disks(&self) -> PathBuf {
        disks(&self.folder)
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("modules.tar")
    }
}

/// The packages of one kernel.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    release: String,
    packages: Vec<String>,
}

/// Sees to it that these kernels are there; with `update`, that they are the newest that Debian has.
pub(crate) fn ready(host: &Host, folder: &Path, wanted: &[&'static Kernel], update: bool) -> Result<Vec<Ready>> {
    let place = |kernel: &Kernel| folder.join("kernels").join(kernel.name);
    let known = |kernel: &Kernel| fs::read_to_string(place(kernel).join("release")).ok();
    let mut all = Vec::new();
    let mut names = None;
    for &kernel in wanted {
        let mut release = known(kernel).filter(|_| !update);
        if release.is_none() {
            let names: &Vec<String> = match &mut names {
                Some(names) => names,
                none => none.insert(packages(folder)?),
            };
            let choice = choose(names, kernel.name)
                .with_context(|| format!("Debian has no cloud kernel {} in the suites asked", kernel.name))?;
            if known(kernel).as_deref() != Some(&*choice.release) {
                prepare(host, folder, &place(kernel), &choice)
                    .with_context(|| format!("kernel {} cannot be made ready", choice.release))?;
            }
            release = Some(choice.release);
        }
        all.push(Ready { kernel, release: release.unwrap_or_default(), folder: place(kernel) });
    }
    Ok(all)
}

/// Names of all kernel packages, from lists that are read anew.
fn packages(folder: &Path) -> Result<Vec<String>> {
    say("asking Debian for its kernels (a minute)");
    let apt = folder.join("apt");
    for name in ["lists/partial", "cache/archives/partial", "empty"] {
        fs::create_dir_all(apt.join(name)).with_context(|| format!("cannot make {}", apt.join(name).display()))?;
    }
    let lines: Vec<String> = SOURCES
        .iter()
        .map(|(archive, suite)| {
            format!("deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n")
        })
        .collect();
    fs::write(apt.join("sources.list"), lines.concat()).context("cannot write the list of sources")?;
    fs::write(apt.join("status"), "").context("cannot write apt's state")?;
    done(private_apt("apt-get", &apt).args(["-qq", "update"]))?;
    let found = output(private_apt("apt-cache", &apt).args([
        "search",
        "--names-only",
        "^linux-(image|binary|modules)-[0-9].*-cloud-amd64$",
    ]))?;
    Ok(found.lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect())
}

/// apt with nothing of the system's but its keyrings and proxy.
fn private_apt(program: &str, apt: &Path) -> Command {
    let mut command = Command::new(program);
    let path = |name: &str| apt.join(name).display().to_string();
    let options = [
        ("Dir::Etc::sourcelist", path("sources.list")),
        ("Dir::Etc::sourceparts", path("empty")),
        ("Dir::Etc::preferencesparts", path("empty")),
        ("Dir::Etc::preferences", path("none")),
        ("Dir::State", path("")),
        ("Dir::State::lists", path("lists")),
        ("Dir::State::status", path("status")),
        ("Dir::Cache", path("cache")),
        ("APT::Architecture", "amd64".into()),
        ("APT::Architectures", "amd64".into()),
        // Root's apt would fetch as a user who cannot write here.
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".into()),
    ];
    for (name, value) in options {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    command
}

/// The newest kernel of a series (`6.1`), or the newest of all.
fn choose(names: &[String], series: &str) -> Option<Choice> {
    let middle = |name: &'_ str, kind: &str| -> Option<String> {
        Some(name.strip_prefix(kind)?.strip_suffix("-cloud-amd64")?.to_owned())
    };
    let release = names
        .iter()
        .filter_map(|name| middle(name, "linux-binary-").or_else(|| middle(name, "linux-image-")))
        .filter(|middle| series == "newest" || middle.starts_with(&format!("{series}.")))
        .map(|middle| (numbers(&middle), format!("{middle}-cloud-amd64")))
        // linux-image-6.12-cloud-amd64 is a name for whichever is the newest.
        .filter(|(numbers, _)| numbers.len() >= 3)
        .max()?
        .1;
    // Since 7.x the image and the modules are packages of their own.
    let split = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
    let packages = if names.contains(&split[0]) { split.to_vec() } else { vec![format!("linux-image-{release}")] };
    Some(Choice { release, packages })
}

/// The numbers in a version, which is how kernels of one series are ordered.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Downloads a kernel and puts what a boot needs of it in `place`; the file `release` comes last.
fn prepare(host: &Host, folder: &Path, place: &Path, choice: &Choice) -> Result<()> {
    say(&format!("downloading kernel {}", choice.release));
    let work = place.join("work");
    let _ = fs::remove_dir_all(place);
    let staging = work.join("staging");
    fs::create_dir_all(staging.join("usr/lib/modules"))
        .with_context(|| format!("cannot make {}", staging.display()))?;
    let mut download = private_apt("apt-get", &folder.join("apt"));
    done(download.arg("-qq").arg("download").args(&choice.packages).current_dir(&work))?;
    let unpacked = work.join("unpacked");
    for entry in fs::read_dir(&work).context("cannot read what was downloaded")?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "deb") {
            done(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&unpacked))?;
        }
    }
    let release = &choice.release;
    let images = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image = images.iter().map(|path| unpacked.join(path)).find(|path| path.exists());
    let image = image.with_context(|| format!("no kernel image in {}", choice.packages.join(" and ")))?;
    fs::rename(image, place.join("vmlinuz")).context("cannot keep the kernel image")?;
    let roots = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path).join(release));
    let from = roots.iter().find(|path| path.join("kernel").exists()).context("no modules in the package")?;
    let to = staging.join("usr/lib/modules").join(release);
    for part in MODULES {
        let (from, to) = (from.join("kernel").join(part), to.join("kernel").join(part));
        if let (true, Some(parent)) = (from.exists(), to.parent()) {
            fs::create_dir_all(parent).and_then(|()| fs::rename(&from, &to)).context("cannot keep the modules")?;
        }
    }
    // depmod looks below lib/, which is a link on any Debian of today.
    std::os::unix::fs::symlink("usr/lib", staging.join("lib")).context("cannot make a link")?;
    let depmod = host.which("depmod").context("depmod is not installed (package kmod)")?;
    // It misses lists of what is built in, which nothing here asks for.
    done(Command::new(depmod).arg("-b").arg(&staging).arg(release).stderr(Stdio::null()))?;
    let tar = place.join("modules.tar");
    done(tar_of(&tar).arg("-C").arg(&staging).arg(format!("usr/lib/modules/{release}")))?;
    fs::create_dir(disks(place)).context("cannot make a folder")?;
    let dependencies = fs::read_to_string(to.join("modules.dep")).context("depmod wrote no modules.dep")?;
    for (n, path) in load_order(&dependencies, DISKS).iter().enumerate() {
        fs::write(disks(place).join(format!("{n:02}.ko")), module(&to.join(path))?).context("cannot keep a module")?;
    }
    fs::remove_dir_all(&work).context("cannot clean up")?;
    fs::write(place.join("release"), release).context("cannot write the release")
}

/// tar, as root's files, whoever runs it.
pub(crate) fn tar_of(file: &Path) -> Command {
    let mut command = Command::new("tar");
    command.args(["--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "-cf"]).arg(file);
    command
}

/// Modules for the disks; their names are in the order in which they load.
fn disks(place: &Path) -> PathBuf {
    place.join("disks")
}

/// A module's bytes; busybox' insmod unpacks nothing.
fn module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let out = Command::new(program).arg("-dc").arg(path).output();
    let out = out.with_context(|| format!("{program} cannot be started"))?;
    if !out.status.success() {
        bail!("{program} cannot unpack {}", path.display());
    }
    Ok(out.stdout)
}

/// Files of these modules and of all they need, in the order in which they load. One that is not there is part of the kernel
/// itself. modules.dep lists what a module needs in the order of depmod(8): the last is loaded first.
fn load_order(dependencies: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = dependencies.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split('.').next() == Some(name)
        });
        let Some((path, needs)) = line else { continue };
        for file in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(ToOwned::to_owned).collect()
    }

    const OFFERED: &str = "linux-image-6.1-cloud-amd64 linux-image-6.1.0-0.deb11.52-cloud-amd64 \
        linux-image-6.1.0-56-cloud-amd64 linux-image-6.1.0-9-cloud-amd64 linux-image-6.12-cloud-amd64 \
        linux-image-6.12.43+deb12-cloud-amd64 linux-image-6.12.117+deb12-cloud-amd64 \
        linux-image-5.10.0-46-cloud-amd64 linux-image-5.10.0-46-cloud-amd64-unsigned \
        linux-binary-7.2.13+deb14-cloud-amd64 linux-image-7.2.13+deb14-cloud-amd64 \
        linux-modules-7.2.13+deb14-cloud-amd64";

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number() {
        let chosen = |series| choose(&names(OFFERED), series).expect("one").packages;
        assert_eq!(chosen("6.1"), ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(chosen("6.12"), ["linux-image-6.12.117+deb12-cloud-amd64"]);
        assert_eq!(chosen("5.10"), ["linux-image-5.10.0-46-cloud-amd64"]);
    }

    #[test]
    fn the_newest_may_be_in_two_packages() {
        let newest = choose(&names(OFFERED), "newest").expect("one");
        assert_eq!(newest.release, "7.2.13+deb14-cloud-amd64");
        assert_eq!(
            newest.packages,
            ["linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"]
        );
    }

    #[test]
    fn a_series_that_is_not_offered_is_none() {
        assert_eq!(choose(&names(OFFERED), "5.15"), None);
        assert_eq!(choose(&names("linux-image-6.1-cloud-amd64"), "6.1"), None);
    }

    #[test]
    fn modules_load_after_what_they_need() {
        let dep = "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
                   kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
                   kernel/drivers/virtio/virtio.ko:\n";
        assert_eq!(
            load_order(dep, &["virtio_pci", "virtio_blk", "built_in"]),
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/virtio/virtio_pci.ko.xz",
                "kernel/drivers/block/virtio_blk.ko"
            ]
        );
    }
}
