//! What the proxy's sockets did below their bytes, for Prometheus: calls, packets, what was sent again, how deep queues were.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tokenlag_probes::{Depths, SocketCounts};

use crate::usage::Watches;

/// Bucket bounds in bytes: none, then four to each power of 16, from 1 KiB to 16 MiB. Depths are kept to five bits, so a power of
/// two is exactly where it is.
const BOUNDS: [u64; 9] = [
    0,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
];

type Count = fn(&SocketCounts) -> u64;
type Sampled = fn(&SocketCounts) -> &Depths;

/// What is counted, by the names that reports use.
const COUNTS: [(&str, &str, Count); 7] = [
    (
        "socket_reads",
        "Reads of sockets that returned bytes",
        |counts| counts.reads,
    ),
    ("socket_writes", "Writes that sockets took", |counts| {
        counts.writes
    }),
    (
        "socket_packets_sent",
        "TCP segments and QUIC datagrams that were sent, handshakes, bare acknowledgements and repeats among them",
        |counts| counts.packets_sent,
    ),
    (
        "socket_packets_received",
        "TCP segments and QUIC datagrams that were received",
        |counts| counts.packets_received,
    ),
    (
        "socket_packets_retransmitted",
        "Segments that TCP sent again",
        |counts| counts.packets_retransmitted,
    ),
    (
        "socket_packets_lost",
        "Packets of QUIC that were taken for lost",
        |counts| counts.packets_lost,
    ),
    (
        "socket_congestion_events",
        "Times that QUIC took loss for congestion",
        |counts| counts.congestion_events,
    ),
];

/// What is sampled, in bytes.
const DEPTHS: [(&str, &str, Sampled); 3] = [
    (
        "socket_unsent",
        "What lay in TCP's send queue and had not been sent as a write was made; looked at every 20 ms at most",
        |counts| &counts.unsent,
    ),
    (
        "socket_queued",
        "What lay in TCP's send queue as a write was made, not sent or not acknowledged; looked at every 20 ms at most",
        |counts| &counts.queued,
    ),
    (
        "socket_congestion_window",
        "Congestion windows: TCP's as a write was made, QUIC's as they were looked at",
        |counts| &counts.windows,
    ),
];

impl Collector for Watches {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sides = [
            ("door", self.door.so_far()),
            ("upstream", self.upstream.so_far()),
        ];
        encode(encoder, &sides)
    }
}

fn encode(
    mut encoder: DescriptorEncoder<'_>,
    sides: &[(&'static str, SocketCounts)],
) -> Result<(), fmt::Error> {
    for (name, help, count) in COUNTS {
        let help = format!("{help}, by the side that they are on.");
        let mut metric = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for (side, counts) in sides {
            let label = [("side", *side)];
            let mut of_side = metric.encode_family(&label)?;
            of_side.encode_counter::<NoLabelSet, u64, u64>(&count(counts), None)?;
        }
    }
    for (name, help, sampled) in DEPTHS {
        let help = format!("{help}, by the side that the sockets are on.");
        let unit = Some(&Unit::Bytes);
        let mut metric = encoder.encode_descriptor(name, &help, unit, MetricType::Histogram)?;
        for (side, counts) in sides {
            let (buckets, sum) = buckets(sampled(counts));
            let (label, samples) = ([("side", *side)], sampled(counts).samples());
            let mut of_side = metric.encode_family(&label)?;
            of_side.encode_histogram::<NoLabelSet>(sum, samples, &buckets, None)?;
        }
    }
    Ok(())
}

/// The samples up to each of [`BOUNDS`] that are above the one before, last those above all; and their sum.
fn buckets(depths: &Depths) -> (Vec<(f64, u64)>, f64) {
    let bounds = BOUNDS.map(|bound| bound as f64).into_iter();
    let mut buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip([0; 10]).collect();
    let mut sum = 0.0;
    for (bytes, samples) in depths.iter() {
        buckets[BOUNDS.partition_point(|&bound| bound < bytes)].1 += samples;
        sum += bytes as f64 * samples as f64;
    }
    (buckets, sum)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    /// A side that did as much.
    #[derive(Debug)]
    struct Side(&'static str, SocketCounts);

    impl Collector for Side {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            super::encode(encoder, &[(self.0, self.1.clone())])
        }
    }

    #[test]
    fn what_sockets_did_is_told_by_side_with_units() {
        let mut counts = SocketCounts {
            reads: 3,
            packets_retransmitted: 2,
            ..SocketCounts::default()
        };
        for bytes in [0, 0, 1_024, 1_025, 40_000_000] {
            counts.unsent.take(bytes);
        }
        let mut registry = Registry::with_prefix("tokenlag");
        registry.register_collector(Box::new(Side("door", counts)));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE tokenlag_socket_packets_retransmitted counter",
            "# HELP tokenlag_socket_packets_retransmitted Segments that TCP sent again, by the side that they are on.",
            r#"tokenlag_socket_reads_total{side="door"} 3"#,
            r#"tokenlag_socket_packets_retransmitted_total{side="door"} 2"#,
            r#"tokenlag_socket_congestion_events_total{side="door"} 0"#,
            "# UNIT tokenlag_socket_unsent_bytes bytes",
            "# TYPE tokenlag_socket_unsent_bytes histogram",
            r#"tokenlag_socket_unsent_bytes_bucket{le="0.0",side="door"} 2"#,
            r#"tokenlag_socket_unsent_bytes_bucket{le="1024.0",side="door"} 3"#,
            r#"tokenlag_socket_unsent_bytes_bucket{le="4096.0",side="door"} 4"#,
            r#"tokenlag_socket_unsent_bytes_bucket{le="+Inf",side="door"} 5"#,
            r#"tokenlag_socket_unsent_bytes_count{side="door"} 5"#,
            r#"tokenlag_socket_queued_bytes_count{side="door"} 0"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
    }
}
