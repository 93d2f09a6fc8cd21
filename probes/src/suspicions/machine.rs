//! A machine that had no time for the measurement: arrivals that left late, threads that waited for a core.

use crate::counters::{Counters, RunQueue};
use crate::metric::Metric;
use crate::record::RunRecord;
use crate::recorder::Recorder;
use crate::report::Recorders;
use crate::row::Row;
use crate::verdict::Warning;

use super::{millis, warning};

/// The machine's part in a figure is passed over up to a figure's part of so many.
const PASSED_OVER: i64 = 10;

/// Takes one end's waits out of a row's counters.
type Waits = fn(&Counters) -> Option<RunQueue>;

/// Arrivals left later than the schedule said, by more than a tenth of what was to be measured.
pub(super) fn dispatch_lag(row: Row, recorder: &Recorder) -> Option<Warning> {
    let lag = recorder.summary(Metric::DispatchLag)?.p99;
    let ttft = recorder.summary(Metric::Ttft)?.p50;
    if lag <= ttft / PASSED_OVER {
        return None;
    }
    warning(
        "dispatch_lag",
        format!(
            "the generator itself was late: dispatch lag p99 of {row} is {}, above a tenth of its ttft p50 of {}",
            millis(lag as f64),
            millis(ttft as f64)
        ),
        "lower --request-rate, allow more sessions side by side with --concurrency, or give the generator cores of its own",
    )
}

/// Threads of an end waited for a core, on average, longer than a tenth of the smallest figure that is reported.
pub(super) fn run_queue(record: &RunRecord, recorders: &Recorders) -> Vec<Warning> {
    let Some((smallest, metric, of_row)) = smallest_headline(recorders) else {
        return Vec::new();
    };
    let ends: [(&str, Waits); 2] = [
        ("load generator", |counters| counters.client_run_queue),
        ("proxy", |counters| counters.proxy_run_queue),
    ];
    let waited_too_long = |(end, of): (&str, Waits)| {
        let delays = record.rows.iter().filter_map(|row| {
            let delay = of(&record.counters_of(*row))?.mean_delay_ns()?;
            Some((delay, row))
        });
        let (delay, row) = delays.max_by(|a, b| a.0.total_cmp(&b.0))?;
        if delay <= smallest as f64 / PASSED_OVER as f64 {
            return None;
        }
        warning(
            "run_queue_delay",
            format!(
                "the {end}'s threads waited {} for a core each time they had work ({row}), above a tenth of the smallest \
                 headline figure, the {metric} p50 of {of_row}: {}",
                millis(delay),
                millis(smallest as f64)
            ),
            "give generator, proxy and backend cores of their own, or let the backend use fewer threads",
        )
    };
    ends.into_iter().filter_map(waited_too_long).collect()
}

/// The smallest median of an overhead; where there is none, as without a proxy, of the time to the first token. What is not
/// above zero cannot be compared with.
fn smallest_headline(recorders: &Recorders) -> Option<(i64, Metric, Row)> {
    let smallest = |metrics: &[Metric]| {
        let medians = recorders.iter().flat_map(|(row, recorder)| {
            let median = |&metric: &Metric| Some((recorder.summary(metric)?.p50, metric, *row));
            metrics.iter().filter_map(median)
        });
        medians.filter(|(median, ..)| *median > 0).min()
    };
    smallest(&Metric::OVERHEADS).or_else(|| smallest(&[Metric::Ttft]))
}
