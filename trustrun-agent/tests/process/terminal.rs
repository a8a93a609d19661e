//! Job control at a real terminal.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{fs, process::Command};

use trustrun_lab::wait_until;

use crate::harness::{Case, SOON, have, status, terminal::Terminal, wait_for};

fn at_terminal(programs: &[&str]) -> Option<Case> {
    let case = Case::new()?;
    let programs = [&["setsid", "bash", "stty"], programs].concat();
    have(&programs).then_some(case)
}

#[test]
fn ctrl_c_ends_the_command_and_not_the_report() {
    let Some(case) = at_terminal(&[]) else { return };
    case.file("taken", "trap 'echo taken; exit 3' INT; echo up; while [ -d $DIR ]; do sleep 0.05; done\n");
    case.file("default", "echo up; exec sleep 60\n");
    let mut t = Terminal::new(&case);
    t.keys("t sh taken; echo code=$?\n");
    t.sees("up\r\n");
    t.keys("\x03");
    t.sees("taken");
    t.sees("OBSERVED");
    t.sees("code=3");
    t.prompt();
    assert!(fs::metadata(case.path("report.json")).is_ok());
    // A command that SIGINT ends: trustrun ends by it too, so that the shell knows that it was interrupted.
    t.keys("t sh default\n");
    t.sees("up\r\n");
    t.keys("\x03");
    t.sees("OBSERVED");
    t.prompt();
    assert!(t.line("echo code=$?").contains("code=130"));
}

#[test]
fn ctrl_backslash_ends_the_command_and_not_the_report() {
    let Some(case) = at_terminal(&[]) else { return };
    case.file("default", "ulimit -c 0; echo up; exec sleep 60\n");
    let mut t = Terminal::new(&case);
    t.keys("t sh default\n");
    t.sees("up\r\n");
    t.keys("\x1c");
    t.sees("OBSERVED");
    t.prompt();
    assert!(t.line("echo code=$?").contains("code=131"));
}

#[test]
fn ctrl_z_gives_the_prompt_back_and_fg_goes_on() {
    let Some(case) = at_terminal(&[]) else { return };
    let script = "echo $$ > pid; echo up; while [ -d $DIR ] && [ ! -e stop ]; do sleep 0.05; done; echo went on\n";
    // Not sh, where that is dash: it makes its children by vfork, and one that is stopped before it runs its program keeps
    // the shell from being stopped.
    case.file("loop", script);
    let mut t = Terminal::new(&case);
    t.keys("t bash loop\n");
    t.sees("up\r\n");
    for _ in 0..2 {
        t.keys("\x1a");
        t.sees("Stopped");
        t.prompt();
        let pid: u32 = case.read("pid").trim().parse().unwrap();
        assert!(status(pid, "State").starts_with('T'), "{}", status(pid, "State"));
        assert!(t.line("jobs").contains("Stopped"));
        t.keys("fg\n");
        assert!(wait_until(SOON, || status(pid, "State").starts_with(['S', 'R'])), "{}", status(pid, "State"));
    }
    t.keys("\x1a");
    t.sees("Stopped");
    t.prompt();
    t.line("bg");
    assert!(t.line("jobs").contains("Running"));
    t.keys("fg\n");
    case.file("stop", "");
    t.sees("went on");
    t.sees("OBSERVED");
    t.prompt();
    assert!(t.line("echo code=$?").contains("code=0"));
}

#[test]
fn a_background_run_that_reads_the_terminal_stops_until_fg() {
    let Some(case) = at_terminal(&[]) else { return };
    let mut t = Terminal::new(&case);
    t.line("t sh -c 'read line; echo got:$line' &");
    let stopped = wait_until(SOON, || t.line("jobs").contains("Stopped"));
    assert!(stopped, "a background process that reads the terminal is stopped by SIGTTIN");
    t.keys("fg\n");
    t.keys("hello\n");
    t.sees("got:hello");
    t.sees("OBSERVED");
    t.prompt();
}

/// Waits until the process is in the group that has the terminal: what is typed before goes to another.
#[track_caller]
fn has_the_terminal(case: &Case, file: &str) {
    let there = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", case.read(file).trim())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace().collect();
        // State, parent, process group, session, terminal, and the group that has it (proc_pid_stat(5)).
        fields.len() > 5 && fields[2] == fields[5] && fields[0] != "T"
    };
    assert!(wait_until(SOON, there), "{file} {:?} never had the terminal", case.read(file));
}

#[test]
fn an_interactive_shell_has_jobs_of_its_own() {
    let Some(case) = at_terminal(&[]) else { return };
    case.file("rc", "PS1='<inn''er>'\n");
    let mut t = Terminal::new(&case);
    t.keys("t bash --noprofile --rcfile rc --noediting -i\n");
    let shown = t.sees("<inner>");
    assert!(!shown.contains("job control"), "{shown}");
    t.keys("sleep 61 & echo $! > first\n");
    t.sees("<inner>");
    t.keys("jobs\n");
    assert!(t.sees("<inner>").contains("Running"));
    // The job has the terminal, and not the shell: ^Z stops the job alone.
    t.keys("fg\n");
    has_the_terminal(&case, "first");
    t.stop();
    t.sees("<inner>");
    // The shell forgets it when it learns of its end.
    let forgotten = wait_until(SOON, || {
        t.keys("kill -9 %1 2>/dev/null; jobs; echo en''d\n");
        let shown = t.sees("end");
        t.sees("<inner>");
        !shown.contains("sleep 61")
    });
    assert!(forgotten);
    t.keys("sh -c 'echo $$ > second; exec sleep 62'\n");
    wait_for(&case.path("second"));
    has_the_terminal(&case, "second");
    t.keys("\x03");
    t.sees("<inner>");
    t.keys("exit 4\n");
    t.sees("OBSERVED");
    t.prompt();
    assert!(t.line("echo code=$?").contains("code=4"));
    // The terminal is the outer shell's again.
    assert!(t.line("sleep 0.01; echo ba''ck").contains("back"));
}

#[test]
fn an_editor_and_a_pager_work_and_stop() {
    let Some(case) = at_terminal(&[]) else { return };
    if !have(&["vim"]) || !have(&["less"]) {
        return;
    }
    let text: String = (0..200).map(|n| format!("line {n}\n")).collect();
    case.file("text", &text);
    let mut t = Terminal::new(&case);
    t.keys("t vim -u NONE -i NONE -n written\n");
    t.sees("written");
    t.keys("ihello");
    t.sees("hello");
    t.keys("\x1b:w\r");
    assert!(wait_until(SOON, || case.read("written") == "hello\n"), "{:?}", case.read("written"));
    t.keys("\x1a");
    t.sees("Stopped");
    t.prompt();
    t.keys("fg\n");
    t.keys("ccagain\x1b:wq\r");
    t.sees("OBSERVED");
    t.prompt();
    assert_eq!(case.read("written"), "again\n");
    t.keys("t less text\n");
    t.sees("line 3");
    t.keys("G");
    t.sees("line 199");
    t.keys("q");
    t.sees("OBSERVED");
    t.prompt();
    assert!(t.line("echo code=$?").contains("code=0"));
}

#[test]
fn the_command_learns_of_a_new_window_size() {
    let Some(case) = at_terminal(&[]) else { return };
    case.file("sizes", "trap 'stty size; exit 0' WINCH; echo up; while [ -d $DIR ]; do sleep 0.05; done\n");
    let mut t = Terminal::new(&case);
    t.keys("t sh sizes\n");
    t.sees("up\r\n");
    let device = t.device.clone();
    assert!(Command::new("stty").arg("-F").arg(device).args(["rows", "33", "cols", "77"]).status().unwrap().success());
    t.sees("33 77");
    t.sees("OBSERVED");
    t.prompt();
}
