//! Who is who: the target's processes, as the kernel told of them.

use std::{collections::HashMap, fs, path::Path, rc::Rc};

use trustrun_model::{Process, ProcessId};

use crate::redact::redact_argv;

/// Most processes that are remembered. Ended ones are kept, since their connections may be told later.
const MOST: usize = 1 << 20;

/// The processes of a session, by thread group. A number that is used again is replaced by its next fork or exec,
/// which the ring tells in order.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: HashMap<u32, Rc<Process>>,
}

impl Processes {
    pub(crate) fn fork(&mut self, parent: u32, child: u32) {
        let process = match self.known.get(&parent) {
            Some(p) => Process { pid: child, ..(**p).clone() },
            None => return,
        };
        self.insert(process);
    }

    pub(crate) fn exec(&mut self, pid: u32, exe: &str, argv: &[String]) {
        self.insert(Process { pid, exe: absolute(pid, exe), argv: redact_argv(argv) });
    }

    /// The process, from what the kernel told, else from `/proc` while it lives.
    pub(crate) fn find(&mut self, id: ProcessId) -> Option<Rc<Process>> {
        if id.tgid == 0 {
            return None;
        }
        if let Some(p) = self.known.get(&id.tgid) {
            return Some(Rc::clone(p));
        }
        let p = from_proc(id.tgid)?;
        self.insert(p);
        self.known.get(&id.tgid).map(Rc::clone)
    }

    /// A process by its number, for leftovers.
    pub(crate) fn name(&mut self, tgid: u32) -> String {
        self.find(ProcessId { tgid, tid: tgid, ..ProcessId::default() }).map_or_else(
            || format!("pid {tgid}"),
            |p| format!("pid {tgid} ({})", trustrun_model::Untrusted::new(p.argv.join(" "))),
        )
    }

    fn insert(&mut self, process: Process) {
        // A number that is used again must not keep its earlier owner's name.
        if self.known.len() < MOST || self.known.contains_key(&process.pid) {
            self.known.insert(process.pid, Rc::new(process));
        }
    }
}

/// The path as the kernel ran it, made absolute and free of links where it still can be: what `/proc/PID/exe` would
/// have said.
fn absolute(pid: u32, exe: &str) -> String {
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
        // The process may be another program by now; the names must agree unless a link is behind the difference.
        if path.file_name() == Path::new(exe).file_name() {
            return path.to_string_lossy().into_owned();
        }
    }
    fs::canonicalize(exe).map_or_else(|_| exe.to_owned(), |p| p.to_string_lossy().into_owned())
}

fn from_proc(pid: u32) -> Option<Process> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?.to_string_lossy().into_owned();
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argv: Vec<String> = raw
        .strip_suffix(&[0])
        .unwrap_or(&raw)
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    Some(Process { pid, exe, argv: redact_argv(&argv) })
}
