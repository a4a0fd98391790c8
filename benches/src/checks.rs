//! Aims: what was measured beside what is wanted, and whether it is met.

use std::fmt;

use serde::Serialize;

/// One aim and whether it is met.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The aim in words, with what was measured.
    pub text: String,
    /// Whether it is met. What could not be measured is not.
    pub holds: bool,
}

impl Check {
    /// An aim that is met by so much or more.
    pub fn at_least(what: impl fmt::Display, measured: f64, aim: f64) -> Self {
        Self {
            text: format!("{what}: {measured:.2}, aim ≥ {aim}"),
            holds: measured >= aim,
        }
    }

    /// An aim that is met by so much or less.
    pub fn at_most(what: impl fmt::Display, measured: f64, aim: f64) -> Self {
        Self {
            text: format!("{what}: {measured:.2}, aim ≤ {aim}"),
            holds: measured <= aim,
        }
    }

    /// An aim that cannot be met since nothing could be measured.
    pub fn missed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: not measured, {why}"),
            holds: false,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.holds { "met" } else { "NOT MET" }, self.text)
    }
}

/// The middle of some figures; of an even number, the mean of the two in the middle. Nothing of none.
#[must_use]
pub fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    if figures.len() % 2 == 1 {
        return Some(upper);
    }
    Some((figures[figures.len() / 2 - 1] + upper) / 2.0)
}

/// The interval that contains the true median of what these figures are a sample of, with 95 % of certainty, whatever their
/// distribution: between two figures of such ranks that all true medians outside would make them rarer than that. Nothing of fewer
/// than six.
#[must_use]
pub fn interval(figures: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let count = figures.len();
    // How often so many of the figures or fewer lie below the median: as often as so many coins of all show heads.
    let (mut chance, mut below) = (0.5_f64.powi(i32::try_from(count).ok()?), 0.0);
    let mut rank = 0;
    while rank < count / 2 && below + chance <= 0.025 {
        below += chance;
        chance *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let least = rank.checked_sub(1)?;
    Some((figures[least], figures[count - 1 - least]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn the_interval_of_the_median_is_that_of_the_sign_test() {
        let ranks = |count: i32| interval((1..=count).map(f64::from));
        assert_eq!(ranks(5), None);
        assert_eq!(ranks(6), Some((1.0, 6.0)));
        assert_eq!(ranks(11), Some((2.0, 10.0)));
        assert_eq!(ranks(25), Some((8.0, 18.0)));
    }

    #[test]
    fn an_aim_is_met_on_its_side_only() {
        assert!(Check::at_least("x", 0.9, 0.9).holds && !Check::at_least("x", 0.89, 0.9).holds);
        assert!(Check::at_most("x", 4.0, 4.0).holds && !Check::at_most("x", 4.1, 4.0).holds);
        assert!(!Check::missed("x", "no").holds);
    }
}
