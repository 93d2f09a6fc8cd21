//! Numbers as tables show them: one unit per column, three significant digits.

/// The unit of a column of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Micros,
    Millis,
    Seconds,
}

impl TimeUnit {
    /// The unit in which these nanoseconds read best: the middle value decides, unless the largest would grow too long.
    pub(super) fn for_values(nanos: impl IntoIterator<Item = f64>) -> Self {
        let mut sizes: Vec<f64> = nanos.into_iter().map(f64::abs).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let Some((&largest, middle)) = sizes.last().zip(sizes.get(sizes.len() / 2)) else {
            return Self::Millis;
        };
        match (*middle, largest) {
            (..1e6, ..1e8) => Self::Micros,
            (..1e9, ..1e11) => Self::Millis,
            _ => Self::Seconds,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Seconds => "s",
        }
    }

    pub(super) fn show(self, nanos: f64) -> String {
        let scale = match self {
            Self::Micros => 1e3,
            Self::Millis => 1e6,
            Self::Seconds => 1e9,
        };
        three_digits(nanos / scale)
    }
}

impl TimeUnit {
    /// With its sign, as a difference.
    pub(super) fn show_signed(self, nanos: f64) -> String {
        let text = self.show(nanos);
        match nanos > 0.0 && text != "0" {
            true => format!("+{text}"),
            false => text,
        }
    }
}

/// Three significant digits, and no more than three decimals: `0.012`, `1.23`, `12.3`, `123`, `12300`.
pub(super) fn three_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.0}");
    }
    // Rounding may carry into the next decade (9.996 is 10.0), so the decade is that of the rounded value.
    let decade = |value: f64| value.abs().log10().floor() as i32;
    let step = 10f64.powi(decade(value) - 2);
    let rounded = (value / step).round() * step;
    let decimals = (2 - decade(rounded)).clamp(0, 3) as usize;
    let text = format!("{rounded:.decimals$}");
    match text.trim_start_matches('-').trim_matches(['0', '.']) {
        "" => "0".to_owned(),
        _ => text,
    }
}

/// A change in whole percent, signed: `-41`, `+3`, `0`; a decimal where it is below ten.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = match value.abs() {
        ..9.95 => format!("{value:+.1}"),
        _ => format!("{value:+.0}"),
    };
    match text.as_str() {
        "+0.0" | "-0.0" => "0.0".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_whatever_the_size() {
        for (value, shown) in [
            (0.0, "0"),
            (0.000_01, "0"),
            (0.012_34, "0.012"),
            (-1.234, "-1.23"),
            (9.996, "10.0"),
            (99.96, "100"),
            (123.4, "123"),
            (12_345.0, "12300"),
        ] {
            assert_eq!(three_digits(value), shown, "{value}");
        }
    }

    #[test]
    fn a_column_has_the_unit_of_its_middle_value() {
        let unit = |values: &[f64]| TimeUnit::for_values(values.iter().copied());
        assert_eq!(unit(&[900.0, 20_000.0, 45_000_000.0]), TimeUnit::Micros);
        assert_eq!(unit(&[20_000.0, 20_000.0, 450_000_000.0]), TimeUnit::Millis);
        assert_eq!(unit(&[5e6, 6e6]), TimeUnit::Millis);
        assert_eq!(unit(&[2e9, 3e9]), TimeUnit::Seconds);
        assert_eq!(unit(&[]), TimeUnit::Millis);
        assert_eq!(TimeUnit::Micros.show(-12_345.0), "-12.3");
    }

    #[test]
    fn small_changes_keep_a_decimal() {
        assert_eq!(percent(-0.412), "-41");
        assert_eq!(percent(0.034), "+3.4");
        assert_eq!(percent(-0.000_1), "0.0");
        assert_eq!(percent(1.5), "+150");
    }
}
