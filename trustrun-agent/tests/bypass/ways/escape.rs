//! Ways out of the session itself: its cgroup, its agent, its kernel programs, and sockets older than it.

use crate::way::{Judge, Must, WAY, Way};

/// Something is done, then a connection is tried: its packets show whether it helped.
macro_rules! then_connects {
    ($id:literal, $title:literal, $first:literal) => {
        Way { id: $id, title: $title, line: concat!($first, "{bin}/sockets tcp {to} {to6} {token}"), ..WAY }
    };
}

/// The mount points of cgroup2.
macro_rules! cgroup2 {
    () => {
        "$(awk '$0 ~ / - cgroup2 / {print $5}' /proc/self/mountinfo)"
    };
}

pub(crate) const ALL: &[Way] = &[
    Way {
        line: concat!(
            "for p in ",
            cgroup2!(),
            "; do echo $$ > $p/cgroup.procs; done; {bin}/sockets tcp {to} {to6} {token}"
        ),
        told: &["left-cgroup"],
        ..then_connects!("cgroup_procs", "moving to another cgroup (cgroup.procs)", "")
    },
    then_connects!(
        "cgroup_v1",
        "moving to the roots of all cgroup v1 hierarchies",
        "for p in $(awk '$0 ~ / - cgroup / {print $5}' /proc/self/mountinfo); do echo $$ > $p/cgroup.procs; done; "
    ),
    Way {
        // Where it works it unhooks all sockets that are made later, of the whole machine and until it boots again.
        bare: false,
        line: "all=$(awk '$0 ~ / - cgroup .*net_(cls|prio)/ {print $5}' /proc/self/mountinfo); [ \"$all\" ] || exit 3; for p in $all; do mkdir $p/{token}; echo $$ > $p/{token}/cgroup.procs; echo 1 > $p/{token}/net_cls.classid; echo lo 1 > $p/{token}/net_prio.ifpriomap; done; {bin}/sockets tcp {to} {to6} {token}",
        ..then_connects!(
            "net_cls",
            "a net_cls or net_prio group of cgroup v1, which before 5.15 unhooks all sockets that are made later",
            ""
        )
    },
    then_connects!(
        "cgroup_userns",
        "the same on a cgroup2 that is mounted in a user namespace of one's own",
        "mkdir -p {dir}/cg{token}; unshare -UrmC sh -c 'mount -t cgroup2 none {dir}/cg{token} && echo 0 > {dir}/cg{token}/cgroup.procs; exec \"$@\"' sh "
    ),
    Way {
        line: concat!("{bin}/escape into ", cgroup2!(), " {bin}/sockets tcp {to} {to6} {token}"),
        told: &["left-cgroup"],
        ..then_connects!("cgroup_born", "a child that is born in another cgroup (CLONE_INTO_CGROUP)", "")
    },
    Way {
        alone: true,
        before: concat!("exec 0<", cgroup2!()),
        line: "sh -c 'echo $$ > /proc/self/fd/0/cgroup.procs; exec \"$@\"' sh {bin}/sockets tcp {to} {to6} {token}",
        told: &["left-cgroup"],
        must: (Must::Refused, Must::Refused),
        ..then_connects!(
            "cgroup_stdin",
            "the same through a cgroup folder that the caller left open as standard input",
            ""
        )
    },
    Way {
        outside: "{bin}/outside as {uid} victim {dir}/victim-{token}",
        line: "nsenter -t $(cut -d' ' -f1 {dir}/victim-{token}) -m -n -C -i -u {bin}/sockets tcp {to} {to6} {token} || { echo EPERM; exit 1; }",
        ..then_connects!("setns", "entering the namespaces of a process outside", "")
    },
    then_connects!("unshare", "new user, pid, ipc and cgroup namespaces", "unshare -UrCip --fork "),
    then_connects!(
        "cgroup_new_mount",
        "a cgroup2 of one's own by the newer mount calls (fsopen), in new namespaces",
        "{bin}/escape mount "
    ),
    Way {
        line: "{bin}/sockets-suid packet_raw {to} {to6} {token}",
        ..then_connects!("setuid_root", "a setuid program of root's, which may send frames", "")
    },
    Way {
        alone: true,
        ..then_connects!("agent_killed", "the agent's processes ended from inside", "{bin}/escape agent kill ")
    },
    Way {
        alone: true,
        ..then_connects!(
            "agent_stopped",
            "the agent's processes stopped from inside (SIGSTOP)",
            "{bin}/escape agent stop "
        )
    },
    then_connects!("links_detached", "the session's kernel programs detached by bpf(2)", "{bin}/escape detach "),
    Way {
        alone: true,
        line: "own=$(sed -n 's,^0::.*/trustrun/\\([^/]*\\).*,\\1,p' /proc/self/cgroup); [ -z \"$own\" ] || rm -rf /sys/fs/bpf/trustrun/$own; {bin}/escape agent kill {bin}/sockets tcp {to} {to6} {token}",
        ..then_connects!("links_unpinned", "the programs' pins removed, then the agent ended", "")
    },
    Way {
        line: "{bin}/sockets tcp {to} {to6} {token} & wait; setsid sh -c 'setsid {bin}/sockets tcp {to} {to6} {token}'",
        ..then_connects!("daemon", "a daemon of two forks, in a session of its own", "")
    },
    Way {
        id: "inherited",
        title: "a socket that the caller had connected before, as descriptor 5",
        before: "exec 5<>/dev/tcp/{to}/9",
        line: "printf {token} >&5",
        judge: Judge::Token,
        alone: true,
        ..WAY
    },
    Way {
        id: "inherited_stdin",
        title: "the same as standard input",
        before: "exec 0<>/dev/tcp/{to}/9",
        line: "printf {token} >&0",
        judge: Judge::Token,
        must: (Must::Told, Must::Told),
        told: &["socket-from-outside"],
        alone: true,
        ..WAY
    },
];

/// What a program outside can do to all sockets of the machine, until it boots again: for guests alone, and there the last.
pub(crate) const MACHINE: &[Way] = &[Way {
    alone: true,
    // Tried without TrustRun it would unhook the session before it begins.
    bare: false,
    outside: concat!(
        "sh -c 'echo ready; until [ -e {dir}/door-go-{token} ]; do sleep 0.02; done; ",
        "for p in $(awk \"\\$0 ~ / - cgroup .*net_(cls|prio)/ {print \\$5}\" /proc/self/mountinfo); do mkdir $p/{token}; ",
        "echo 1 > $p/{token}/net_cls.classid; echo $$ > $p/{token}/cgroup.procs; done; ",
        ": > {dir}/door-done-{token}; exec sleep 60'"
    ),
    line: concat!(
        "grep -Eq ' - cgroup .*net_(cls|prio)' /proc/self/mountinfo || exit 3; : > {dir}/door-go-{token}; ",
        "until [ -e {dir}/door-done-{token} ]; do sleep 0.02; done; {bin}/sockets tcp {to} {to6} {token}"
    ),
    must: (Must::Told, Must::Told),
    told: &["hook-lost"],
    ..then_connects!(
        "net_cls_outside",
        "somebody outside uses net_cls or net_prio (a container engine does), which before 5.15 unhooks all sockets that are made later",
        ""
    )
}];
