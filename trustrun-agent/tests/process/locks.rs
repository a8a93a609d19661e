//! What an enforcing policy takes from the command.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _};

use trustrun_lab::skip;

use crate::harness::{self, BLOCK, Case, FarEnd, have};

#[test]
fn enforcing_closes_descriptors_and_takes_privileges() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK).inside("exec 5</dev/null 9<\"$DIR\"; exec \\");
    let ran = case.sh("cat /proc/self/status; echo ---; ls /proc/self/fd");
    let out = ran.exits(0).out();
    let (status, fds) = out.split_once("---\n").unwrap();
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|l| l.split_once(":\t")).collect();
    assert_eq!(fields["NoNewPrivs"], "1");
    assert_eq!(fields["Seccomp"], "2");
    // CAP_NET_RAW 13, CAP_NET_ADMIN 12, CAP_SYS_ADMIN 21, CAP_SYS_PTRACE 19, CAP_SYS_MODULE 16, CAP_BPF 39,
    // CAP_DAC_READ_SEARCH 2, CAP_MKNOD 27, CAP_SYS_CHROOT 18, CAP_SYS_RAWIO 17
    let ways_out = [13, 12, 21, 19, 16, 39, 2, 27, 18, 17].iter().fold(0u64, |m, c| m | 1 << c);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let held = u64::from_str_radix(fields[set], 16).unwrap();
        assert_eq!(held & ways_out, 0, "{set} {held:x}");
    }
    let eff = u64::from_str_radix(fields["CapEff"], 16).unwrap();
    assert_ne!(eff & (1 << 10), 0, "CAP_NET_BIND_SERVICE is kept: {eff:x}");
    // 3 is the listing itself.
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn enforcing_refuses_sockets_and_calls_that_the_hooks_do_not_see() {
    let Some(case) = Case::new() else { return };
    if !have(&["perl"]) {
        return;
    }
    // AF_PACKET 17, AF_VSOCK 40, AF_XDP 44, AF_ALG 38, AF_BLUETOOTH 31; AF_UNIX 1, AF_INET 2, AF_NETLINK 16 stay.
    let perl = r#"
        use Socket; use POSIX;
        for my $f (17, 40, 44, 38, 31) { my $ok = socket(my $s, $f, 3, 0); print "family $f: ", ($ok ? "open" : $!+0), "\n"; }
        for my $f (1, 2, 10) { my $ok = socket(my $s, $f, 1, 0); print "family $f: ", ($ok ? "open" : $!+0), "\n"; }
        my $p = "\0" x 256;
        for my $n (425, 426, 427, 321, 308, 101, 165, 166, 155, 428, 429, 430, 431, 432, 433, 438, 442) { my $r = syscall($n, 1, $p, 0, 0, 0, 0); print "call $n: ", ($r == -1 ? $!+0 : "done"), "\n"; }
    "#;
    if cfg!(not(target_arch = "x86_64")) {
        skip("the numbers of the system calls here are those of x86_64");
        return;
    }
    let ran = case.policy(BLOCK).run(&["perl", "-e", perl]);
    let out = ran.exits(0).out();
    for line in out.lines() {
        let (what, answer) = line.split_once(": ").unwrap();
        let expected = if ["family 1", "family 2", "family 10"].contains(&what) { "open" } else { "1" };
        assert_eq!(answer, expected, "{what}\n{out}");
    }
}

#[test]
fn a_binary_of_another_abi_does_not_walk_past_the_filter() {
    let Some(case) = Case::new() else { return };
    if !have(&["perl"]) || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    // The x32 table: the same instruction, another bit in the number; socket(2) is 41 in both.
    let perl = r#"my $r = syscall(0x40000000 | 41, 17, 3, 0); print $r == -1 ? "refused" : "open", "\n";"#;
    let ran = case.policy(BLOCK).run(&["perl", "-e", perl]);
    assert_ne!(ran.out(), "open\n");
}

#[test]
fn the_locked_command_cannot_leave_its_cgroup_or_take_the_links_away() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let script = format!(
        r#"for procs in $(grep -o '/[^ ]*cgroup[^ ]*' /proc/self/mountinfo | sort -u); do
             echo $$ > "$procs/cgroup.procs"; done 2>/dev/null
           rm -rf /sys/fs/bpf/trustrun/* 2>/dev/null
           {} && echo out"#,
        far.connect()
    );
    let ran = case.policy(BLOCK).sh(&script);
    assert_eq!(ran.out(), "", "{}", ran.stderr);
    assert_eq!(far.arrived(), 0);
    ran.verdict("fail");
}

#[test]
fn who_is_moved_out_of_an_enforcing_session_is_ended() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK);
    let script = format!("echo $$ > {0}.part; mv {0}.part {0}; exec sleep 60", case.path("pid").display());
    let running = case.start(&["sh", "-c", &script]);
    harness::wait_for(&case.path("pid"));
    let root = harness::cgroup2().into_iter().next().unwrap();
    std::fs::write(root.join("cgroup.procs"), case.read("pid").trim()).unwrap();
    let ran = running.end();
    assert_eq!(ran.status.signal(), Some(9), "{}", ran.stderr);
    assert_eq!(ran.gaps(), ["left-cgroup"]);
    ran.verdict("incomplete");
}

#[test]
fn a_command_that_leaves_an_observing_session_is_a_gap() {
    let Some(case) = Case::new() else { return };
    let root = harness::cgroup2().into_iter().next().unwrap();
    let script = format!("echo $$ > {}/cgroup.procs; exec sleep 0.1", root.display());
    let ran = case.policy(BLOCK).with(&["--observe"]).sh(&script);
    assert_eq!(ran.exits(0).gaps(), ["left-cgroup", "root-target"]);
    ran.verdict("incomplete");
}

#[test]
fn a_program_that_a_lock_broke_is_named_with_what_to_do() {
    let Some(case) = Case::new() else { return };
    let case = case.policy(BLOCK).with(&["--run-as", "nobody"]);
    // The file itself, not its name, says that it wants to be another user.
    let setuid = case.path("becomes");
    std::fs::copy("/bin/true", &setuid).unwrap();
    std::fs::set_permissions(&setuid, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    case.program("strace", "#!/bin/sh\nexit ${1:-0}\n");
    let ran = case.sh("\"$DIR/becomes\"; \"$DIR/strace\" 1; \"$DIR/strace\"; exit 0");
    ran.exits(0).says("no-new-privs: becomes ran without the rights").says("seccomp: ");
    let locks = ran.report()["coverage"]["locks"].as_array().unwrap();
    let refused = |name: &str| locks.iter().find(|l| l["name"] == name).unwrap()["refused"].as_array().unwrap().len();
    let told = ran.report()["coverage"]["locks"].to_string();
    assert!(told.contains("--run-as USER") && told.contains("ptrace is refused"), "{told}");
    assert_eq!((refused("no-new-privs"), refused("seccomp"), refused("private-run")), (1, 1, 0));
    // Only watched, they keep their rights, and there is nothing to tell.
    let ran = Case::anyone().with(&["--run-as", "nobody"]).run(&[&setuid]);
    assert!(!ran.exits(0).stderr.contains("rights"), "{}", ran.stderr);
}
