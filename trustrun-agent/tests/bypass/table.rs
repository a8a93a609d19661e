//! Tells what became of the ways: to whoever reads the test's output, and to `cargo xtask bypass`.

use std::fs::OpenOptions;
use std::io::Write as _;

use trustrun_lab::skip;

use crate::outcome::{Outcome, Row};
use crate::way::User;

/// Where `cargo xtask bypass` wants a line for each way: family, id, title, user, kernel, outcome, detail.
const LOG: &str = "TRUSTRUN_BYPASS_LOG";

/// Prints the rows, and logs them. What this machine cannot do is skipped aloud.
pub(crate) fn tell(family: &str, user: User, rows: &[Row]) {
    let kernel = nix::sys::utsname::uname().expect("uname").release().to_string_lossy().into_owned();
    let mut lines = String::new();
    for row in rows {
        let (word, detail) = words(&row.outcome);
        println!("{family} as {}: {:<26} {word} {detail} [said {}]", user.name(), row.way.id, row.said);
        let line = [family, row.way.id, row.way.title, user.name(), &kernel, word, &detail];
        lines += &(line.map(|part| part.replace(['\t', '\n'], " ")).join("\t") + "\n");
    }
    let lacking = rows.iter().filter(|row| matches!(row.outcome, Outcome::Skipped(_))).map(|row| row.way.id);
    let lacking = lacking.collect::<Vec<_>>().join(", ");
    if !lacking.is_empty() {
        skip(&format!("bypass as {}, which this machine cannot do: {lacking}", user.name()));
    }
    let Some(path) = std::env::var_os(LOG) else { return };
    let written =
        OpenOptions::new().create(true).append(true).open(&path).and_then(|mut f| f.write_all(lines.as_bytes()));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
}

fn words(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Refused => ("refused", String::new()),
        Outcome::Closed => ("closed", String::new()),
        Outcome::Named(limit) => ("limit", limit.clone()),
        Outcome::Told(gap) => ("reported", gap.clone()),
        Outcome::Skipped(why) if why.is_empty() => ("skipped", "there is none here".to_owned()),
        Outcome::Skipped(why) => ("skipped", why.trim_end_matches(" EPERM").to_owned()),
        Outcome::Unseen(why) => ("UNSEEN", why.clone()),
        Outcome::Broken(why) => ("BROKEN", why.clone()),
    }
}
