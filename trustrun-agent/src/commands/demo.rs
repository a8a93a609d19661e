//! `trustrun demo`: three real commands, one policy, three verdicts, in a network that exists only in this machine.
//!
//! It runs this same program (`trustrun run`) inside a lab, and then checks what it showed: the verdict and reasons in
//! the report, and what arrived at the servers. A demo that lies is worse than none, so anything else than what was
//! announced is an error.

mod client;
mod error;
pub(crate) mod fetch;
mod next;
mod scenes;
mod stage;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use clap::Args;

use crate::caller;
use client::Client;
use error::DemoError;
use stage::Stage;

/// See it work, offline, in a network of its own.
///
/// Makes a small network inside this machine, runs three real commands under one policy, and shows a pass, a fail and
/// an incomplete. Needs root. Exits with 1 if a verdict was not the one that was announced, 125 if it could not run.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the policy and the three reports (JSON) in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What makes the requests, instead of the first that is found.
    #[arg(long, value_enum, hide = true)]
    client: Option<Client>,
}

/// Something was not as announced.
const NOT_AS_ANNOUNCED: u8 = 1;
/// We could not do our part.
const FAILED: u8 = 125;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    match play(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("trustrun: {why}");
            ExitCode::from(if matches!(why, DemoError::Broken { .. }) { NOT_AS_ANNOUNCED } else { FAILED })
        }
    }
}

fn play(args: &DemoArgs) -> Result<(), DemoError> {
    let program = next::program();
    if !nix::unistd::geteuid().is_root() {
        return Err(DemoError::NotRoot { program });
    }
    if !trustrun_guard::has_kernel_programs() {
        return Err(DemoError::NoKernelPrograms);
    }
    if let Some(folder) = &args.keep {
        caller::as_caller(|| std::fs::create_dir_all(folder)).map_err(DemoError::file("make", folder))?;
    }
    let client = args.client.unwrap_or_else(Client::first_found);
    let started = Instant::now();
    let mut page = Page::new();
    let stage = Stage::build()?;
    page.say(&scenes::opening(client))?;
    page.say(&indented(scenes::POLICY))?;
    let mut broken = Vec::new();
    let mut keep = vec![(scenes::POLICY_FILE.to_owned(), scenes::POLICY.as_bytes().to_vec())];
    for scene in scenes::all() {
        let number = scene.number;
        page.title(&format!("{number}. {}", scene.title))?;
        page.say(scene.prose)?;
        page.say(&format!("\n  {}\n", client.typed(&scene)))?;
        let played = stage.play(&scene, client)?;
        page.say(&format!("\nWhat the servers got: {}", played.far_end))?;
        broken.extend(played.not_as_announced.iter().map(|why| format!("{number}: {why}")));
        keep.push((format!("{number}-{}.json", scene.announced), played.report));
    }
    let database = stage.database().to_owned();
    // Ends the lab's threads, all of which would become the caller with us.
    drop(stage);
    for (folder, (name, bytes)) in args.keep.iter().flat_map(|folder| keep.iter().map(move |file| (folder, file))) {
        let path = folder.join(name);
        caller::replace(&path, bytes).map_err(DemoError::file("write", &path))?;
    }
    if !broken.is_empty() {
        return Err(DemoError::Broken { why: broken.join("; ") });
    }
    page.title(&format!("Three commands, three verdicts, as announced, in {:.1} s", started.elapsed().as_secs_f32()))?;
    page.say(&next::commands(&program, client, &database, args.keep.as_deref()))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("    {line}\n") }).collect()
}

/// Standard output: everything goes there, in order, the commands' summaries too.
struct Page {
    bold: bool,
}

impl Page {
    fn new() -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { bold: colour && io::stdout().is_terminal() }
    }

    fn say(&mut self, text: &str) -> Result<(), DemoError> {
        use io::Write as _;
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(DemoError::Output)
    }

    fn title(&mut self, text: &str) -> Result<(), DemoError> {
        let rule = "-".repeat(text.chars().count());
        if self.bold {
            self.say(&format!("\n\x1b[1m{text}\x1b[0m\n{rule}"))
        } else {
            self.say(&format!("\n{text}\n{rule}"))
        }
    }
}
