//! What others do on the session's behalf: proxies, daemons, and processes that are made to.

use crate::way::{Must, WAY, Way};

/// Gaps that say that a program outside may have been asked.
const ASKED: &[&str] = &["unix-socket-outside", "passed-socket"];

/// The gap of every session where the kernel cannot tell of it.
const UNTOLD: &[&str] = &["unix-sockets-unseen"];

/// One kind of `programs/others.c`, and the program outside that it asks.
macro_rules! asks {
    ($id:literal, $title:literal, $outside:expr, $ask:literal) => {
        Way {
            id: $id,
            title: $title,
            outside: concat!("{bin}/outside ", $outside),
            line: concat!("{bin}/others ", $ask, " {to} {token}"),
            must: (Must::Told, Must::Told),
            told: ASKED,
            old: UNTOLD,
            ..WAY
        }
    };
}

/// The same, through files, which a program outside must mean to read.
macro_rules! helps {
    ($id:literal, $title:literal, $outside:expr, $ask:literal) => {
        Way {
            must: (Must::Named, Must::Named),
            limits: &["helpers-outside"],
            old: &[],
            ..asks!($id, $title, $outside, $ask)
        }
    };
}

/// The same, with a socket that is made only after the session began.
macro_rules! asks_late {
    ($id:literal, $title:literal, $kind:literal, $place:literal) => {
        Way {
            alone: true,
            line: concat!(
                "true > {dir}/door-go-{token}; for i in $(seq 200); do {bin}/others ",
                $kind,
                " ",
                $place,
                " {to} {token} && exit 0; sleep 0.02; done; exit 1"
            ),
            ..asks!($id, $title, concat!("late {dir}/door-go-{token} ", $kind, " ", $place), "")
        }
    };
}

/// The same, with a process of the same user that is made to do it against its will.
macro_rules! forces {
    ($id:literal, $title:literal, $kind:literal) => {
        Way {
            id: $id,
            title: $title,
            outside: "{bin}/outside as {uid} victim {dir}/victim-{token}",
            line: concat!("{bin}/others ", $kind, " {dir}/victim-{token} {to} {token}"),
            ..WAY
        }
    };
}

pub(crate) const ALL: &[Way] = &[
    asks!(
        "unix_run",
        "a daemon's socket in /run, as a container engine, D-Bus or systemd has",
        "stream /run/trustrun-bypass-{key}.sock",
        "stream /run/trustrun-bypass-{key}.sock"
    ),
    asks!(
        "unix_tmp",
        "a daemon's socket in a folder that everybody may use, as tmux has in /tmp",
        "stream {dir}/{token}.sock",
        "stream {dir}/{token}.sock"
    ),
    asks!(
        "unix_abstract",
        "a daemon's abstract socket, which has no file",
        "stream @trustrun-bypass-{key}",
        "stream @trustrun-bypass-{key}"
    ),
    asks!("unix_dgram", "a datagram to a daemon's unix socket", "dgram {dir}/{token}.sock", "dgram {dir}/{token}.sock"),
    asks!(
        "unix_pass",
        "a connected socket that a daemon passes on (SCM_RIGHTS)",
        "pass {dir}/{token}.sock",
        "pass {dir}/{token}.sock"
    ),
    asks_late!(
        "unix_late",
        "a daemon's socket that is made only after the session began",
        "stream",
        "{dir}/{token}.late"
    ),
    asks_late!("unix_late_pass", "a connected socket that is passed over such a one", "pass", "{dir}/{token}.late"),
    asks_late!("unix_late_dgram", "a datagram to such a one", "dgram", "{dir}/{token}.late"),
    Way {
        alone: true,
        ..asks!(
            "unix_visit",
            "a socket of the session's own, to which a program outside comes",
            "visit {dir}/{token}.own",
            "host {dir}/{token}.own"
        )
    },
    Way {
        must: WAY.must,
        old: &[],
        ..asks!(
            "proxy_loopback",
            "a proxy on 127.0.0.1 that is not of the session",
            "loopback 127.0.0.1",
            "loopback 127.0.0.1"
        )
    },
    Way { must: WAY.must, old: &[], ..asks!("proxy_loopback6", "the same on ::1", "loopback6 any", "loopback ::1") },
    Way {
        must: WAY.must,
        old: &[],
        ..asks!("proxy_loopback_other", "the same on 127.9.9.9", "loopback 127.9.9.9", "loopback 127.9.9.9")
    },
    Way { old: &[], ..asks!("netlink", "a message to another process's netlink socket", "netlink -", "netlink -") },
    Way {
        old: &[],
        ..asks!("message_queue", "a message to another process's queue (System V)", "queue {key}", "queue {key}")
    },
    forces!("ptrace", "a process outside that is traced, and its memory written", "ptrace"),
    Way {
        old: &["other-processes-unseen"],
        ..forces!("process_memory", "a process outside whose /proc/PID/mem is written", "mem")
    },
    forces!("process_writev", "the same by process_vm_writev", "writev"),
    Way {
        id: "process_socket",
        title: "a connected socket taken from a process outside (pidfd_getfd)",
        outside: "{bin}/outside as {uid} victim {dir}/victim-{token} '{to} x'",
        line: "{bin}/others descriptor {dir}/victim-{token} {to} {token}",
        judge: crate::way::Judge::Token,
        ..WAY
    },
    Way {
        id: "cron",
        title: "a file in /etc/cron.d, which somebody outside executes",
        outside: "sh -c '[ -d /etc/cron.d ] || { echo ready; exec sleep 600; }; mount -t tmpfs -o mode=755 none /etc/cron.d && exec {bin}/outside spool /etc/cron.d'",
        line: "[ -d /etc/cron.d ] || exit 3; {bin}/others file /etc/cron.d/{token} {to} {token}",
        must: (Must::Told, Must::Told),
        told: &["others-may-act"],
        alone: true,
        ..WAY
    },
    Way {
        id: "tmux",
        title: "a tmux server that runs outside",
        outside: "{bin}/outside as {uid} exec sh -c 'command -v tmux >/dev/null || { echo ready; exec sleep 600; }; (until [ -S {dir}/{token}.tmux ]; do sleep 0.02; done; echo ready) & exec tmux -D -S {dir}/{token}.tmux -f /dev/null'",
        line: "command -v tmux >/dev/null || exit 3; tmux -S {dir}/{token}.tmux run-shell '{bin}/sockets tcp {to} {to6} {token}' || { echo EPERM; exit 1; }",
        must: (Must::Told, Must::Told),
        told: ASKED,
        old: UNTOLD,
        ..WAY
    },
    Way {
        id: "terminal",
        title: "a line pushed into the terminal's input, for the shell that started the session (TIOCSTI)",
        before: "exec python3 {bin}/terminal.py \"$@\"",
        line: "{bin}/push '{bin}/sockets tcp {to} {to6} {token}'",
        alone: true,
        ..WAY
    },
];

/// Files and the like that any two programs of one machine can use, if both want to.
pub(crate) const SHARED: &[Way] = &[
    helps!(
        "named_pipe",
        "a named pipe that a program outside reads",
        "fifo {dir}/{token}.pipe",
        "fifo {dir}/{token}.pipe"
    ),
    helps!("file", "a file that a program outside looks for", "spool {dir}/spool", "file {dir}/spool/{token}"),
    helps!(
        "shared_memory",
        "memory that is shared with a program outside",
        "shared /dev/shm/trustrun-bypass-{key}",
        "shared /dev/shm/trustrun-bypass-{key}"
    ),
];
