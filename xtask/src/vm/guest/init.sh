#!/bin/bash
# PID 1 of a guest without systemd: mounts what a machine has, then runs the list. With trustrun.init=systemd on the kernel's
# command line, makes way for systemd, which starts the list in a session's scope.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
read -r line < /proc/cmdline
if [[ $line == *trustrun.init=systemd* ]]; then
    exec /usr/lib/systemd/systemd
fi
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock
ln -sfn /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -sfn "/proc/self/fd/${n%%:*}" "/dev/${n##*:}"; done
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null

if [[ $line == *trustrun.cgroup=hybrid* ]]; then
    # As systemd did before 2020, and as some container hosts do still: v1 controllers, and a v2 hierarchy beside them. No
    # bpffs: trustrun mounts one.
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    for controllers in cpu,cpuacct memory pids net_cls,net_prio freezer; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" 2>/dev/null || rmdir "/sys/fs/cgroup/$controllers"
    done
else
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    mount -t bpf bpf /sys/fs/bpf
fi
hostname guest
ip link set lo up
/vm/suites
