//! `<metric>.hlog`: HdrHistogram's interval log (V2, compressed, as its own tools read it), one interval per cell, or several of a long one.
//!
//! `Tag` is the row's name; magnitudes of negative values stand in intervals of their own, tagged `<row>:negative`.
//! Interval starts are whole milliseconds since `BaseTime`, the run's start; values are nanoseconds.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, LogIteratorError, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::metric::Metric;

const NEGATIVE: &str = ":negative";

/// One interval of a log.
pub(super) struct Interval {
    /// The row's name.
    pub(super) row: String,
    /// The values are magnitudes of negative ones.
    pub(super) negative: bool,
    /// When it began, in milliseconds since the run's start.
    pub(super) start_ms: u64,
    /// The values.
    pub(super) values: Histogram<u64>,
}

/// The log's first lines.
pub(super) fn header(metric: Metric, started: SystemTime) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    IntervalLogWriterBuilder::new()
        .add_comment(&format!("[{metric}: {}]", metric.description()))
        .add_comment(&format!("[{metric} = {}]", metric.formula()))
        .add_comment("[Values in nanoseconds]")
        .with_start_time(started)
        .with_base_time(started)
        .begin_log_with(&mut text, &mut V2DeflateSerializer::new())?;
    writeln!(
        text,
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
    )?;
    Ok(text)
}

/// One interval as a line of the log.
pub(super) fn line(
    row: &str,
    negative: bool,
    start_ms: u64,
    duration: Duration,
    values: &Histogram<u64>,
) -> io::Result<Vec<u8>> {
    let tag = format!("{row}{}", if negative { NEGATIVE } else { "" });
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .begin_log_with(&mut text, &mut serializer)?
        .write_histogram(
            values,
            Duration::from_millis(start_ms),
            duration,
            Tag::new(&tag),
        )
        .map_err(io::Error::other)?;
    Ok(text)
}

/// Reads a log back. A last line without its end, as an interrupted run leaves it, is passed over.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Interval>, String> {
    let whole_lines = text
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let mut deserializer = Deserializer::new();
    let mut intervals = Vec::new();
    for entry in IntervalLogIterator::new(&text[..whole_lines]) {
        let entry = entry.map_err(|LogIteratorError::ParseError { offset }| {
            let before = &text[..offset.min(text.len())];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            format!("line {line} is no interval of a histogram log")
        })?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let tag = interval.tag().map_or("", |tag| tag.as_str());
        let bytes = STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("interval of '{tag}': {error}"))?;
        let values = deserializer
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("interval of '{tag}': {error}"))?;
        let (row, negative) = match tag.strip_suffix(NEGATIVE) {
            Some(row) => (row, true),
            None => (tag, false),
        };
        intervals.push(Interval {
            row: row.to_owned(),
            negative,
            start_ms: interval.start_timestamp().as_millis() as u64,
            values,
        });
    }
    Ok(intervals)
}
