#!/bin/bash
# Runs each line of /vm/list (name, seconds, threads, folder, command; tabs between) and says on the second serial port
# what came of it. Lines that begin with "@vm" are for xtask/src/vm/report.rs.
out=/dev/ttyS1
stty -F $out raw -echo
say() { printf '\n@vm %s\n' "$*" > $out; }

export PATH=/vm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root LANG=C.UTF-8 TERM=dumb TRUSTRUN_SKIP_LOG=/vm/skips RUST_BACKTRACE=0
# Of the bypass suite: what became of each way; and how many are a flood, as the processor is emulated.
export TRUSTRUN_BYPASS_LOG=/vm/ways TRUSTRUN_BYPASS_MANY=2000 TRUSTRUN_BYPASS_PROGRAMS=/vm/ways-programs
# What is tried needs more than loads by itself, and a folder of cron's.
mkdir -p /etc/cron.d
modprobe -qa tun dummy vsock_loopback
cgroups=$(awk '$9 == "cgroup2" || $8 == "cgroup2" || $10 == "cgroup2" { print $5 }' /proc/self/mountinfo)
say "up $(uname -r), cgroup v2 at ${cgroups:-none}, we in $(tail -n 1 /proc/self/cgroup), lsm $(cat /sys/kernel/security/lsm 2>/dev/null)"
failed=0
while IFS=$'\t' read -r name seconds threads folder command <&9; do
    : > "$TRUSTRUN_SKIP_LOG"
    : > "$TRUSTRUN_BYPASS_LOG"
    say "begin $name"
    began=$EPOCHREALTIME
    # The names of programs hold no blanks, and the command is split at them.
    # shellcheck disable=SC2086
    (cd "$folder" && RUST_TEST_THREADS=$threads exec timeout -k 5 "$seconds" $command) < /dev/null > $out 2>&1 9<&-
    code=$?
    [ $code -eq 0 ] || failed=$((failed + 1))
    while IFS= read -r reason; do say "skip $reason"; done < "$TRUSTRUN_SKIP_LOG"
    [ -s "$TRUSTRUN_BYPASS_LOG" ] && sed 's/^/@vm way /' "$TRUSTRUN_BYPASS_LOG" > $out
    say "end $name $code $(((${EPOCHREALTIME//[.,]/} - ${began//[.,]/}) / 1000))"
done 9< /vm/list
say "verdict $failed"
# What was written must be out before the power is.
stty -F $out drain 2>/dev/null
sleep 0.2
echo o > /proc/sysrq-trigger
sleep 60
