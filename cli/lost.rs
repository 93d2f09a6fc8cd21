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
    arrivals: BTreeMap<Row, Arrivals>,
    cancelled: u64,
    troubles: BTreeMap<(Row, String), u64>,
}

/// The sessions of a row that fell due.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    due: u64,
    not_started: u64,
}

impl Lost {
    /// Adds what a cell of `row` lost.
    pub fn add(&mut self, row: Row, end: &CellEnd) {
        self.skipped += end.skipped;
        let arrivals = self.arrivals.entry(row).or_default();
        arrivals.due += end.sessions + end.not_started;
        arrivals.not_started += end.not_started;
        self.cancelled += end.cancelled;
        for (trouble, count) in &end.troubles {
            *self.troubles.entry((row, trouble.clone())).or_default() += count;
        }
    }

    fn not_started(&self) -> u64 {
        self.arrivals.values().map(|row| row.not_started).sum()
    }

    /// Notes it in the manifest.
    pub fn note(&self, record: &mut RunRecord) {
        let Self {
            skipped, cancelled, ..
        } = *self;
        let more = &mut record.calibration.more;
        for (name, count) in [
            ("turns_skipped", skipped),
            ("sessions_not_started", self.not_started()),
            ("exchanges_given_up", cancelled),
        ] {
            if count > 0 {
                more.insert(name.to_owned(), count.into());
            }
        }
        let late = self.arrivals.iter().filter(|(_, it)| it.not_started > 0);
        record
            .warnings
            .extend(late.map(|(row, arrivals)| never_started(*row, *arrivals)));
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
            skipped, cancelled, ..
        } = *self;
        for (count, noun, what) in [
            (
                skipped,
                "turn",
                "not begun, because an earlier turn of the session failed",
            ),
            (
                self.not_started(),
                "session",
                "due and not started before their time was over",
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

fn never_started(row: Row, Arrivals { due, not_started }: Arrivals) -> Warning {
    Warning {
        code: "arrivals_not_started".to_owned(),
        message: format!(
            "{not_started} of the {due} arrivals of {row} that fell due never started ({:.1} %): the load was more than could be carried, \
             and they are in no figure",
            not_started as f64 / due as f64 * 100.0
        ),
        remedy: "lower --request-rate, or raise --concurrency".to_owned(),
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

    #[test]
    fn arrivals_that_never_started_are_told_of_their_row() {
        let mut lost = Lost::default();
        let end = |sessions, not_started| CellEnd {
            sessions,
            not_started,
            ..CellEnd::default()
        };
        lost.add(Row::HTTP_FULL, &end(10, 0));
        lost.add(Row::HTTP_COLD_FULL, &end(6, 1));
        lost.add(Row::HTTP_COLD_FULL, &end(8, 1));
        let rows = vec![Row::HTTP_COLD_FULL, Row::HTTP_FULL];
        let mut record = RunRecord::begin("compare", std::time::UNIX_EPOCH, rows);
        lost.note(&mut record);
        let [warning] = &record.warnings[..] else {
            panic!("{:?}", record.warnings);
        };
        let told = "2 of the 16 arrivals of http-cold/full that fell due never started (12.5 %)";
        assert!(warning.message.starts_with(told), "{warning:?}");
        assert_eq!(record.calibration.more["sessions_not_started"], 2);
    }
}
