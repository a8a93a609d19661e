//! Who listens inside a session is reached there, however listeners come and go.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use crate::harness::{BLOCK, Case, have};

#[test]
fn of_several_listeners_at_one_port_the_last_to_stay_is_reached() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    // As servers have it that start one worker for each processor and replace them one by one.
    let script = r#"
import socket
def listener(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    s.listen()
    return s
first = listener(0)
port = first.getsockname()[1]
for close_first in (False, True):
    second = listener(port)
    if close_first:
        first.close()
        first = second
    else:
        second.close()
    socket.create_connection(("127.0.0.1", port), 20).close()
first.close()
try:
    socket.create_connection(("127.0.0.1", port), 20)
except ConnectionRefusedError:
    print("closed")
"#;
    let ran = case.policy(BLOCK).run(&["python3", "-c", script]);
    assert_eq!(ran.exits(0).out(), "closed\n", "{}", ran.stderr);
    ran.verdict("pass");
}

#[test]
fn where_the_session_listened_before_somebody_else_is_judged() {
    let Some(case) = have(&["python3"]).then(Case::new).flatten() else { return };
    let script = r#"
import ctypes, os, socket, time
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
port = s.getsockname()[1]
# Disconnecting gives up a port that the kernel picked; then the socket takes another.
s.connect(("127.0.0.1", port))
libc = ctypes.CDLL(None, use_errno=True)
unspec = (ctypes.c_char * 16)()
assert libc.connect(s.fileno(), unspec, 16) == 0
s.bind(("127.0.0.1", 0))
assert s.getsockname()[1] != port
with open("port.new", "w") as f:
    f.write(str(port))
os.rename("port.new", "port")
while not os.path.exists("taken"):
    time.sleep(0.02)
u = socket.socket(type=socket.SOCK_DGRAM)
try:
    u.sendto(b"x", ("127.0.0.1", port))
    print("through")
except PermissionError:
    print("EPERM")
"#;
    let case = case.policy(BLOCK);
    let running = case.start(&["python3", "-c", script]);
    crate::harness::wait_for(&case.path("port"));
    let port: u16 = case.read("port").parse().unwrap();
    let outside = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    outside.set_nonblocking(true).unwrap();
    case.file("taken", "");
    let ran = running.end();
    assert_eq!(ran.exits(0).out(), "EPERM\n");
    assert!(outside.recv(&mut [0; 8]).is_err(), "it arrived");
    ran.verdict("fail");
}
