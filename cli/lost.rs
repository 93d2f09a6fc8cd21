//! What of a run was planned and not done, and what went wrong: summed over the cells, told at the end.

use std::collections::BTreeMap;

use tokenlag_loadgen::CellEnd;
use tokenlag_probes::{Row, RunRecord, Warning};

/// Kinds of trouble that are told to the user, at most.
const TROUBLES_TOLD: usize = 5;

/// What was planned and not done.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    skipped: u64,
    not_started: u64,
    cancelled: u64,
    troubles: BTreeMap<(Row, String), u64>,
}

impl Lost {
    /// Adds what a cell of `row` lost.
    pub fn add(&mut self, row: Row, end: &CellEnd) {
        self.skipped += end.skipped;
        self.not_started += end.not_started;
        self.cancelled += end.cancelled;
        for (trouble, count) in &end.troubles {
            *self.troubles.entry((row, trouble.clone())).or_default() += count;
        }
    }

    /// Notes it in the manifest.
    pub fn note(&self, record: &mut RunRecord) {
        let Self {
            skipped,
            not_started,
            cancelled,
            ..
        } = *self;
        let more = &mut record.calibration.more;
        for (name, count) in [
            ("turns_skipped", skipped),
            ("sessions_not_started", not_started),
            ("exchanges_given_up", cancelled),
        ] {
            if count > 0 {
                more.insert(name.to_owned(), count.into());
            }
        }
        if not_started > 0 {
            record.warnings.push(Warning {
                code: "arrivals_not_started".to_owned(),
                message: format!(
                    "{} due and never started: the load was more than could be carried",
                    counted(not_started, "session")
                ),
                remedy: "lower --request-rate, or raise --concurrency".to_owned(),
            });
        }
    }

    /// What went wrong, in lines for the user, the most frequent first.
    pub fn told(&self) -> Vec<String> {
        let mut troubles: Vec<_> = self.troubles.iter().collect();
        troubles.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut lines: Vec<String> = troubles
            .iter()
            .take(TROUBLES_TOLD)
            .map(|((row, what), count)| format!("{row}: {count} x {what}"))
            .collect();
        if troubles.len() > TROUBLES_TOLD {
            lines.push(format!(
                "... and {} more kinds of trouble",
                troubles.len() - TROUBLES_TOLD
            ));
        }
        let Self {
            skipped,
            not_started,
            cancelled,
            ..
        } = *self;
        for (count, noun, what) in [
            (
                skipped,
                "turn",
                "not begun, because an earlier turn of the session failed",
            ),
            (
                not_started,
                "session",
                "due and not started, because no place was free in time",
            ),
            (cancelled, "exchange", "given up when the run was stopped"),
        ] {
            if count > 0 {
                lines.push(format!("{} {what}", counted(count, noun)));
            }
        }
        lines
    }
}

fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let lost = Lost {
            skipped: 2,
            cancelled: 1,
            ..Lost::default()
        };
        let told = lost.told();
        assert!(told[0].starts_with("2 turns not begun"), "{told:?}");
        assert_eq!(told[1], "1 exchange given up when the run was stopped");
    }
}
