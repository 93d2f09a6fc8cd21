//! The comparison with the baseline: which pieces became dearer or cheaper than is let pass.

use std::fmt;

use crate::measured::Measured;

/// How far a count may be from the baseline's. Two counts of the same program are the same to a thousandth, but for those of
/// whole exchanges (two) and of the history (five): hash tables have seeds of their own in every process.
pub const TOLERANCE: f64 = 0.03;

/// How a piece stands beside the baseline.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Within the tolerance.
    Same,
    /// Dearer, by this part of the baseline's count.
    Dearer(f64),
    /// Cheaper, by this part: the baseline would let it become as dear again.
    Cheaper(f64),
    /// The baseline does not know it.
    New,
    /// The baseline knows it, and it is no more.
    Gone,
}

impl Change {
    /// Of a count, or of none, from a baseline's, or from none.
    pub fn of(before: Option<f64>, now: Option<f64>) -> Self {
        match (before, now) {
            (None, _) => Self::New,
            (Some(_), None) => Self::Gone,
            (Some(before), Some(now)) => {
                let change = (now - before) / before.max(f64::MIN_POSITIVE);
                match change {
                    change if change > TOLERANCE => Self::Dearer(change),
                    change if change < -TOLERANCE => Self::Cheaper(-change),
                    _ => Self::Same,
                }
            }
        }
    }

    /// Whether the baseline need not be touched.
    pub fn is_same(&self) -> bool {
        *self == Self::Same
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => Ok(()),
            Self::Dearer(by) => write!(f, "{:.1} % dearer", by * 100.0),
            Self::Cheaper(by) => write!(f, "{:.1} % cheaper", by * 100.0),
            Self::New => f.write_str("not in the baseline"),
            Self::Gone => f.write_str("in the baseline alone"),
        }
    }
}

/// Every piece that is known to either, with its label, and how it stands.
pub fn compare(before: &Measured, now: &Measured) -> Vec<(String, Change)> {
    let mut labels: Vec<&String> = before.keys().chain(now.keys()).collect();
    labels.sort();
    labels.dedup();
    labels
        .into_iter()
        .map(|label| {
            let change = Change::of(before.get(label).copied(), now.get(label).copied());
            (label.clone(), change)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured<const N: usize>(counts: [(&str, f64); N]) -> Measured {
        counts
            .map(|(label, count)| (label.to_owned(), count))
            .into()
    }

    #[test]
    fn what_is_beyond_three_percent_is_told_in_either_direction() {
        assert_eq!(Change::of(Some(1000.0), Some(1030.0)), Change::Same);
        assert_eq!(Change::of(Some(1000.0), Some(970.0)), Change::Same);
        assert!(matches!(
            Change::of(Some(1000.0), Some(1031.0)),
            Change::Dearer(by) if (by - 0.031).abs() < 1e-9
        ));
        assert!(matches!(
            Change::of(Some(1000.0), Some(960.0)),
            Change::Cheaper(by) if (by - 0.04).abs() < 1e-9
        ));
        // A count of nothing is no reason to divide by it.
        assert_eq!(Change::of(Some(0.0), Some(0.0)), Change::Same);
        assert!(matches!(
            Change::of(Some(0.0), Some(1.0)),
            Change::Dearer(_)
        ));
    }

    #[test]
    fn pieces_that_only_one_side_knows_are_told() {
        let before = measured([("a", 10.0), ("b", 10.0)]);
        let now = measured([("b", 11.0), ("c", 1.0)]);
        let changes = compare(&before, &now);
        let said: Vec<String> = changes
            .iter()
            .map(|(label, change)| format!("{label}: {change}"))
            .collect();
        let expected = [
            "a: in the baseline alone",
            "b: 10.0 % dearer",
            "c: not in the baseline",
        ];
        assert_eq!(said, expected);
        assert!(changes.iter().all(|(_, change)| !change.is_same()));
        assert!(
            compare(&now, &now)
                .iter()
                .all(|(_, change)| change.is_same())
        );
    }
}
