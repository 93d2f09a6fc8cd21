//! Recorders as one HdrHistogram interval log, for a process that has no run's folder: the proxy's `/histograms`.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::metric::Metric;
use crate::recorder::Recorder;

/// The log of everything recorded since `started`: one interval a name and figure, tagged `<name>.<metric>`, magnitudes
/// of negative values tagged `<name>.<metric>:negative`. Values are nanoseconds.
///
/// # Errors
/// A histogram that cannot be serialised.
pub fn recorder_log<'a>(
    started: SystemTime,
    lasted: Duration,
    recorders: impl Iterator<Item = (&'a str, &'a Recorder)>,
) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Values in nanoseconds]")
        .with_start_time(started)
        .with_base_time(started)
        .begin_log_with(&mut text, &mut serializer)?;
    for (name, recorder) in recorders {
        for metric in Metric::ALL {
            let histogram = recorder.histogram(metric);
            let signed = [
                (histogram.positive(), ""),
                (histogram.negative(), ":negative"),
            ];
            for (values, suffix) in signed {
                let Some(values) = values else { continue };
                let tag = format!("{name}.{metric}{suffix}");
                log.write_histogram(&values, Duration::ZERO, lasted, Tag::new(&tag))
                    .map_err(io::Error::other)?;
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_and_figure_has_its_interval() {
        let mut http = Recorder::new();
        http.record(Metric::ModelTtft, 1_000);
        http.record(Metric::ProxyToken, -5);
        let rows = [("http", &http)];
        let started = SystemTime::UNIX_EPOCH;
        let log = recorder_log(started, Duration::from_secs(2), rows.into_iter()).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert!(log.contains("Tag=http.model_ttft,0.000,2.000,"), "{log}");
        assert!(log.contains("Tag=http.proxy_token:negative,"), "{log}");
        assert_eq!(log.matches("Tag=").count(), 2, "{log}");
    }
}
