//! What was measured, as a table and as JSON.

use serde_json::{Value, json};

use crate::stats::Estimate;

/// Whether a bar is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    No,
    /// The interval holds the bar: not sure enough to say.
    Unclear,
    /// No bar: for comparison.
    None,
}

impl Met {
    /// For a value that may be at most `bar`.
    pub(crate) fn at_most(e: Estimate, bar: f64) -> Self {
        match () {
            () if e.high <= bar => Self::Yes,
            () if e.low > bar => Self::No,
            () => Self::Unclear,
        }
    }

    /// For a value that must be at least `bar`.
    pub(crate) fn at_least(e: Estimate, bar: f64) -> Self {
        Self::at_most(e.map(|v| -v), -bar)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "NO",
            Self::Unclear => "unclear",
            Self::None => "",
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// Stable name.
    pub(crate) key: &'static str,
    pub(crate) what: String,
    pub(crate) bar: String,
    pub(crate) measured: String,
    pub(crate) met: Met,
    /// The figures.
    pub(crate) values: Value,
}

/// An estimate as JSON.
pub(crate) fn value(e: Estimate) -> Value {
    json!({"median": e.median, "low": e.low, "high": e.high, "rounds": e.rounds})
}

/// `1.23 (1.20 to 1.26)`.
pub(crate) fn show(e: Estimate, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$} to {:.digits$})", e.median, e.low, e.high)
}

/// The table as Markdown, which is also readable as it is.
pub(crate) fn text(rows: &[Row]) -> String {
    let head = ["what", "bar", "measured: median (95 % interval)", "met?"].map(str::to_owned);
    let cells: Vec<[String; 4]> = std::iter::once(head)
        .chain(rows.iter().map(|r| [r.what.clone(), r.bar.clone(), r.measured.clone(), r.met.word().to_owned()]))
        .collect();
    let width = |i: usize| cells.iter().map(|c| c[i].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut out = String::new();
    for (n, line) in cells.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            out.push_str(&format!("| {cell:width$} "));
        }
        out.push_str("|\n");
        if n == 0 {
            for width in widths {
                out.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The rows as JSON.
pub(crate) fn to_json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|r| {
            let met = match r.met {
                Met::Yes => json!(true),
                Met::No => json!(false),
                Met::Unclear => json!("unclear"),
                Met::None => Value::Null,
            };
            json!({"key": r.key, "what": r.what, "bar": r.bar, "measured": r.measured, "met": met, "values": r.values})
        })
        .collect()
}
