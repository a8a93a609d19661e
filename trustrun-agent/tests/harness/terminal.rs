//! A terminal with a shell in it, as a person has one: what job control needs, and what no pipe shows.
//!
//! The shell is the leader of a session whose controlling terminal is ours (`setsid --ctty`).

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::{Pid, ttyname},
};
use trustrun_lab::wait_until;

use super::{Case, SOON, tree};

/// What the shell prints when it waits for a line. Never part of what is typed.
const PROMPT: &str = "[ready]";

/// An interactive bash on a terminal.
pub(crate) struct Terminal {
    shell: Child,
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    /// How much of it was looked at.
    read: usize,
    /// The terminal's device.
    pub(crate) device: PathBuf,
}

impl Terminal {
    /// Starts it, with `$T` being the case's `trustrun run … --`.
    pub(crate) fn new(case: &Case) -> Self {
        let ends = openpty(None, None).unwrap();
        let device = ttyname(&ends.slave).unwrap();
        let run = case.command::<&str>(&[]);
        let words: Vec<_> = [run.get_program()].into_iter().chain(run.get_args()).collect();
        let words: Vec<_> = words.iter().map(|w| format!("'{}'", w.to_str().unwrap())).collect();
        let mut bash = Command::new("setsid");
        bash.args(["--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"]);
        for (name, value) in run.get_envs() {
            match value {
                Some(value) => bash.env(name, value),
                None => bash.env_remove(name),
            };
        }
        let slave = |end: &std::os::fd::OwnedFd| Stdio::from(end.try_clone().unwrap());
        let shell = bash
            .env("T", words.join(" "))
            .env("TERM", "xterm")
            .env_remove("PS1")
            .current_dir(case.folder())
            .stdin(slave(&ends.slave))
            .stdout(slave(&ends.slave))
            .stderr(slave(&ends.slave))
            .spawn()
            .unwrap();
        let keyboard = File::from(ends.master);
        let (mut screen, seen) = (keyboard.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let writer = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO when the last process closed the terminal.
            while let Ok(n) = screen.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                writer.lock().unwrap().extend_from_slice(bytes.get(..n).unwrap_or_default());
            }
        });
        let mut terminal = Self { shell, keyboard, seen, read: 0, device };
        // Without echo what is typed is not mistaken for what is answered.
        terminal.keys("stty -echo; PS1='[rea''dy]'; alias t=\"$T\"; unset T\n");
        terminal.sees(PROMPT);
        terminal
    }

    /// Types.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Stops the job that has the terminal and waits until its shell says so. A shell gives the terminal to a job before it
    /// continues it, so that a ^Z may be undone at once: then it is typed again.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let (seen, from) = (Arc::clone(&self.seen), self.read);
        wait_until(SOON, || {
            self.keys("\x1a");
            wait_until(std::time::Duration::from_millis(500), || {
                seen.lock().unwrap().get(from..).is_some_and(|new| new.windows(7).any(|w| w == b"Stopped"))
            })
        });
        self.sees("Stopped");
    }

    /// Types a line to the shell and waits for its next prompt; what was shown meanwhile.
    #[track_caller]
    pub(crate) fn line(&mut self, line: &str) -> String {
        self.keys(&format!("{line}\n"));
        self.sees(PROMPT)
    }

    /// Waits for the shell's prompt; what was shown meanwhile.
    #[track_caller]
    pub(crate) fn prompt(&mut self) -> String {
        self.sees(PROMPT)
    }

    /// Waits until this is shown, after what was looked at before; all that was shown up to it.
    #[track_caller]
    pub(crate) fn sees(&mut self, text: &str) -> String {
        let (seen, from) = (Arc::clone(&self.seen), self.read);
        let found = || {
            let all = seen.lock().unwrap();
            all.get(from..)?.windows(text.len()).position(|w| w == text.as_bytes())
        };
        if !wait_until(SOON, || found().is_some()) {
            let all = String::from_utf8_lossy(seen.lock().unwrap().get(from..).unwrap_or_default()).into_owned();
            panic!("the terminal never showed {text:?}; it shows:\n{all}");
        }
        self.read = from + found().unwrap() + text.len();
        String::from_utf8_lossy(seen.lock().unwrap().get(from..self.read).unwrap_or_default()).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for pid in tree(self.shell.id()).into_iter().rev() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
