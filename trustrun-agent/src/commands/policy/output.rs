//! Printing: escaped, coloured on a terminal alone, and quiet where a reader has seen enough.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;
use trustrun_model::{Action, Untrusted, inert_json};
use trustrun_policy::Origin;

use super::ToolError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// A policy (`learn` alone).
    Yaml,
}

/// A page for people.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    color: bool,
}

impl Page {
    pub(super) fn new() -> Self {
        let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { text: String::new(), color }
    }

    /// A line; what a policy or a person wrote is escaped.
    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(&Untrusted::new(text.as_ref()).to_string());
        self.text.push('\n');
    }

    /// A line that begins with an action.
    pub(super) fn action(&mut self, indent: usize, action: Action, text: impl AsRef<str>) {
        let code = match action {
            Action::Allow => "32",
            Action::Alert => "33",
            Action::Block | Action::Kill => "31",
        };
        self.text.push_str(&" ".repeat(indent));
        match self.color {
            true => self.text.push_str(&format!("\x1b[1;{code}m{action:<5}\x1b[0m", action = action.as_str())),
            false => self.text.push_str(&format!("{:<5}", action.as_str())),
        }
        self.text.push_str("  ");
        self.line(text);
    }

    pub(super) fn print(self) -> Result<(), ToolError> {
        write(&self.text)
    }
}

/// Prints JSON.
pub(super) fn json(value: &Value) -> Result<(), ToolError> {
    write(&inert_json(format!("{value:#}\n")))
}

/// A reader that has seen enough (`| head`) is no failure.
pub(super) fn write(text: &str) -> Result<(), ToolError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(ToolError::File { what: "cannot write", path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}

/// `notebook.yaml:12`; what trustrun adds by itself has no line.
pub(super) fn place(origin: &Origin) -> String {
    match (origin.document.is_empty(), origin.line) {
        (true, _) => "trustrun".to_owned(),
        (false, 0) => origin.document.to_string(),
        (false, line) => format!("{}:{line}", origin.document),
    }
}
