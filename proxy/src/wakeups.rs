//! How long what the upstream sent lay in the kernel until it was read, for Prometheus.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokenlag_probes::TakenWakeups;

use crate::metrics::BOUNDS;

/// A histogram of spans in seconds that grows by many at a time: there is one for each read. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WakeupSpans(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// Spans up to each of [`BOUNDS`] that are above the one before, and last those above all.
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
    count: u64,
}

impl WakeupSpans {
    /// Adds what the reads booked since they were asked last.
    pub(crate) fn add(&self, taken: &TakenWakeups) {
        // Nothing panics under the lock.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &(nanos, reads) in &taken.spans {
            let seconds = nanos as f64 / 1e9;
            counts.buckets[BOUNDS.partition_point(|&bound| bound < seconds)] += reads;
            counts.sum += seconds * reads as f64;
            counts.count += reads;
        }
    }
}

impl EncodeMetric for WakeupSpans {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(counts.sum, counts.count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    #[test]
    fn reads_are_counted_by_how_long_they_were_waited_for() {
        let spans = WakeupSpans::default();
        let mut registry = Registry::default();
        registry.register_with_unit("wakeup", "Of each read", Unit::Seconds, spans.clone());
        let taken = |spans: &[(u64, u64)]| TakenWakeups {
            spans: spans.to_vec(),
            ..TakenWakeups::default()
        };
        spans.add(&taken(&[(10_000, 2), (10_001, 1)]));
        spans.add(&taken(&[(200_000_000_000, 1)]));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"wakeup_seconds_bucket{le="0.00001"} 2"#,
            r#"wakeup_seconds_bucket{le="0.000018"} 3"#,
            r#"wakeup_seconds_bucket{le="+Inf"} 4"#,
            "wakeup_seconds_count 4",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
    }
}
