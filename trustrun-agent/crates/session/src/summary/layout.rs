//! Lines of a page: indented, cut or wrapped to its width, painted last so that colours never count as text.

use trustrun_model::Untrusted;

use super::Style;

/// What a piece of text means; each meaning is also said in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Good,
    Doubtful,
    Bad,
    Faint,
}

/// A piece of a line.
struct Span {
    text: String,
    paint: Paint,
    strong: bool,
}

/// One line, or a paragraph where it is wrapped.
#[derive(Default)]
pub(super) struct Line {
    spans: Vec<Span>,
    indent: usize,
    /// Indentation of the lines after the first; `None` cuts instead.
    wrap: Option<usize>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.paint(text, Paint::Plain)
    }

    pub(super) fn faint(self, text: &str) -> Self {
        self.paint(text, Paint::Faint)
    }

    pub(super) fn paint(mut self, text: &str, paint: Paint) -> Self {
        self.spans.push(Span { text: text.to_owned(), paint, strong: false });
        self
    }

    pub(super) fn strong(mut self, text: &str, paint: Paint) -> Self {
        self.spans.push(Span { text: text.to_owned(), paint, strong: true });
        self
    }

    pub(super) fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    pub(super) fn wrapped(mut self, indent: usize) -> Self {
        self.wrap = Some(indent);
        self
    }

    /// Appends the line and its newline.
    pub(super) fn write(self, page: &mut String, style: Style<'_>) {
        // Narrower than this nothing can be read anyway.
        let width = if style.width == 0 { usize::MAX } else { style.width.max(40) };
        page.extend(std::iter::repeat_n(' ', self.indent));
        let mut column = self.indent;
        let total: usize = self.indent + self.spans.iter().map(|s| s.text.chars().count()).sum::<usize>();
        let fits = total <= width;
        for span in self.spans {
            let text = match self.wrap {
                _ if fits => span.text,
                Some(indent) => wrapped(&span.text, &mut column, width, indent),
                None => cut(&span.text, &mut column, width),
            };
            page.push_str(&painted(&text, span.paint, span.strong, style));
        }
        page.push('\n');
    }
}

/// As much as fits, with a mark where something is missing.
fn cut(text: &str, column: &mut usize, width: usize) -> String {
    let room = width.saturating_sub(*column);
    let length = text.chars().count();
    *column += length;
    if length <= room {
        return text.to_owned();
    }
    if room == 0 {
        return String::new();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

/// Broken at spaces; a word that is wider than the page stays whole, so that it can be copied.
fn wrapped(text: &str, column: &mut usize, width: usize, indent: usize) -> String {
    let mut broken = String::new();
    for piece in text.split_inclusive(' ') {
        let word = piece.trim_end_matches(' ').chars().count();
        if *column + word > width && *column > indent && word > 0 {
            broken.truncate(broken.trim_end_matches(' ').len());
            broken.push('\n');
            broken.extend(std::iter::repeat_n(' ', indent));
            *column = indent;
        }
        broken.push_str(piece);
        *column += piece.chars().count();
    }
    broken
}

/// SGR codes of ECMA-48; only the eight colours that every terminal has.
fn painted(text: &str, paint: Paint, strong: bool, style: Style<'_>) -> String {
    let code = match (paint, strong) {
        (Paint::Plain, false) => "",
        (Paint::Plain, true) => "1",
        (Paint::Good, false) => "32",
        (Paint::Good, true) => "1;32",
        (Paint::Doubtful, false) => "33",
        (Paint::Doubtful, true) => "1;33",
        (Paint::Bad, false) => "31",
        (Paint::Bad, true) => "1;31",
        (Paint::Faint, _) => "2",
    };
    if style.color && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text that somebody else chose, safe to show.
pub(super) fn clean(text: &str) -> String {
    Untrusted::new(text).to_string()
}

/// At most `max` characters.
pub(super) fn shortened(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() { text.to_owned() } else { text.chars().take(max - 1).chain(['…']).collect() }
}

/// `1 connection`, `2 connections`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// SI units, as networks count.
pub(super) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        // 999.95 would be shown as 1000.0.
        if value < 999.95 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (n, text) in [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn lines_keep_to_the_width() {
        let style = Style { color: false, width: 40, full: false, db: None };
        let mut page = String::new();
        Line::new().text(&"word ".repeat(20)).indented(2).wrapped(4).write(&mut page, style);
        Line::new().text(&"x".repeat(100)).indented(2).write(&mut page, style);
        assert!(page.lines().all(|line| line.chars().count() <= 40), "{page}");
        assert_eq!(page.matches("word").count(), 20);
    }
}
