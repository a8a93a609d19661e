//! Exit codes, signals, and what the command finds: its pipes and everything that it inherits.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use trustrun_lab::wait_until;

use crate::harness::{BLOCK, Case, FarEnd, have, wait_for};

#[test]
fn exit_codes_are_the_commands_own() {
    let Some(case) = Case::new() else { return };
    for code in [0, 1, 2, 100, 121, 125, 127, 128, 200, 255] {
        let ran = case.sh(&format!("exit {code}"));
        ran.exits(code);
        assert_eq!(ran.report()["session"]["exit"]["code"], code);
        assert!(ran.stdout.is_empty());
    }
}

#[test]
fn a_signal_that_ended_the_command_ends_trustrun() {
    let Some(case) = Case::new() else { return };
    // SIGPIPE is ignored by every Rust program, SIGHUP under nohup: both must end us all the same.
    for signal in [Signal::SIGTERM, Signal::SIGSEGV, Signal::SIGKILL, Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT] {
        let ran = case.sh(&format!("ulimit -c 0; kill -{} $$", signal as i32));
        assert_eq!(ran.status.signal(), Some(signal as i32), "{signal}: {}", ran.status);
        assert_eq!(ran.report()["session"]["exit"]["signal"], signal as i32);
        assert!(ran.report()["session"]["exit"]["code"].is_null());
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126_or_127_as_in_a_shell() {
    let Some(case) = Case::new() else { return };
    let plain = case.file("plain", "no program");
    case.run(&["no-such-command"]).exits(127).says("no-such-command: command not found");
    case.run(&["./no/such/file"]).exits(127);
    case.run(&[""]).exits(127);
    case.run(&[plain.to_str().unwrap()]).exits(126).says("ermission denied");
    case.run(&["/etc"]).exits(126);
    let interpreter = case.program("script", "#!/no/such/interpreter\n");
    case.run(&[interpreter.to_str().unwrap()]).exits(127);
}

#[test]
fn exit_verdict_tells_the_verdict_of_a_command_that_succeeded() {
    let Some(case) = Case::new() else { return };
    let far = FarEnd::new();
    let case = case.policy("version: 1\nname: loud\ndefault: alert\n").with(&["--exit-verdict", "--run-as", "nobody"]);
    case.sh(&format!("{}; exit 0", far.connect())).exits(121).verdict("fail");
    case.sh(&format!("{}; exit 3", far.connect())).exits(3).verdict("fail");
    case.sh("exit 0").exits(0).verdict("pass");
    assert_eq!(far.arrived(), 2, "an alert lets through");
    let case = case.with(&["--best-effort"]);
    case.sh("exit 0").exits(122).verdict("incomplete");
}

#[test]
fn standard_output_and_input_are_the_commands_alone() {
    let Some(case) = Case::new() else { return };
    let mut bytes = vec![0; 1 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    let input = case.path("input");
    fs::write(&input, &bytes).unwrap();
    let mut command = case.command(&["cat"]);
    let output = command.stdin(fs::File::open(&input).unwrap()).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == bytes, "{} of {} bytes, or others", output.stdout.len(), bytes.len());
    assert!(String::from_utf8_lossy(&output.stderr).contains("OBSERVED"));
}

#[test]
fn a_pipeline_whose_reader_has_enough_ends_at_once() {
    let Some(case) = Case::new() else { return };
    let mut yes = case.command(&["yes"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = [0; 2];
    yes.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"y\n");
    let begin = Instant::now();
    let status = yes.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGPIPE as i32), "{status}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn nobody_of_ours_keeps_a_pipe_open() {
    let Some(case) = Case::new() else { return };
    // The command ends; what stays in the session (and keeps trustrun waiting) has given up the pipes.
    let stay = r#"(while [ -d "$DIR" ] && [ ! -e "$DIR/stop" ]; do sleep 0.05; done) <&- >&- 2>&- & echo done"#;
    let mut command = case.command(&["sh", "-c", stay]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let early = child.try_wait().unwrap().is_none();
    // Nobody reads any more: a writer must learn that, and not fill a pipe that nobody will empty.
    let refused = wait_until(Duration::from_secs(4), || {
        input.write_all(b"more").is_err_and(|e| e.kind() == ErrorKind::BrokenPipe)
    });
    let still = child.try_wait().unwrap().is_none();
    case.file("stop", "");
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "done\n");
    assert!(early, "the reader waited for trustrun itself");
    assert!(refused && still, "the writer waited for trustrun itself");
}

#[test]
fn watching_changes_nothing_for_the_command() {
    let Some(case) = Case::new() else { return };
    let script = r#"
        grep -v -E '^(Pid|Tgid|PPid|NSpid|NSpgid|NStgid|NSsid|State|SigQ|Vm|Rss|Hugetlb|.*ctxt|Mems|Cpus|Threads|Name|Kthread)' /proc/self/status
        ulimit -a; umask; id; env | sort | grep -v -E '^(_|PPID)='; ls /proc/self/fd; ps -o ni= $$ 2>/dev/null
        readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/user"#;
    // As under nohup, with a signal blocked, and with a descriptor of the caller's.
    let plain = Command::new("bash")
        .args(["-c", "trap '' HUP; exec 7</dev/null; exec \"$@\"", "bash", "sh", "-c", script])
        .env("NO_COLOR", "1")
        .env("DIR", case.folder())
        .env_remove("SUDO_UID")
        .current_dir(case.folder())
        .output()
        .unwrap();
    let case = case.inside("trap '' HUP; exec 7</dev/null; exec \\");
    let ran = case.sh(script);
    ran.exits(0);
    assert_eq!(ran.out(), String::from_utf8_lossy(&plain.stdout));
}

#[test]
fn a_blocked_signal_mask_is_passed_on() {
    let Some(case) = Case::new() else { return };
    if !have(&["perl"]) {
        return;
    }
    let block = "use POSIX; sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR2)); exec @ARGV";
    let case = case.inside(&format!("exec perl -e '{block}' \\"));
    let ran = case.run(&["grep", "SigBlk", "/proc/self/status"]);
    assert_eq!(ran.exits(0).out(), "SigBlk:\t0000000000000800\n");
}

#[test]
fn sigterm_to_trustrun_is_passed_on() {
    let Some(case) = Case::new() else { return };
    let script = r#"trap 'exit 5' TERM; : > "$DIR/up"; while [ -d "$DIR" ]; do sleep 0.05; done"#;
    let running = case.start(&["sh", "-c", script]);
    wait_for(&case.path("up"));
    running.signal(Signal::SIGTERM);
    running.end().exits(5).verdict("observed");
}

#[test]
fn a_signal_that_the_command_does_not_take_ends_both() {
    let Some(case) = Case::new() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        let _ = fs::remove_file(case.path("up"));
        let running = case.start(&["sh", "-c", r#": > "$DIR/up"; exec sleep 60"#]);
        wait_for(&case.path("up"));
        running.signal(signal);
        let ran = running.end();
        assert_eq!(ran.status.signal(), Some(signal as i32), "{}", ran.stderr);
    }
}

#[test]
fn limits_and_an_ignored_sigchld_of_the_caller_are_the_commands_and_not_ours() {
    let Some(case) = Case::new() else { return };
    if !have(&["perl"]) {
        return;
    }
    // A process that ignores SIGCHLD cannot wait for its children; one under `ulimit -f` is ended by what it writes.
    let ignore = "$SIG{CHLD} = \"IGNORE\"; exec @ARGV";
    let case = case
        .policy(BLOCK)
        .inside(&format!("ulimit -S -f 2; ulimit -S -n 64; ulimit -S -t 9; exec perl -e '{ignore}' \\"));
    let script = "grep SigIgn /proc/self/status; ulimit -f; ulimit -n; ulimit -t; for i in $(seq 300); do /bin/true; done; exit 3";
    let ran = case.run(&["bash", "-c", script]);
    let out = ran.exits(3).out();
    let (ignored, limits) = out.strip_prefix("SigIgn:\t").unwrap().split_once('\n').unwrap();
    assert_ne!(
        u64::from_str_radix(ignored, 16).unwrap() & (1 << 16),
        0,
        "SIGCHLD is ignored in the command: {ignored}"
    );
    assert_eq!(limits, "1\n64\n9\n");
    // The report itself is more than the caller may write; the rest is unharmed.
    ran.says("PASS").says("writing the report").says("too large");
    let stored: serde_json::Value = serde_json::from_slice(&case.session(&["report", "last"]).exits(0).stdout).unwrap();
    assert_eq!(stored["verdict"], "pass");
}

#[test]
fn a_pipe_or_an_endless_device_in_the_place_of_a_program_holds_nothing_up() {
    let Some(case) = Case::new() else { return };
    let fifo = case.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o777)).unwrap();
    for program in [fifo.to_str().unwrap(), "/dev/zero"] {
        let begin = Instant::now();
        case.run(&[program]).exits(126).verdict("observed");
        assert!(begin.elapsed() < Duration::from_secs(20), "{program}: {:?}", begin.elapsed());
    }
}
