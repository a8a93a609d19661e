//! docs/bypasses.md: read back, brought up to date, written. Pure.
//!
//! The page is its own store: a run knows one kernel, and what it says of the others stays as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

const INTRO: &str = "\
# Ways around, and what becomes of each

Written by `cargo xtask bypass` (this machine's kernel) and `cargo xtask vm` (its guests'), each its own columns; do not edit it.
Each row is a program in `trustrun-agent/tests/bypass`, towards a place that the policy does not allow: first without TrustRun, to
know that it works here at all, then as an ordinary user and as root inside `trustrun run --strict`. The far end is the judge: a
packet on the wire, a name at the name server, a request at a server. What the program itself says counts for nothing.

| word | meaning |
|---|---|
| refused | it works without TrustRun; inside, nothing arrived (or TrustRun did not start it) |
| closed | the kernel refuses it to this user in any case, with or without TrustRun |
| reported | something arrived, and the verdict is `incomplete` or `fail` with the gap that is named here |
| limit | it is open, whether it was used cannot be known, and every report of such a session says so, under the limit that is named here; the verdict may be `pass` |
| skipped | that machine cannot do it at all, for the reason given at the end |
| **UNSEEN** | something arrived, and no gap names it: a defect, and a failing test |
| **BROKEN** | the program did not work, so that nothing is proved: a failing test |

A cell with two words is *ordinary user* / *root*; with one, both.
";
/// The users, as the suite names them, in the order of a cell.
const USERS: [&str; 2] = ["user", "root"];
/// A cell's word where this user did not try.
const UNTRIED: &str = "-";
const WORDS: [&str; 7] = ["refused", "closed", "reported", "limit", "skipped", "UNSEEN", "BROKEN"];

/// What became of a way for one user: a word, and a detail where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    word: String,
    detail: String,
}

impl Outcome {
    /// As in a cell; why something was skipped stands at the end of the page.
    fn cell(&self) -> String {
        match (&*self.word, &*self.detail) {
            ("", _) => UNTRIED.to_owned(),
            (word @ ("UNSEEN" | "BROKEN"), _) => format!("**{word}**"),
            (word @ "skipped", _) | (word, "") => word.to_owned(),
            (word, detail) => format!("{word}: {detail}"),
        }
    }

    fn read(cell: &str) -> Self {
        let (word, detail) = cell.split_once(": ").unwrap_or((cell, ""));
        let word = word.trim_matches('*').trim_matches('-').to_owned();
        Self { word, detail: detail.to_owned() }
    }
}

/// One way, with what became of it by kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    title: String,
    cells: BTreeMap<Kernel, [Outcome; 2]>,
}

/// A column's title: `6.1`, or `7.2 (newest)`. They stand in the order of the kernels' numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel(String);

impl Kernel {
    /// `role` is what the kernel is here where that is not its number: the host's, the newest there is.
    pub(super) fn new(release: &str, role: &str) -> Self {
        let number = release.split(['.', '-', '+']).take(2).collect::<Vec<_>>().join(".");
        Self(if role.is_empty() { number } else { format!("{number} ({role})") })
    }

    /// What a column is known by when the kernel in it changes.
    fn role(&self) -> &str {
        self.0.split_once('(').map_or(&self.0, |(_, role)| role)
    }
}

impl Ord for Kernel {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |kernel: &Self| {
            let numbers = kernel.0.split([' ', '.']).take(2).map(|n| n.parse::<u32>().unwrap_or(0));
            (numbers.collect::<Vec<_>>(), kernel.0.clone())
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Kernel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a run of the suite said on one kernel: family, id, title, user, outcome.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The kernel's release.
    pub(super) release: String,
    lines: Vec<(String, String, String, usize, Outcome)>,
}

impl Said {
    /// The suite's lines: family, id, title, user, release, outcome, detail; none if there are none.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut said = Self::default();
        for line in lines {
            let parts: Vec<String> = line.split('\t').map(|part| part.trim().replace('|', "/")).collect();
            let Ok([family, id, title, user, release, word, detail]) = <[String; 7]>::try_from(parts) else { continue };
            let Some(user) = USERS.iter().position(|known| *known == user) else { continue };
            said.release = release;
            said.lines.push((family, id, title, user, Outcome { word, detail }));
        }
        (!said.lines.is_empty()).then_some(said)
    }
}

/// The page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// The kernels' full releases.
    releases: BTreeMap<Kernel, String>,
    /// By family, and in the order of the suite.
    families: BTreeMap<String, Vec<(String, Row)>>,
}

impl Page {
    /// Reads what [`Page::text`] wrote. What it does not know is left out.
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let (mut section, mut columns) = (String::new(), Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
                name.clone_into(&mut section);
            }
            let Some(line) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
            let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
            match (&*section, &*cells) {
                ("Kernels", [kernel, release, ..]) if release.starts_with('`') => {
                    page.releases.insert(Kernel((*kernel).to_owned()), release.trim_matches('`').to_owned());
                }
                ("Skipped", [id, why, places]) => page.read_reason(id.trim_matches('`'), why, places),
                (_, ["way", "what it is", kernels @ ..]) => {
                    columns = kernels.iter().map(|kernel| Kernel((*kernel).to_owned())).collect();
                }
                (family, [id, title, cells @ ..]) if id.starts_with('`') && cells.len() == columns.len() => {
                    let cells = columns.iter().cloned().zip(cells.iter().map(|cell| read_cell(cell)));
                    let row = Row { title: (*title).to_owned(), cells: cells.filter(known).collect() };
                    page.families.entry(family.to_owned()).or_default().push((id.trim_matches('`').to_owned(), row));
                }
                _ => {}
            }
        }
        page
    }

    fn read_reason(&mut self, id: &str, why: &str, places: &str) {
        let rows = self.families.values_mut().flatten().filter(|(known, _)| known == id);
        for (_, row) in rows {
            for place in places.split(", ") {
                let Some((kernel, user)) = place.rsplit_once(' ') else { continue };
                let user = USERS.iter().position(|known| *known == user);
                let cell = row.cells.get_mut(&Kernel(kernel.to_owned()));
                if let Some(outcome) = user.zip(cell).map(|(user, cell)| &mut cell[user]) {
                    why.clone_into(&mut outcome.detail);
                }
            }
        }
    }

    /// Takes what a run said of its kernel. It is all there is of it if the run was whole, or if the kernel is another than the
    /// last time.
    pub(super) fn update(&mut self, kernel: &Kernel, said: Said, whole: bool) {
        let stale: Vec<Kernel> = self.releases.keys().filter(|known| known.role() == kernel.role()).cloned().collect();
        for known in stale {
            if whole || known != *kernel {
                self.families.values_mut().flatten().for_each(|(_, row)| drop(row.cells.remove(&known)));
                self.releases.remove(&known);
            }
        }
        self.releases.insert(kernel.clone(), said.release);
        let mut last = BTreeMap::<String, usize>::new();
        for (family, id, title, user, outcome) in said.lines {
            let rows = self.families.entry(family.clone()).or_default();
            let at = rows.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
                // Where the suite has it: after the one before.
                let at = last.get(&family).map_or(0, |last| last + 1).min(rows.len());
                rows.insert(at, (id, Row::default()));
                at
            });
            last.insert(family, at);
            rows[at].1.title = title;
            rows[at].1.cells.entry(kernel.clone()).or_default()[user] = outcome;
        }
        self.families.values_mut().for_each(|rows| rows.retain(|(_, row)| !row.cells.is_empty()));
        self.families.retain(|_, rows| !rows.is_empty());
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{INTRO}\n## Kernels\n\n| kernel | release | as | {} |\n", WORDS.join(" | "));
        text += &format!("|{}\n", "---|".repeat(WORDS.len() + 3));
        for (kernel, release) in &self.releases {
            for (user, name) in USERS.iter().enumerate() {
                let counts = WORDS.map(|word| self.count(kernel, user, word).to_string()).join(" | ");
                let _ = writeln!(text, "| {} | `{release}` | {name} | {counts} |", kernel.0);
            }
        }
        let kernels: Vec<&str> = self.releases.keys().map(|kernel| &*kernel.0).collect();
        for (family, rows) in &self.families {
            let _ = write!(text, "\n## {family}\n\n| way | what it is | {} |\n", kernels.join(" | "));
            text += &format!("|{}\n", "---|".repeat(kernels.len() + 2));
            for (id, row) in rows {
                let cells: Vec<String> =
                    self.releases.keys().map(|kernel| row.cells.get(kernel).map_or_else(String::new, cell)).collect();
                let _ = writeln!(text, "| `{id}` | {} | {} |", row.title, cells.join(" | "));
            }
        }
        text + &self.skipped()
    }

    fn count(&self, kernel: &Kernel, user: usize, word: &str) -> usize {
        let rows = self.families.values().flatten();
        rows.filter(|(_, row)| row.cells.get(kernel).is_some_and(|cell| cell[user].word == word)).count()
    }

    /// Why ways were skipped, and where.
    fn skipped(&self) -> String {
        let mut text = String::from("\n## Skipped\n\n| way | why | where |\n|---|---|---|\n");
        for (id, row) in self.families.values().flatten() {
            let outcomes = row
                .cells
                .iter()
                .flat_map(|(kernel, cell)| cell.iter().zip(USERS).map(move |(o, user)| (kernel, user, o)));
            let skipped: Vec<_> = outcomes.filter(|(.., outcome)| outcome.word == "skipped").collect();
            let reasons: BTreeSet<&str> = skipped.iter().map(|(.., outcome)| &*outcome.detail).collect();
            for why in reasons {
                let here = skipped.iter().filter(|(.., outcome)| outcome.detail == why);
                let places: Vec<String> = here.map(|(kernel, user, _)| format!("{} {user}", kernel.0)).collect();
                let _ = writeln!(text, "| `{id}` | {why} | {} |", places.join(", "));
            }
        }
        text
    }

    /// One kernel's outcomes, for a terminal.
    pub(super) fn table(&self, kernel: &Kernel) -> String {
        let mut text = String::new();
        for (family, rows) in &self.families {
            for (id, cell) in rows.iter().filter_map(|(id, row)| Some((id, row.cells.get(kernel)?))) {
                let [user, root] = cell.clone().map(|outcome| outcome.cell());
                let _ = writeln!(text, "{:<14} {family:<9} {id:<28} user: {user:<22} root: {root}", kernel.0);
            }
        }
        text
    }
}

fn cell(outcomes: &[Outcome; 2]) -> String {
    let [user, root] = outcomes.clone().map(|outcome| outcome.cell());
    if user == root { user } else { format!("{user} / {root}") }
}

fn read_cell(cell: &str) -> [Outcome; 2] {
    let (user, root) = cell.split_once(" / ").unwrap_or((cell, cell));
    [user, root].map(Outcome::read)
}

/// Whether it is a kernel's, and says something.
fn known((kernel, cell): &(Kernel, [Outcome; 2])) -> bool {
    kernel.0.starts_with(|c: char| c.is_ascii_digit()) && cell.iter().any(|outcome| !outcome.word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "Names\tptr\tno | name\tuser\t6.1.0-56\trefused\t\nNames\tptr\tno | name\troot\t6.1.0-56\treported\tgap\n\
        Escape\tcron\ta file\troot\t6.1.0-56\tUNSEEN\tlong story\nEscape\tvia\tit\tuser\t6.1.0-56\tskipped\tENOSYS\n\
        Escape\tvia\tit\troot\t6.1.0-56\tskipped\tno such: thing\n";

    fn said(log: &str) -> Said {
        Said::read(log.lines()).expect("lines")
    }

    fn page() -> Page {
        let mut page = Page::default();
        page.update(&Kernel::new("6.1.0-56", ""), said(LOG), true);
        page
    }

    #[test]
    fn both_users_share_a_cell_and_a_failure_is_bold() {
        let text = page().text();
        assert!(text.contains("| `ptr` | no / name | refused / reported: gap |\n"), "{text}");
        assert!(text.contains("| `cron` | a file | - / **UNSEEN** |\n"), "{text}");
        assert!(text.contains("| `via` | it | skipped |\n"), "{text}");
        assert!(text.contains("| `via` | ENOSYS | 6.1 user |\n| `via` | no such: thing | 6.1 root |\n"), "{text}");
        assert!(text.contains("| 6.1 | `6.1.0-56` | root | 0 | 0 | 1 | 0 | 1 | 1 | 0 |\n"), "{text}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = page().text();
        let read = Page::read(&text);
        assert_eq!(read.text(), text);
        // The story of what was not seen is the test's to tell.
        assert_eq!(read.families["Names"], page().families["Names"]);
    }

    #[test]
    fn a_run_changes_its_own_columns_alone() {
        let mut page = page();
        page.update(&Kernel::new("5.10.0-46", ""), said("Names\tptr\tanew\tuser\t5.10.0-46\tclosed\t\n"), true);
        let text = page.text();
        assert!(text.contains("| `ptr` | anew | closed / - | refused / reported: gap |\n"), "{text}");
        // In part: what was not tried stays. In whole: it goes.
        let again = "Names\tptr\tanew\troot\t6.1.0-57\trefused\t\n";
        page.update(&Kernel::new("6.1.0-57", ""), said(again), false);
        assert!(page.text().contains("| `ptr` | anew | closed / - | refused |\n"), "{}", page.text());
        assert!(page.text().contains("`cron`"));
        page.update(&Kernel::new("6.1.0-57", ""), said(again), true);
        assert!(!page.text().contains("`cron`"));
    }

    #[test]
    fn another_kernel_in_the_same_role_takes_the_column() {
        let mut page = page();
        let one = "Names\tptr\tx\tuser\t7.2.13\trefused\t\n";
        page.update(&Kernel::new("7.2.13", "newest"), said(one), false);
        page.update(&Kernel::new("7.10.1", "newest"), said(one), false);
        page.update(&Kernel::new("6.18.44-fc", "host"), said(one), false);
        let text = page.text();
        assert!(text.contains("| way | what it is | 6.1 | 6.18 (host) | 7.10 (newest) |\n"), "{text}");
    }
}
