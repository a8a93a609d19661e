//! A person goes through what was learned, line by line, on a terminal.

use std::io::{self, BufRead, Write};

use trustrun_model::Untrusted;
use trustrun_policy::{Line, Review};

use super::ToolError;

const HELP: &str = "\
  a  approve: let it through
  d  deny: refuse it, by name
  s  skip: write nothing about it
  w  widen: a name to all names beside it, an address to its network; w again goes further
  n  narrow: only for the executables that did it
  t  note: say why, for whoever reads the policy
  A  approve this and all that follow
  q  write what was decided, and stop";

/// Asks about each line. What is left when the input ends is skipped.
pub(super) fn review(lines: Vec<Line>) -> Result<Vec<Line>, ToolError> {
    let (stdin, stderr) = (io::stdin(), io::stderr());
    ask(lines, &mut stdin.lock(), &mut stderr.lock()).map_err(|source| ToolError::File {
        what: "cannot ask on",
        path: "the terminal".into(),
        source,
    })
}

/// What to do after an answer.
enum Next {
    Again,
    Keep,
    Skip,
    KeepAll,
    Stop,
}

fn ask(lines: Vec<Line>, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<Vec<Line>> {
    let mut kept: Vec<Line> = Vec::new();
    let count = lines.len();
    let mut all = false;
    for (at, mut line) in lines.into_iter().enumerate() {
        if all || kept.iter().any(|wide| wide.covers(&line)) {
            if all {
                kept.push(line);
            }
            continue;
        }
        loop {
            let only = if line.narrowed { " (for these executables alone)" } else { "" };
            writeln!(out, "[{}/{count}] {}{only}  # {}", at + 1, line.pattern, Untrusted::new(line.provenance()))?;
            write!(out, "  approve, deny, skip, widen, narrow, note, All, quit, or ? [a/d/s/w/n/t/A/q/?] ")?;
            out.flush()?;
            let Some(answer) = read(answers)? else { return Ok(kept) };
            match step(&answer, &mut line, answers, out)? {
                Next::Again => {}
                Next::Keep => break kept.push(line),
                Next::Skip => break,
                Next::Stop => return Ok(kept),
                Next::KeepAll => {
                    all = true;
                    break kept.push(line);
                }
            }
        }
    }
    Ok(kept)
}

fn step(answer: &str, line: &mut Line, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<Next> {
    match answer {
        "a" => return Ok(Next::Keep),
        "A" => return Ok(Next::KeepAll),
        "s" => return Ok(Next::Skip),
        "q" => return Ok(Next::Stop),
        "d" => {
            line.review = Review::Deny;
            return Ok(Next::Keep);
        }
        "w" if !line.widen() => writeln!(out, "  it goes no wider")?,
        "w" => {}
        "n" if line.exes.is_empty() => writeln!(out, "  which executable it was is not known")?,
        "n" => line.narrowed = true,
        "t" => {
            write!(out, "  why: ")?;
            out.flush()?;
            line.note = read(answers)?.filter(|note| !note.is_empty());
        }
        _ => writeln!(out, "{HELP}")?,
    }
    Ok(Next::Again)
}

fn read(answers: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut answer = String::new();
    Ok((answers.read_line(&mut answer)? > 0).then(|| answer.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use trustrun_policy::{Policy, Profile, Seen, write_profile};

    use super::*;

    fn lines() -> Vec<Line> {
        let mut profile = Profile::default();
        for (host, exe) in [("a.cdn.example.org", "/usr/bin/curl"), ("b.cdn.example.org", ""), ("c.example.net", "")] {
            let addr = Some([192, 0, 2, 1].into());
            profile.add(&Seen { host: Some(host), addr, port: 443, count: 2, exe, session: "s1", ..Seen::default() });
        }
        profile.lines()
    }

    fn reviewed(answers: &str) -> String {
        let mut shown = Vec::new();
        let kept = ask(lines(), &mut answers.as_bytes(), &mut shown).unwrap();
        let text = write_profile("x", &kept, &[]);
        Policy::parse("x", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        text.lines().filter(|line| !line.starts_with('#')).skip(2).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_person_approves_denies_widens_narrows_and_notes() {
        assert_eq!(
            reviewed("w\na\nt\nticket 9\nd\n"),
            "default: block\nrules:\n  - name: \"learned, curl\"\n    allow:\n      - \"*.cdn.example.org:443\" # 2 times, by \
             /usr/bin/curl, session s1\n  - name: \"denied in review\"\n    reason: \"ticket 9\"\n    block:\n      - \
             \"c.example.net:443\" # 2 times, session s1\n"
        );
        assert!(reviewed("n\na\ns\ns\n").contains("    when: {exe: [\"/usr/bin/curl\"]}\n"));
    }

    #[test]
    fn what_nobody_answered_is_not_let_through() {
        assert_eq!(reviewed(""), "default: block\nrules: []\n");
        assert_eq!(reviewed("?\nn\nx\nq\n"), "default: block\nrules: []\n");
        assert_eq!(reviewed("A\n").matches("2 times").count(), 3);
    }
}
