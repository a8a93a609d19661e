//! What the tests of the lab share: a lab or a loud skip, and commands with a deadline.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use trustrun_lab::{Lab, LabBuilder, skip, wait_until};

/// A lab, or a skip where namespaces may not be made.
pub(crate) fn lab() -> Option<Lab> {
    started(Lab::builder())
}

pub(crate) fn started(builder: LabBuilder) -> Option<Lab> {
    match builder.start() {
        Ok(lab) => Some(lab),
        Err(e) if e.is_permission() => {
            skip(&e.to_string());
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// A lab and a program, or a skip.
pub(crate) fn lab_with(program: &str) -> Option<Lab> {
    if !trustrun_lab::have(program) {
        skip(&format!("{program} is not installed"));
        return None;
    }
    lab()
}

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, at most 20 seconds.
pub(crate) fn run(command: &mut Command) -> Ran {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut outputs = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = outputs.0.read_to_string(&mut text);
        text
    });
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = outputs.1.read_to_string(&mut text);
        text
    });
    let mut status = None;
    if !wait_until(Duration::from_secs(20), || {
        status = child.try_wait().expect("a child to wait for");
        status.is_some()
    }) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let ran = Ran {
        code: status.and_then(|status| status.code()),
        stdout: out.join().expect("a reader"),
        stderr: err.join().expect("a reader"),
    };
    assert!(status.is_some(), "{command:?} did not end; stdout {:?}, stderr {:?}", ran.stdout, ran.stderr);
    ran
}

/// Runs a command that must succeed, and gives its standard output.
pub(crate) fn output(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{command:?}: stdout {:?}, stderr {:?}", ran.stdout, ran.stderr);
    ran.stdout
}
