//! What would let a process have the machine itself act for it: whether these doors can be opened at all. Nobody goes
//! through, as that would harm the machine that tests; one that opens could have been used unseen.

use crate::way::{Judge, Must, WAY, Way};

/// A file that may be written to; nothing is.
macro_rules! writes {
    ($path:literal) => {
        concat!("f=", $path, "; [ -e $f ] || exit 3; true >> $f")
    };
}

macro_rules! door {
    ($id:literal, $title:literal, $line:expr) => {
        Way {
            id: $id,
            title: $title,
            line: concat!(
                "{ ",
                $line,
                "; } && : > {dir}/door-{token} || { code=$?; echo EPERM; [ $code = 3 ] && exit 3; exit 1; }"
            ),
            judge: Judge::Door,
            must: (Must::Told, Must::Named),
            limits: &["root-target"],
            ..WAY
        }
    };
}

pub(crate) const ALL: &[Way] = &[
    door!(
        "core_pattern",
        "a program that the kernel runs when another crashes",
        writes!("/proc/sys/kernel/core_pattern")
    ),
    door!("modprobe", "a program that the kernel runs to load a module", writes!("/proc/sys/kernel/modprobe")),
    door!("uevent_helper", "a program that the kernel runs for each device", writes!("/sys/kernel/uevent_helper")),
    door!(
        "release_agent",
        "a program that the kernel runs when a cgroup (v1) is empty",
        writes!("$(awk '$0 ~ / - cgroup / {print $5; exit}' /proc/self/mountinfo)/release_agent")
    ),
    door!("sysrq", "the kernel's emergency keys", writes!("/proc/sysrq-trigger")),
    door!("module", "a kernel module", "{bin}/escape module"),
    door!("bpf", "a kernel program of one's own (bpf)", "{bin}/escape program"),
    door!(
        "raw_disk",
        "the raw disk under everybody's files",
        "d=$(awk '$4 ~ /^(vd|sd|xvd|nvme)/ {print $4; exit}' /proc/partitions); [ -b /dev/$d ] || exit 3; true >> /dev/$d"
    ),
    door!(
        "device_node",
        "a device node of one's own (mknod)",
        "rm -f {dir}/node{token}; mknod {dir}/node{token} c 1 3"
    ),
    door!("memory_of_init", "the memory of the first process", writes!("/proc/1/mem")),
    door!(
        "mount",
        "a mount over a file that others trust",
        "mkdir -p {dir}/m{token} && mount -t tmpfs none {dir}/m{token} && umount {dir}/m{token}"
    ),
    door!(
        "route",
        "a route of the machine",
        "ip route add 198.51.100.200/32 dev lo && ip route del 198.51.100.200/32 dev lo"
    ),
    door!("link", "a network device of one's own", "ip link add zq{uid} type dummy && ip link del zq{uid}"),
    door!("tun", "a tunnel device", "ip tuntap add mode tun name zt{uid} && ip tuntap del mode tun name zt{uid}"),
    door!(
        "traffic_control",
        "traffic control, which may redirect packets",
        "tc qdisc add dev lo clsact && tc qdisc del dev lo clsact"
    ),
    door!("files_of_root", "a file that root's shells execute", writes!("/etc/profile")),
];
