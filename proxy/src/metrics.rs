//! The proxy's figures for Prometheus, in OpenMetrics text.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokenlag_channel::Room;
use tokenlag_probes::metric::Metric;
use tokenlag_probes::{HopExchange, Outcome, TakenWakeups};

use crate::archive::Holdings;
use crate::carried::{ByChannel, COUNTS};
use crate::labels::{Ended, OfChannel, OfDoor, OfTrace, Refused, TunnelEnd};
use crate::usage::Watches;
use crate::wakeups::WakeupSpans;

/// Bucket bounds in seconds: four to a decade, from 10 microseconds to 100 seconds.
pub(crate) const BOUNDS: [f64; 29] = [
    1e-5, 1.8e-5, 3.2e-5, 5.6e-5, 1e-4, 1.8e-4, 3.2e-4, 5.6e-4, 1e-3, 1.8e-3, 3.2e-3, 5.6e-3, 1e-2,
    1.8e-2, 3.2e-2, 5.6e-2, 0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0, 18.0, 32.0, 56.0,
    100.0,
];

/// What Prometheus is told.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    exchanges: Family<Ended, Counter>,
    deltas: Family<OfChannel, Counter>,
    active: Family<OfChannel, Gauge>,
    /// What every exchange counts, by its channel: in a family it would be looked for with a name and a hash each time.
    channels: Mutex<Vec<Usual>>,
    refused: Family<Refused, Counter>,
    tunnels: Family<TunnelEnd, Counter>,
    tunnels_open: Gauge,
    held: Family<OfDoor, Gauge>,
    /// What is asked at each door of how much its requests hold.
    rooms: Vec<(&'static str, Arc<Room>)>,
    evicted: Counter,
    responses: Gauge,
    response_bytes: Gauge,
    responses_evicted: Counter,
    /// One for each of [`COUNTS`].
    upstream: [Family<OfChannel, Counter>; COUNTS.len()],
    figures: Vec<(Metric, Family<OfChannel, Histogram>)>,
    wakeups: WakeupSpans,
    unstamped: Counter,
}

type Histogram = HistogramWithExemplars<OfTrace>;

/// What every exchange of one channel counts.
#[derive(Debug)]
struct Usual {
    channel: String,
    active: Gauge,
    complete: Counter,
    deltas: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tokenlag");
        let exchanges = Family::default();
        registry.register(
            "exchanges",
            "Exchanges that ended, by the client's channel and how they ended",
            Family::clone(&exchanges),
        );
        let deltas = Family::default();
        registry.register(
            "deltas",
            "Deltas that were relayed, by the client's channel",
            Family::clone(&deltas),
        );
        let active = Family::default();
        registry.register(
            "active_exchanges",
            "Exchanges under way, by the client's channel",
            Family::clone(&active),
        );
        let refused = Family::default();
        registry.register(
            "refused",
            "What was turned away at a door for what it sent or for how long it took",
            Family::clone(&refused),
        );
        let tunnels = Family::default();
        registry.register(
            "tunnels",
            "Upgrades to protocols that are not read here, by how they ended",
            Family::clone(&tunnels),
        );
        let tunnels_open = Gauge::default();
        registry.register(
            "tunnels_open",
            "Upgrades to protocols that are not read here, asked for or open",
            tunnels_open.clone(),
        );
        let held = Family::default();
        registry.register_with_unit(
            "requests_held",
            "Memory of requests under way and of what WebSockets keep, by the port that they came to",
            Unit::Bytes,
            Family::clone(&held),
        );
        let evicted = Counter::default();
        registry.register(
            "exchanges_evicted",
            "Records that left the bounded ledger to make room",
            evicted.clone(),
        );
        let responses = Gauge::default();
        registry.register(
            "responses_kept",
            "Finished responses that a request can go on from by naming them",
            responses.clone(),
        );
        let response_bytes = Gauge::default();
        registry.register_with_unit(
            "responses_kept",
            "What their conversations take",
            Unit::Bytes,
            response_bytes.clone(),
        );
        let responses_evicted = Counter::default();
        registry.register(
            "responses_evicted",
            "Finished responses that were forgotten to make room",
            responses_evicted.clone(),
        );
        let upstream = COUNTS.map(|(name, help)| {
            let family = Family::default();
            let name = format!("upstream_{name}");
            registry.register(name, help, Family::clone(&family));
            family
        });
        let measured = [
            Metric::ModelTtft,
            Metric::ModelTime,
            Metric::ProxyRequest,
            Metric::ProxyToken,
        ];
        let figures = measured.map(|metric| {
            let family: Family<OfChannel, Histogram> =
                Family::new_with_constructor(|| Histogram::new(BOUNDS.into_iter()));
            let (name, help) = (metric.name(), metric.description().trim_end_matches('.'));
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            (metric, family)
        });
        let wakeups = WakeupSpans::default();
        registry.register_with_unit(
            "upstream_wakeup",
            "From when the kernel received what the upstream sent until it was read, where the kernel stamps it",
            Unit::Seconds,
            wakeups.clone(),
        );
        let unstamped = Counter::default();
        registry.register(
            "upstream_unstamped_reads",
            "Reads of the upstream for which the kernel was asked for a stamp and gave none that can be trusted",
            unstamped.clone(),
        );
        Self {
            registry,
            exchanges,
            deltas,
            active,
            channels: Mutex::default(),
            refused,
            tunnels,
            tunnels_open,
            held,
            rooms: Vec::new(),
            evicted,
            responses,
            response_bytes,
            responses_evicted,
            upstream,
            figures: figures.into(),
            wakeups,
            unstamped,
        }
    }
}

impl Metrics {
    /// An exchange is under way until the guard is dropped.
    pub(crate) fn begin(&self, channel: &str) -> Active {
        let gauge = self.usual(channel, |usual| usual.active.clone());
        gauge.inc();
        Active(gauge)
    }

    /// Counts with what every exchange of that channel counts.
    fn usual<T>(&self, channel: &str, count: impl FnOnce(&Usual) -> T) -> T {
        // Nothing panics under the lock.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.iter().find(|known| known.channel == channel) {
            return count(known);
        }
        let of = OfChannel {
            channel: channel.to_owned(),
        };
        let usual = Usual {
            channel: channel.to_owned(),
            active: self.active.get_or_create(&of).clone(),
            complete: self
                .exchanges
                .get_or_create(&Ended::so(channel, Outcome::Complete))
                .clone(),
            deltas: self.deltas.get_or_create(&of).clone(),
        };
        let counted = count(&usual);
        channels.push(usual);
        counted
    }

    /// Something was turned away at a door (`tcp`, `tls`, `http1`, `http2`, `ws`, `udp`, `quic`, `http3`), for one of the
    /// few reasons that the door has: they become a label.
    #[allow(dead_code, reason = "each door counts its own")]
    pub(crate) fn refused(&self, door: &'static str, reason: &'static str) {
        self.refused_many(door, reason, 1);
    }

    /// The same, several times at once.
    pub(crate) fn refused_many(&self, door: &'static str, reason: &'static str, times: u64) {
        let counter = self.refused.get_or_create(&Refused { door, reason });
        counter.inc_by(times);
    }

    /// Tells from now on how much the requests of a door (`tcp`, `udp`) hold.
    pub(crate) fn tell_room(&mut self, door: &'static str, room: &Arc<Room>) {
        self.rooms.push((door, Arc::clone(room)));
    }

    /// Tells from now on what the proxy's sockets did below their bytes.
    pub(crate) fn tell_sockets(&mut self, watches: &Watches) {
        self.registry.register_collector(Box::new(watches.clone()));
    }

    /// A tunnel is open, or asked for, until the guard is dropped.
    pub(crate) fn begin_tunnel(&self) -> Active {
        self.tunnels_open.inc();
        Active(self.tunnels_open.clone())
    }

    /// A tunnel ended, for one of few reasons: they become a label.
    pub(crate) fn tunnel_ended(&self, end: &'static str) {
        self.tunnels.get_or_create(&TunnelEnd { end }).inc();
    }

    pub(crate) fn finished(&self, record: &HopExchange, figures: &[(Metric, i64)]) {
        let whole = record.outcome == Outcome::Complete;
        self.usual(&record.channel, |usual| {
            usual.complete.inc_by(whole.into());
            usual.deltas.inc_by(record.out_token.len() as u64);
        });
        if !whole {
            let ended = Ended::so(&record.channel, record.outcome);
            self.exchanges.get_or_create(&ended).inc();
        }
        if figures.is_empty() {
            return;
        }
        let channel = OfChannel {
            channel: record.channel.to_string(),
        };
        for &(metric, nanos) in figures {
            let family = self.figures.iter().find(|(known, _)| *known == metric);
            if let Some((_, family)) = family {
                let trace = record.trace.map(|trace| OfTrace {
                    trace_id: trace.to_string(),
                });
                let seconds = nanos as f64 / 1e9;
                family.get_or_create(&channel).observe(seconds, trace, None);
            }
        }
    }

    /// Adds what the reads of the upstream booked since they were asked last.
    pub(crate) fn woke(&self, taken: &TakenWakeups) {
        self.wakeups.add(taken);
        self.unstamped.inc_by(taken.unstamped);
    }

    /// The exposition, in OpenMetrics text; `carried` is what all connections to the upstream carried.
    pub(crate) fn render(&self, evicted: u64, holdings: Holdings, carried: &ByChannel) -> String {
        let reach = |counter: &Counter, total: u64| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        reach(&self.evicted, evicted);
        reach(&self.responses_evicted, holdings.evicted);
        for (transport, carried) in carried {
            let channel = OfChannel {
                channel: transport.to_string(),
            };
            for (family, count) in self.upstream.iter().zip(carried.0) {
                reach(&family.get_or_create(&channel), count);
            }
        }
        for (door, room) in &self.rooms {
            let held = self.held.get_or_create(&OfDoor { door });
            held.set(room.used() as i64);
        }
        self.responses.set(holdings.responses as i64);
        self.response_bytes.set(holdings.bytes as i64);
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a String takes every text");
        out
    }
}

/// Counts an exchange as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct Active(Gauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_counted_by_door_and_reason() {
        let metrics = Metrics::default();
        metrics.refused("tcp", "garbage");
        metrics.refused("tcp", "garbage");
        metrics.refused("ws", "too_large");
        let text = metrics.render(0, Holdings::default(), &ByChannel::new());
        for line in [
            r#"tokenlag_refused_total{door="tcp",reason="garbage"} 2"#,
            r#"tokenlag_refused_total{door="ws",reason="too_large"} 1"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{text}");
        }
    }
}
