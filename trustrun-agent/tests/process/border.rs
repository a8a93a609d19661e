//! The session's border over unix sockets: refused where the kernel runs programs as a security module, else told. Also
//! where its cgroup is seen from a cgroup namespace, as in a container: there no path says how deep the cgroup is.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    io::{ErrorKind::ConnectionRefused, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixListener},
    },
    path::PathBuf,
    thread,
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

/// Whether what would go over the border is refused (BPF LSM).
fn guarded(ran: &Ran) -> bool {
    let locks = ran.report()["coverage"]["locks"].as_array().unwrap();
    let guarded = locks.iter().any(|l| l["name"] == "unix-border" && l["held"] == true);
    if !guarded {
        trustrun_lab::skip("this kernel runs no programs as a security module: what crosses the border is told only");
    }
    guarded
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
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("part"); os.rename("part", "inbox")
while not os.path.exists("sent"): time.sleep(0.01)
s.setblocking(False)
try:
    print(s.recv(9).decode())
except BlockingIOError:
    print("nothing")
"#;
    let case = &contained.case;
    let running = case.start(&["python3", "-c", script]);
    wait_for(&case.path("inbox"));
    let sent = UnixDatagram::unbound().unwrap().send_to(b"data", case.path("inbox"));
    fs::write(case.path("sent"), "").unwrap();
    let ran = running.end();
    if guarded(&ran) {
        assert_eq!((sent.map_err(|e| e.kind()), ran.exits(0).out().as_str()), (Err(ConnectionRefused), "nothing\n"));
        ran.verdict("pass").says("part, a socket of the session, and was refused");
        return;
    }
    assert_eq!((sent.map_err(|e| e.kind()), ran.exits(0).out().as_str()), (Ok(4), "data\n"));
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
s = socket.socket(socket.AF_UNIX); print(s.connect_ex("helper"))
"#;
    let running = case.start(&["python3", "-c", script]);
    wait_for(&case.path("begun"));
    let _listener = UnixListener::bind(case.path("new")).unwrap();
    fs::rename(case.path("new"), case.path("helper")).unwrap();
    let ran = running.end();
    if guarded(&ran) {
        assert_eq!(ran.exits(0).out(), "1\n");
        ran.verdict("pass").says("new, a socket of a process outside, was refused to");
        return;
    }
    assert_eq!(ran.exits(0).out(), "0\n");
    if sees_unix(&ran) {
        assert_eq!(ran.gaps(), ["unix-socket-outside"]);
        ran.verdict("incomplete");
    }
}

/// Says what an allowed service answers, over a stream and over datagrams, and again when the service began anew.
#[test]
fn what_the_policy_lets_in_is_reached_and_answers() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    let case = case.with(&["--run-as", "nobody"]);
    let (doors, own) = (case.path("doors"), case.path("own"));
    for folder in [&doors, &own] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let policy = format!("version: 1\ndefault: block\nunix_sockets: [{}]\n", doors.display());
    let case = case.policy(&policy);
    let ask = r#"
import os, socket, sys, time
def ask(path):
    s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(path); return s.recv(9).decode()
print(ask("doors/stream"))
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.settimeout(60)
d.bind("own/client"); os.chmod("own/client", 0o777)
d.sendto(b"?", "doors/datagram"); print(d.recv(9).decode())
open("own/again", "w").close()
while not os.path.exists("doors/new"): time.sleep(0.01)
print(ask("doors/new"))
"#;
    let serve = |name: &str| {
        let listener = UnixListener::bind(doors.join("part")).unwrap();
        fs::set_permissions(doors.join("part"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::rename(doors.join("part"), doors.join(name)).unwrap();
        thread::spawn(move || listener.accept().unwrap().0.write_all(b"stream").unwrap())
    };
    let datagrams = UnixDatagram::bind(doors.join("datagram")).unwrap();
    fs::set_permissions(doors.join("datagram"), fs::Permissions::from_mode(0o777)).unwrap();
    let first = serve("stream");
    let running = case.start(&["python3", "-c", ask]);
    let (_, from) = datagrams.recv_from(&mut [0]).unwrap();
    datagrams.send_to(b"datagram", case.folder().join(from.as_pathname().unwrap())).unwrap();
    wait_for(&own.join("again"));
    let second = serve("new");
    let ran = running.end();
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!(ran.exits(0).out(), "stream\ndatagram\nstream\n", "{}", ran.stderr);
    guarded(&ran);
}

#[test]
fn a_packet_socket_of_roots_that_is_used_is_a_gap() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    // A datagram to nobody on loopback, with a protocol for experiments (IEEE 802).
    let script = r#"
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
if sys.argv[1] == "send": s.sendto(b"x" * 60, ("lo", 0x88b5))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.sendto(b"x", ("127.0.0.1", 9))
"#;
    let case = case.policy("version: 1\ndefault: allow\n");
    let ran = case.run(&["python3", "-c", script, "make"]);
    // What root may have others do is a gap of its own where nothing holds it (ADR 0010).
    assert_eq!(ran.exits(0).gaps(), ["root-target"], "{}", ran.stderr);
    if !ran.report()["limits"].to_string().contains("packet-socket-used") {
        trustrun_lab::skip("the kernel does not tell of packet sockets: Linux 6.1 does");
        return;
    }
    let ran = case.run(&["python3", "-c", script, "send"]);
    assert_eq!(ran.exits(0).gaps(), ["packet-socket-used", "root-target"]);
    ran.verdict("incomplete").says("by a packet socket");
    assert!(ran.report()["gaps"][0]["detail"].as_str().unwrap().contains("python3"));
}

#[test]
fn a_source_route_is_a_gap_where_it_is_only_watched() {
    let Some(case) = Case::new() else { return };
    if !have(&["python3"]) {
        return;
    }
    // IP_OPTIONS with a filler and a loose source route by 127.0.0.2, then IPV6_RTHDR with one segment.
    let script = r#"
import socket, sys
if sys.argv[1] == "4":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([1, 131, 7, 4, 127, 0, 0, 2]))
    to = ("127.0.0.1", 9)
else:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, 57, bytes([0, 2, 4, 0, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, "::1"))
    to = ("::1", 9)
s.sendto(b"x", to)
"#;
    let case = case.policy("version: 1\ndefault: allow\n");
    let ran = case.run(&["python3", "-c", script, "4"]);
    assert_eq!(ran.exits(0).gaps(), ["root-target", "source-route"], "{}", ran.stderr);
    ran.verdict("incomplete");
    let ran = case.run(&["python3", "-c", script, "6"]);
    if !ran.status.success() {
        trustrun_lab::skip("this kernel makes no routing headers");
        return;
    }
    assert_eq!(ran.gaps(), ["root-target", "source-route"]);
    // Where something is refused it does not leave, whoever is allowed.
    let case = Case::anyone().policy("version: 1\ndefault: block\nrules:\n  - allow: [\"any/::1\"]\n");
    let ran = case.with(&["--run-as", "nobody"]).run(&["python3", "-c", script, "6"]);
    assert!(ran.stderr.contains("PermissionError: [Errno 1]"), "{}", ran.stderr);
    ran.exits(1).verdict("fail");
}
