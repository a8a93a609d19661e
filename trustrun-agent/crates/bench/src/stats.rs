//! Medians, and how sure they are.

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The middle value.
    pub(crate) median: f64,
    /// Lower end of the interval.
    pub(crate) low: f64,
    /// Upper end of the interval.
    pub(crate) high: f64,
    /// Rounds.
    pub(crate) rounds: usize,
}

impl Estimate {
    /// From one value of each round. The interval is between two order statistics: the number of values below the
    /// true median is binomial(n, 1/2), whatever the distribution. Below six rounds it is all that was seen, which is
    /// less than 95 %.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let median = if n % 2 == 1 { at(n / 2) } else { f64::midpoint(at((n / 2).wrapping_sub(1)), at(n / 2)) };
        let k = lower_rank(n);
        Self { median, low: at(k), high: at(n.wrapping_sub(1 + k)), rounds: n }
    }

    /// The same in another unit.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (f(self.low), f(self.high));
        Self { median: f(self.median), low: a.min(b), high: a.max(b), rounds: self.rounds }
    }
}

/// The largest k with P(binomial(n, 1/2) <= k) <= 2.5 %: the interval goes from the k-th smallest to the k-th largest
/// value, counted from 0.
fn lower_rank(n: usize) -> usize {
    // In logarithms: 0.5^n underflows for long series.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut below = 0.0;
    for k in 0..n / 2 {
        below += term.exp();
        if below > 0.025 {
            return k.saturating_sub(1);
        }
        term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    n.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_are_those_of_the_tables() {
        // Order statistics for a 95 % interval of the median, from 1: n=6 1..6, n=10 2..9, n=20 6..15, n=100 40..61.
        for (n, rank) in [(6, 1), (10, 2), (20, 6), (30, 10), (100, 40)] {
            assert_eq!(lower_rank(n) + 1, rank, "n = {n}");
        }
        assert_eq!(lower_rank(5), 0);
        assert!(lower_rank(10_000) > 4_890);
    }

    #[test]
    fn the_median_is_in_the_middle_of_its_interval() {
        let e = Estimate::of((1..=101).rev().map(f64::from));
        assert_eq!((e.median, e.low, e.high, e.rounds), (51.0, 41.0, 61.0, 101));
        let e = Estimate::of([4.0, 1.0]);
        assert_eq!((e.median, e.low, e.high), (2.5, 1.0, 4.0));
    }

    #[test]
    fn nothing_is_not_a_number_and_outliers_do_not_count() {
        assert!(Estimate::of([]).median.is_nan());
        assert!(Estimate::of([f64::NAN]).median.is_nan());
        let e = Estimate::of((0..50).map(|i| if i == 7 { 1e12 } else { 1.0 }));
        assert_eq!((e.median, e.high), (1.0, 1.0));
    }

    #[test]
    fn a_falling_map_keeps_low_below_high() {
        let e = Estimate { median: 2.0, low: 1.0, high: 4.0, rounds: 9 }.map(|v| 1.0 / v);
        assert_eq!((e.median, e.low, e.high), (0.5, 0.25, 1.0));
    }
}
