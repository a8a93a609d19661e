//! Ways out and blind spots, as the report tells them.

use trustrun_model::{Limit, LockState, SensorKind};

use super::{Facts, Final};

/// Ways out and blind spots of this sensor, whether or not they were used.
pub(super) fn limits(facts: &Facts, locks: &[LockState], last: &Final) -> Vec<Limit> {
    let limit = |kind: &str, detail: &str| Limit { kind: kind.into(), detail: detail.into() };
    let held = |name: &str| locks.iter().any(|l| l.name == name && l.held);
    if facts.sensor == SensorKind::Sockets {
        return sampled();
    }
    let mut out = Vec::new();
    let hidden = ["private-run", "unix-sockets", "abstract-sockets", "other-processes"].into_iter().all(held);
    match (last.unix || last.border, hidden) {
        _ if last.border => out.push(limit(
            "local-services",
            "what a process outside does on the command's behalf is that process's traffic; a command that would reach \
             one over a unix socket which the policy does not name is refused, one that does so through files is not seen",
        )),
        (true, _) => out.push(limit(
            "local-services",
            "what a process outside does on the command's behalf is that process's traffic; a command that reaches one \
             over a unix socket is told (unix-socket-outside), one that does so through files is not",
        )),
        (false, true) => out.push(limit(
            "later-sockets",
            "a process outside that helps the command can make a unix socket in a folder that both see, after the \
             start, and carry bytes for it; this kernel cannot tell (Linux 6.3 can)",
        )),
        (false, false) => out.push(limit(
            "local-services",
            "what a local service does on the command's behalf (over a unix socket: container engine, D-Bus, name \
             service) is that service's traffic, not the command's; this kernel cannot tell who is reached (6.3 can)",
        )),
    }
    out.push(limit(
        "helpers-outside",
        "a process outside that means to help the command can carry bytes for it through files, named pipes or shared \
         memory, which nothing here sees",
    ));
    out.push(limit(
        "inside-tls",
        "what is asked for inside TLS is not seen: a server that answers for several names (domain fronting, encrypted \
         hellos) can be asked for another than the one that was allowed",
    ));
    if facts.user == "root" {
        out.push(limit(
            "root-target",
            if facts.enforce {
                "the command ran as root, who can write to files that others run or obey: where the system has such files \
                 it was looked whether they were changed (others-may-act), elsewhere not; run it as an ordinary user: --run-as"
            } else {
                "the command ran as root, whom nothing held; run it as an ordinary user: --run-as"
            },
        ));
    }
    if let Some(why) = &last.no_scope {
        out.push(limit(
            "outside-slice",
            &format!(
                "limits of the caller's slice did not hold for the command, since systemd made no scope for it: {why}"
            ),
        ));
    }
    if !facts.enforce {
        out.push(limit(
            "packet-sockets",
            if last.packets {
                "with CAP_NET_RAW a command can send frames that the cgroup hooks do not see; those of packet sockets are \
                 told (packet-socket-used), but not those past the queueing discipline, nor AF_XDP and AF_VSOCK; an enforcing \
                 policy refuses those sockets"
            } else {
                "with CAP_NET_RAW a command can send frames (AF_PACKET, AF_XDP, AF_VSOCK) that the cgroup hooks do not \
                 see; an enforcing policy refuses those sockets"
            },
        ));
    }
    out.extend(facts.doors.iter().cloned());
    out
}

/// What the socket table never has, however often it is read.
fn sampled() -> Vec<Limit> {
    let limit = |kind: &str, detail: &str| Limit { kind: kind.into(), detail: detail.into() };
    vec![
        limit("no-names", "the socket table has addresses and no names: rules about names cannot be judged by it"),
        limit("no-packets", "raw and packet sockets, ICMP and what goes over unix sockets is not seen"),
        limit("before-and-after", "what happened before the first look and after the last is not in this report"),
    ]
}
