//! The report as CSV: a line per row and figure, all values in nanoseconds.

use std::fmt::Write;

use crate::report::Report;

/// A heading, and a line for each row and figure that has values (RFC 4180; no field needs quotes).
pub fn csv(report: &Report) -> String {
    let mut text = String::from(
        "channel,state,encoding,metric,unit,count,mean,std,min,p50,p90,p99,p999,max,negatives\r\n",
    );
    for row in &report.channels {
        for (metric, summary) in &row.metrics {
            let name = &row.row;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{},{},{},{metric},{},{},{:.1},{:.1},{},{},{},{},{},{},{}\r\n",
                name.transport,
                name.state,
                name.encoding,
                summary.unit,
                summary.count,
                summary.mean,
                summary.std,
                summary.min,
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p999,
                summary.max,
                summary.negatives,
            );
        }
    }
    text
}
