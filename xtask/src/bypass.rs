//! `cargo xtask bypass`: every known way around, tried, and a table of what became of each.
//!
//! The suite itself is `trustrun-agent/tests/bypass`, and a part of `cargo xtask test`. Here it also says, one line for
//! each way and user, what it found; that becomes the table of this kernel in docs/bypasses.md. Tables of other kernels
//! stay as they are, and so do rows that were not tried this time.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use crate::{host::Host, packages, setup, test};

const PAGE: &str = "docs/bypasses.md";
const INTRO: &str = "\
# Ways around, and what becomes of each

Written by `cargo xtask bypass`; do not edit it. Each row is a program in `trustrun-agent/tests/bypass`, towards a place
that the policy does not allow: first without TrustRun, to know that it works here at all, then as an ordinary user and as
root inside `trustrun run --strict`. The far end is the judge: a packet on the wire, a name at the name server, a request at
a server. What the program itself says counts for nothing.

| word | meaning |
|---|---|
| refused | it works without TrustRun; inside, nothing arrived (or TrustRun did not start it) |
| closed | the kernel refuses it to this user in any case, with or without TrustRun |
| reported | something arrived, and the verdict is `incomplete` or `fail` with the gap that is named here |
| limit | it is open, whether it was used cannot be known, and every report of such a session says so, under the limit that is named here; the verdict may be `pass` |
| skipped | this machine cannot do it at all, for the reason given |
| **UNSEEN** | something arrived, and no gap names it: a defect, and a failing test |
| **BROKEN** | the program did not work, so that nothing is proved: a failing test |
";

/// One way: what the suite said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    family: String,
    id: String,
    title: String,
    /// As an ordinary user, as root; empty where not tried.
    outcomes: [String; 2],
}

/// Runs the suite, prints the table and writes it.
pub(crate) fn bypass(host: &Host, filter: Option<&OsStr>) -> Result<ExitCode> {
    setup::compiler(host)?;
    packages::for_tests(host)?;
    fs::create_dir_all(&host.target).context("cannot make the target folder")?;
    let log = host.target.join(format!("bypass-{}.log", std::process::id()));
    // It must be there before a test that runs as root makes it: then it would be root's.
    fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let mut cargo = host.cargo()?;
    cargo.args(["test", "--package", "trustrun-agent", "--test", "bypass"]).env("TRUSTRUN_BYPASS_LOG", &log);
    test::with_root(host, &mut cargo)?;
    let status = cargo.args(filter).status().context("cargo cannot be started")?;
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let _ = fs::remove_file(&log);
    let (kernel, rows) = read_log(&said);
    let Some(kernel) = kernel else { bail!("the suite tried nothing: cargo says why above") };
    let page = page(host);
    let before = fs::read_to_string(&page).unwrap_or_default();
    let text = render(&before, &kernel, filter.is_none(), rows);
    print!("{}", table(section(&text, &kernel)));
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))?;
    eprintln!("bypass: {} says so", page.display());
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn page(host: &Host) -> PathBuf {
    host.root.join(Path::new(PAGE))
}

/// The suite's lines: family, id, title, user, kernel, outcome, detail.
fn read_log(text: &str) -> (Option<String>, Vec<Row>) {
    let mut kernel = None;
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        let [family, id, title, user, release, word, detail] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        kernel = Some(release.to_owned());
        let outcome = match word {
            "refused" | "closed" => word.to_owned(),
            "UNSEEN" | "BROKEN" => format!("**{word}**"),
            _ => format!("{word}: {}", detail.replace('|', "/")),
        };
        let same = |row: &&mut Row| row.family == family && row.id == id;
        let row = match rows.iter_mut().find(same) {
            Some(row) => row,
            None => {
                let [family, id, title] = [family, id, title].map(|part| part.replace('|', "/"));
                rows.push(Row { family, id, title, outcomes: [String::new(), String::new()] });
                rows.last_mut().expect("just pushed")
            }
        };
        row.outcomes[usize::from(user == "root")] = outcome;
    }
    (kernel, rows)
}

fn heading(kernel: &str) -> String {
    format!("## Linux {kernel}")
}

/// The lines of a kernel's section.
fn section<'a>(page: &'a str, kernel: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let heading = heading(kernel);
    page.lines().skip_while(move |line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "))
}

/// The rows of a section.
fn read_section<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Row> {
    let mut family = String::new();
    let mut rows = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix("### ") {
            family = name.to_owned();
        } else if let [id, title, user, root] = line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()[..]
        {
            if let Some(id) = id.strip_prefix('`').and_then(|id| id.strip_suffix('`')) {
                let outcomes = [user.to_owned(), root.to_owned()];
                rows.push(Row { family: family.clone(), id: id.to_owned(), title: title.to_owned(), outcomes });
            }
        }
    }
    rows
}

/// The page with these rows in this kernel's section; they are all of it if the whole suite was run.
fn render(before: &str, kernel: &str, whole: bool, rows: Vec<Row>) -> String {
    let mut kept = if whole { Vec::new() } else { read_section(section(before, kernel)) };
    for row in rows {
        match kept.iter_mut().find(|old| old.family == row.family && old.id == row.id) {
            Some(old) => {
                old.title = row.title;
                for (old, new) in old.outcomes.iter_mut().zip(row.outcomes) {
                    if !new.is_empty() {
                        *old = new;
                    }
                }
            }
            None => kept.push(row),
        }
    }
    let mut text = INTRO.to_owned();
    let others = before.lines().filter_map(|line| line.strip_prefix("## Linux ")).filter(|other| *other != kernel);
    let _ = write!(text, "\n{}\n", heading(kernel));
    let mut families: Vec<&str> = kept.iter().map(|row| row.family.as_str()).collect();
    families.sort_unstable();
    families.dedup();
    for family in families {
        let _ = write!(text, "\n### {family}\n\n| way | what it is | user | root |\n|---|---|---|---|\n");
        for row in kept.iter().filter(|row| row.family == family) {
            let _ = writeln!(text, "| `{}` | {} | {} | {} |", row.id, row.title, row.outcomes[0], row.outcomes[1]);
        }
    }
    for other in others {
        let lines: Vec<&str> = section(before, other).collect();
        let _ = write!(text, "\n{}\n{}\n", heading(other), lines.join("\n").trim_end());
    }
    text
}

/// The same for a terminal.
fn table<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for row in read_section(lines) {
        let [user, root] = &row.outcomes;
        let _ = writeln!(text, "{:<9} {:<28} user: {user:<22} root: {root}", row.family, row.id);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "Names\tptr\tno | name\tuser\t6.1\trefused\t\nNames\tptr\tno | name\troot\t6.1\treported\tgap\n\
        Escape\tcron\ta file\troot\t6.1\tUNSEEN\tlong story\n";

    #[test]
    fn both_users_share_a_row_and_a_failure_is_bold() {
        let (kernel, rows) = read_log(LOG);
        assert_eq!(kernel.as_deref(), Some("6.1"));
        let page = render("", "6.1", true, rows);
        assert!(page.contains("| `ptr` | no / name | refused | reported: gap |\n"), "{page}");
        assert!(page.contains("| `cron` | a file |  | **UNSEEN** |\n"), "{page}");
        assert!(page.find("### Escape") < page.find("### Names"), "{page}");
    }

    #[test]
    fn other_kernels_and_rows_not_tried_stay() {
        let (_, rows) = read_log(LOG);
        let first = render("", "5.10", true, rows.clone());
        let second = render(&first, "6.1", true, rows);
        let (_, again) = read_log("Names\tptr\tanew\tuser\t6.1\tclosed\t\n");
        let third = render(&second, "6.1", false, again);
        assert!(third.contains("| `ptr` | anew | closed | reported: gap |"), "{third}");
        assert_eq!(third.matches("| `ptr` | no / name | refused | reported: gap |").count(), 1, "{third}");
        assert_eq!(third.matches("`cron`").count(), 2, "{third}");
        assert_eq!(render(&third, "6.1", false, Vec::new()), third, "writing it again changes nothing");
    }
}
