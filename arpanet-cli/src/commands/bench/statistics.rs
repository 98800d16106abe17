//! What is said of several figures of one thing.

/// Figures of one thing, in short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Summary {
    /// Of these, in whichever order; `None` where there are none.
    pub(super) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        // Of an even number the middle two count alike.
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: lower.midpoint(upper),
            least,
            most,
        })
    }

    /// Half of the way from the least to the most, in parts of the median; 0 where that is 0.
    pub(super) fn spread(self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.most - self.least) / 2.0 / self.median.abs()
    }
}

/// What one is of the other; `None` where the other is 0.
pub(super) fn ratio(one: f64, other: f64) -> Option<f64> {
    (other != 0.0).then(|| one / other)
}

/// A figure with three digits that say something, and no more than it has.
pub(super) fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{figure:.decimals$}");
    if decimals == 0 { grouped(&text) } else { text }
}

/// Thousands are told apart: 12345 is 12,345.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        let summary = |figures: &[f64]| Summary::of(figures).map(|summary| summary.median);
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), Some(3.0));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(summary(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
    }

    #[test]
    fn the_spread_is_half_of_the_range_in_parts_of_the_median() {
        let summary = Summary::of(&[8.0, 10.0, 14.0]).unwrap();
        assert_eq!((summary.least, summary.most), (8.0, 14.0));
        assert!((summary.spread() - 0.3).abs() < 1e-9);
        assert_eq!(Summary::of(&[0.0, 0.0]).unwrap().spread(), 0.0);
        assert_eq!(Summary::of(&[5.0]).unwrap().spread(), 0.0);
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
    }

    #[test]
    fn figures_have_three_digits_that_say_something() {
        let cases = [
            (0.0, "0.00"),
            (0.0314, "0.031"),
            (0.9996, "1.00"),
            (4.318, "4.32"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (-123_456.0, "-123,456"),
            (1_000_000.0, "1,000,000"),
        ];
        for (figure, text) in cases {
            assert_eq!(short(figure), text);
        }
    }
}
