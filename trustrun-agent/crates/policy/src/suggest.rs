//! "Did you mean": the nearest of a few known words.

/// The word nearest to `found`, if it is near enough that a person may have meant it.
pub(crate) fn nearest<'a>(found: &str, words: &[&'a str]) -> Option<&'a str> {
    // Longer than any word of ours; the distance need not be computed on whatever a file holds.
    if found.len() > 32 {
        return None;
    }
    let found = found.to_ascii_lowercase();
    let (distance, word) = words.iter().map(|w| (distance(&found, w), *w)).min()?;
    (distance <= 2 && distance < word.len()).then_some(word)
}

/// The end of a message, where something similar is known.
pub(crate) fn or_nothing(meant: &Option<String>) -> String {
    meant.as_ref().map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

/// Edits (insert, remove, replace, swap of neighbours) between two words: the optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_away() {
        assert_eq!(nearest("defualt", &["default", "rules"]), Some("default"));
        assert_eq!(nearest("Blcok", &["allow", "block"]), Some("block"));
        assert_eq!(nearest("zebra", &["allow", "block"]), None);
        assert_eq!(nearest("", &["udp"]), None);
    }
}
