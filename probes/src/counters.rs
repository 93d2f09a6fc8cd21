//! What is counted per cell and belongs to no single exchange: bytes, reads, connections, handshakes, CPU time, waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long the threads of a process stood ready to run and did not: the second and third field of `/proc/<pid>/task/<tid>/schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunQueue {
    /// Nanoseconds spent waiting for a core, summed over the threads.
    pub delay_ns: u64,
    /// How often a thread was given a core.
    pub timeslices: u64,
}

impl RunQueue {
    /// Mean wait for a core, in nanoseconds; `None` where no thread ran.
    pub fn mean_delay_ns(&self) -> Option<f64> {
        (self.timeslices > 0).then(|| self.delay_ns as f64 / self.timeslices as f64)
    }

    /// What was waited since `earlier`.
    pub fn since(&self, earlier: &RunQueue) -> RunQueue {
        RunQueue {
            delay_ns: self.delay_ns.saturating_sub(earlier.delay_ns),
            timeslices: self.timeslices.saturating_sub(earlier.timeslices),
        }
    }

    /// Adds what `other` waited.
    pub fn add(&mut self, other: &RunQueue) {
        self.delay_ns = self.delay_ns.saturating_add(other.delay_ns);
        self.timeslices = self.timeslices.saturating_add(other.timeslices);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $share:ident;)+) => {
        /// Counts of one cell, or sums of them. `None`: was not measured, which is not zero.
        ///
        /// All are differences over the cell's own time, and whole: reports divide them per token where that says more.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<u64>,)+
            /// Waits for a core of the load generator's threads.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub client_run_queue: Option<RunQueue>,
            /// Waits for a core of the proxy's threads.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub proxy_run_queue: Option<RunQueue>,
        }

        impl Counters {
            /// Adds what `other` counted.
            pub fn add(&mut self, other: &Counters) {
                $(if let Some(count) = other.$name {
                    let sum = self.$name.get_or_insert_default();
                    *sum = sum.saturating_add(count);
                })+
                if let Some(queue) = &other.client_run_queue {
                    self.client_run_queue.get_or_insert_default().add(queue);
                }
                if let Some(queue) = &other.proxy_run_queue {
                    self.proxy_run_queue.get_or_insert_default().add(queue);
                }
            }

            /// What was counted since `earlier`, where both say it.
            pub fn since(&self, earlier: &Counters) -> Counters {
                Counters {
                    $($name: self.$name.zip(earlier.$name).map(|(now, then)| now.saturating_sub(then)),)+
                    client_run_queue: self.client_run_queue.zip(earlier.client_run_queue).map(|(now, then)| now.since(&then)),
                    proxy_run_queue: self.proxy_run_queue.zip(earlier.proxy_run_queue).map(|(now, then)| now.since(&then)),
                }
            }

            /// The counts as a report shows them, by name: whole, or divided by `tokens` under `<name>_per_token`.
            ///
            /// What was not measured is absent, and so is a share of no tokens.
            pub fn shown(&self, tokens: u64) -> BTreeMap<String, f64> {
                let mut shown = BTreeMap::new();
                let shared = Shared { tokens, connections: self.connections_opened.unwrap_or(0) };
                $(show(&mut shown, stringify!($name), Share::$share, self.$name, shared);)+
                for (name, queue) in [
                    ("client_run_queue_delay_ns", &self.client_run_queue),
                    ("proxy_run_queue_delay_ns", &self.proxy_run_queue),
                ] {
                    if let Some(delay) = queue.as_ref().and_then(RunQueue::mean_delay_ns) {
                        shown.insert(name.to_owned(), delay);
                    }
                }
                shown
            }
        }
    };
}

counters! {
    /// Bytes that the client's sockets sent: payload of TCP, TLS included, or of UDP.
    wire_bytes_sent, PerToken;
    /// Bytes that the client's sockets received: payload of TCP, TLS included, or of UDP.
    wire_bytes_received, PerToken;
    /// Bytes that the client sent inside its channels: what the protocol carries once encryption and the transport's own
    /// packets are taken off. On TCP the plaintext, so without TLS the wire's bytes; on QUIC the bytes of all streams.
    channel_bytes_sent, PerToken;
    /// Bytes that the client received inside its channels.
    channel_bytes_received, PerToken;
    /// Reads of the client's sockets that returned bytes.
    reads, PerToken;
    /// Reads of the client's sockets whose bytes have the kernel's stamp.
    kernel_stamps, Whole;
    /// Reads that should have had it, and have their own: the kernel gave none, or none that can be trusted.
    kernel_stamps_missing, Whole;
    /// Reads of which it was no longer known when the kernel received their bytes as their deltas were decoded: more had come
    /// since than are remembered. What they waited for the read counts as waiting for the runtime.
    kernel_stamps_forgotten, Whole;
    /// Writes to the client's sockets.
    writes, PerToken;
    /// Connections that the client opened.
    connections_opened, Whole;
    /// Cryptographic handshakes that the client completed, resumed ones among them: TLS's, and those in QUIC.
    handshakes_made, Whole;
    /// Handshakes that resumed a session made before.
    handshakes_resumed, Whole;
    /// Handshakes whose early data (0-RTT) the other end accepted.
    early_data_accepted, Whole;
    /// Packets that the client sent: TCP's segments as the kernel counts them, or QUIC's datagrams.
    packets_sent, PerToken;
    /// Packets that the client received.
    packets_received, PerToken;
    /// TCP's segments that the client sent again.
    packets_retransmitted, Whole;
    /// QUIC packets of its own that the client took for lost.
    packets_lost, Whole;
    /// Times that QUIC's congestion controller at the client took loss for congestion.
    congestion_events, Whole;
    /// QUIC's congestion windows at the client, in bytes, as the connections ended, added up; shown as their mean.
    congestion_windows, PerConnection;
    /// Reads of the proxy's sockets that returned bytes, of those to clients and to upstreams.
    proxy_reads, PerToken;
    /// Writes to those.
    proxy_writes, PerToken;
    /// Packets that the proxy sent, to clients and upstreams.
    proxy_packets_sent, PerToken;
    /// Packets that the proxy received.
    proxy_packets_received, PerToken;
    /// TCP's segments that the proxy sent again: tokens, and requests to the upstream.
    proxy_packets_retransmitted, Whole;
    /// QUIC packets that the proxy took for lost.
    proxy_packets_lost, Whole;
    /// Times that QUIC's congestion controller at the proxy took loss for congestion.
    proxy_congestion_events, Whole;
    /// CPU time of the load generator's measuring thread, user and system.
    client_cpu_ns, PerToken;
    /// What of it the thread was in user mode, as the kernel shares it out.
    client_cpu_user_ns, PerToken;
    /// What of it the thread was in the kernel.
    client_cpu_system_ns, PerToken;
    /// CPU time of the proxy, user and system.
    proxy_cpu_ns, PerToken;
    /// What of it the proxy's threads were in user mode, as the kernel shares it out.
    proxy_cpu_user_ns, PerToken;
    /// What of it the proxy's threads were in the kernel.
    proxy_cpu_system_ns, PerToken;
    /// Context switches of the load generator's measuring thread, voluntary and not.
    client_context_switches, PerToken;
    /// Those that it did not ask for: another thread was given its core.
    client_involuntary_switches, PerToken;
    /// Context switches of the proxy, voluntary and not.
    proxy_context_switches, PerToken;
    /// Those that its threads did not ask for.
    proxy_involuntary_switches, PerToken;
    /// Allocations of the load generator's process. Counted where that was built in.
    client_allocations, PerToken;
    /// Allocations of the proxy's process. Counted where that was built in.
    proxy_allocations, PerToken;
}

enum Share {
    Whole,
    PerToken,
    /// Under the name of one of them.
    PerConnection,
}

fn show(
    shown: &mut BTreeMap<String, f64>,
    name: &str,
    share: Share,
    count: Option<u64>,
    of: Shared,
) {
    let Some(count) = count else { return };
    let (name, among) = match share {
        Share::Whole => (name.to_owned(), 1),
        Share::PerToken => (format!("{name}_per_token"), of.tokens),
        Share::PerConnection => (name.trim_end_matches('s').to_owned(), of.connections),
    };
    if among > 0 {
        shown.insert(name, count as f64 / among as f64);
    }
}

/// Among what counts are shared.
#[derive(Clone, Copy)]
struct Shared {
    tokens: u64,
    connections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_stays_absent_and_is_not_zero() {
        let mut sum = Counters {
            wire_bytes_received: Some(100),
            ..Counters::default()
        };
        sum.add(&Counters {
            wire_bytes_received: Some(20),
            connections_opened: Some(0),
            ..Counters::default()
        });
        let shown = sum.shown(40);
        assert_eq!(shown["wire_bytes_received_per_token"], 3.0);
        assert_eq!(shown["connections_opened"], 0.0);
        assert_eq!(shown.len(), 2);
        assert_eq!(sum.shown(0).len(), 1, "no share of no tokens");
    }

    #[test]
    fn a_difference_is_known_where_both_ends_are() {
        let before = Counters {
            reads: Some(3),
            writes: Some(9),
            ..Counters::default()
        };
        let after = Counters {
            reads: Some(10),
            connections_opened: Some(1),
            ..Counters::default()
        };
        let expected = Counters {
            reads: Some(7),
            ..Counters::default()
        };
        assert_eq!(after.since(&before), expected);
    }

    #[test]
    fn bytes_inside_the_channel_stand_beside_those_on_the_wire() {
        let sum = Counters {
            wire_bytes_sent: Some(300),
            channel_bytes_sent: Some(200),
            channel_bytes_received: Some(0),
            handshakes_made: Some(4),
            handshakes_resumed: Some(3),
            ..Counters::default()
        };
        let shown = sum.shown(100);
        assert_eq!(shown["wire_bytes_sent_per_token"], 3.0);
        assert_eq!(shown["channel_bytes_sent_per_token"], 2.0);
        assert_eq!(shown["channel_bytes_received_per_token"], 0.0);
        assert!(!shown.contains_key("wire_bytes_received_per_token"));
        assert_eq!(
            (shown["handshakes_made"], shown["handshakes_resumed"]),
            (4.0, 3.0)
        );
        assert!(!shown.contains_key("early_data_accepted"));
    }

    #[test]
    fn run_queue_delay_is_a_mean_over_the_waits() {
        let mut sum = Counters::default();
        for delay_ns in [1_000, 5_000] {
            sum.add(&Counters {
                proxy_run_queue: Some(RunQueue {
                    delay_ns,
                    timeslices: 2,
                }),
                ..Counters::default()
            });
        }
        assert_eq!(sum.shown(1)["proxy_run_queue_delay_ns"], 1_500.0);
    }

    #[test]
    fn counters_survive_json() {
        let counters = Counters {
            reads: Some(7),
            client_run_queue: Some(RunQueue::default()),
            ..Counters::default()
        };
        let json = serde_json::to_string(&counters).unwrap();
        assert_eq!(serde_json::from_str::<Counters>(&json).unwrap(), counters);
    }
}
