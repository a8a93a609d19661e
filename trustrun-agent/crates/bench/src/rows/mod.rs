//! The rows of the table, a file for each part.

mod events;
mod hooks;
mod idle;
mod policy;
mod speed;
mod start;

use anyhow::Result;

use crate::{arms::Place, table::Row};

/// Measures a part; the number divides the rounds.
pub(crate) type Part = fn(&Place, usize) -> Result<Vec<Row>>;

/// All of them, in the order of issue 2's table.
pub(crate) const PARTS: &[(&str, Part)] = &[
    ("hooks", hooks::measure),
    ("speed", speed::measure),
    ("start", start::measure),
    ("idle", idle::measure),
    ("events", events::measure),
    // Issue 4's bars.
    ("policy", policy::measure),
];

/// The order in which `n` ways take their turn in a round: each is first, and each last, equally often, and every
/// second time around the other way.
pub(crate) fn order(round: usize, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).map(|i| (i + round) % n).collect();
    if (round / n) % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn everyone_has_every_turn_equally_often() {
        for n in [2, 3] {
            let mut at = vec![vec![0; n]; n];
            for round in 0..2 * n {
                for (turn, who) in order(round, n).into_iter().enumerate() {
                    at[who][turn] += 1;
                }
            }
            assert!(at.iter().flatten().all(|count| *count == 2), "{at:?}");
        }
    }
}
