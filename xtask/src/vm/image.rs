//! The guests' root file system: a small Debian with what the tests drive, made once by mmdebstrap (which checks
//! signatures, runs the packages' own scripts, and needs root for that) and kept below target/vm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{done, kernels::KEYRING};
use crate::{host::Host, packages, setup::say};

/// Its suite. The test programs are linked with this machine's C library, so the guests' must not be older: trixie's is
/// newer than that of every Debian and Ubuntu in common use.
const SUITE: &str = "trixie";

/// What the tests drive (as `packages::FOR_TESTS`, and compilers: some build clients of their own), and systemd for
/// `--systemd`.
const PACKAGES: &str = "systemd,systemd-sysv,libpam-systemd,dbus,kmod,procps,psmisc,util-linux,mount,sudo,python3,\
    python3-requests,iproute2,nftables,curl,nodejs,git,openssl,tmux,ca-certificates,busybox-static,gcc,libc6-dev,musl-tools";

/// Its size. Guests write to a copy that is thrown away.
const SIZE: &str = "2G";

/// The image, made where it is not there or of other packages.
pub(crate) fn ready(host: &Host, folder: &Path) -> Result<PathBuf> {
    let (image, stamp) = (folder.join("image.ext4"), folder.join("image.stamp"));
    let recipe = format!("{SUITE} {SIZE} {PACKAGES}\n");
    if image.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(image);
    }
    say("making the guests' file system (some minutes, once)");
    // Of this process alone: another may make it too, and while it does, parts of the system are mounted in there.
    let ours = |name: &str| folder.join(format!("{name}-{}", std::process::id()));
    let (root, fresh) = (ours("image"), ours("image.new"));
    let mut make = as_root(host, "mmdebstrap")?;
    make.args(["--quiet", "--mode=root", "--variant=essential", "--format=directory"])
        .arg("--aptopt=Acquire::Languages \"none\"")
        .args(["doc", "man", "locale", "info"].map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")))
        .arg(format!("--include={PACKAGES}"))
        // A known id, so that systemd takes no boot for the first.
        .arg("--customize-hook=echo 0123456789abcdef0123456789abcdef > \"$1/etc/machine-id\"")
        .arg("--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*")
        .arg("--customize-hook=echo nameserver 192.0.2.53 > \"$1/etc/resolv.conf\"")
        .arg("--customize-hook=echo guest > \"$1/etc/hostname\"; echo 127.0.0.1 localhost guest > \"$1/etc/hosts\"")
        .arg(SUITE)
        .arg(&root);
    for (archive, suite) in [("debian", SUITE.to_owned()), ("debian-security", format!("{SUITE}-security"))] {
        make.arg(format!("deb [signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main"));
    }
    done(&mut make)?;
    done(
        as_root(host, "mke2fs")?
            .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
            .arg(&root)
            .arg(&fresh)
            .arg(SIZE),
    )?;
    done(as_root(host, "rm")?.args(["-rf", "--one-file-system"]).arg(&root))?;
    // Made as root; QEMU runs as whoever runs us, and writes to a copy.
    done(as_root(host, "chmod")?.arg("0644").arg(&fresh))?;
    // Guests that run keep the old one.
    fs::rename(&fresh, &image).with_context(|| format!("cannot replace {}", image.display()))?;
    fs::write(&stamp, recipe).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(image)
}

fn as_root(host: &Host, program: &str) -> Result<Command> {
    let prefix = packages::root_prefix(host)
        .context("the guests' file system is made as root: run this as root, or where sudo asks nothing")?;
    let path = host.which(program).with_context(|| format!("{program} is not installed"))?;
    Ok(match prefix.split_first() {
        None => Command::new(path),
        Some((sudo, rest)) => {
            let mut command = Command::new(sudo);
            command.args(rest).arg(path);
            command
        }
    })
}
