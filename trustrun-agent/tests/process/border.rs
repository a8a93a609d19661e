//! The session's border over unix sockets where its cgroup is seen from a cgroup namespace, as in a container: there no
//! path says how deep the cgroup is.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    os::unix::net::{UnixDatagram, UnixListener},
    path::PathBuf,
};

use trustrun_lab::wait_until;

use crate::harness::{BLOCK, Case, Ran, SOON, cgroup2, have, wait_for};

/// Trustrun in a cgroup namespace three levels down, with a mount of the cgroups of its own.
struct Contained {
    case: Case,
    folder: PathBuf,
}

impl Contained {
    fn new() -> Option<Self> {
        let case = Case::new()?.policy(BLOCK);
        if !have(&["python3", "unshare"]) {
            return None;
        }
        let mount = cgroup2().into_iter().next()?;
        let folder = mount.join(format!("trustrun-test-{}", case.folder().file_name()?.to_str()?));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        let enter = format!(
            "echo 0 > {0}/a/b/cgroup.procs && exec unshare -Cm sh -c 'umount {1} && mount -t cgroup2 none {1} && exec \"$@\"' sh \\",
            folder.display(),
            mount.display()
        );
        Some(Self { case: case.inside(&enter), folder })
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // What the session's own cgroup was in is gone with it.
        let remove = |below: &str| fs::remove_dir(self.folder.join(below)).is_ok();
        wait_until(SOON, || {
            for below in ["a/b/trustrun", "a/b", "a", ""] {
                remove(below);
            }
            !self.folder.exists()
        });
    }
}

/// Whether both ways over the border are seen (Linux 6.3).
fn sees_unix(ran: &Ran) -> bool {
    let hooks = ran.report()["coverage"]["hooks"].as_array().unwrap();
    let sees = hooks.iter().any(|h| h["name"] == "unix_peer");
    if !sees {
        trustrun_lab::skip("the kernel does not tell of unix sockets: Linux 6.3 does");
    }
    sees
}

#[test]
fn in_a_cgroup_namespace_its_own_sockets_are_its_own() {
    let Some(contained) = Contained::new() else { return };
    let script = r#"
import os, socket
assert open("/proc/self/cgroup").read().splitlines()[-1].startswith("0::/trustrun/"), "no namespace"
a, b = socket.socketpair(); a.send(b"x"); print(b.recv(1))
l = socket.socket(socket.AF_UNIX); l.bind("\0own-border"); l.listen()
c = socket.socket(socket.AF_UNIX); c.connect("\0own-border"); c.send(b"y")
print(l.accept()[0].recv(1))
"#;
    let ran = contained.case.run(&["python3", "-c", script]);
    assert_eq!(ran.exits(0).out(), "b'x'\nb'y'\n");
    ran.verdict("pass");
    sees_unix(&ran);
}

#[test]
fn in_a_cgroup_namespace_who_comes_from_outside_is_told() {
    let Some(contained) = Contained::new() else { return };
    let script = r#"
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.settimeout(60)
s.bind("part"); os.rename("part", "inbox")
try:
    print(s.recv(9).decode())
except TimeoutError:
    print("nothing")
"#;
    let case = &contained.case;
    let running = case.start(&["python3", "-c", script]);
    wait_for(&case.path("inbox"));
    UnixDatagram::unbound().unwrap().send_to(b"data", case.path("inbox")).unwrap();
    let ran = running.end();
    assert_eq!(ran.exits(0).out(), "data\n");
    if sees_unix(&ran) {
        assert_eq!(ran.gaps(), ["unix-socket-outside"]);
        ran.verdict("incomplete").says("part, a socket of the session, was sent to by a process outside");
    }
}

#[test]
fn in_a_cgroup_namespace_who_is_reached_outside_is_told() {
    let Some(contained) = Contained::new() else { return };
    let case = &contained.case;
    let script = r#"
import os, socket, time
open("begun", "w").close()
while not os.path.exists("helper"): time.sleep(0.01)
s = socket.socket(socket.AF_UNIX); s.connect("helper"); print("open")
"#;
    let running = case.start(&["python3", "-c", script]);
    wait_for(&case.path("begun"));
    let _listener = UnixListener::bind(case.path("new")).unwrap();
    fs::rename(case.path("new"), case.path("helper")).unwrap();
    let ran = running.end();
    assert_eq!(ran.exits(0).out(), "open\n");
    if sees_unix(&ran) {
        assert_eq!(ran.gaps(), ["unix-socket-outside"]);
        ran.verdict("incomplete");
    }
}
