//! What the admin endpoint tells: clock, usage, configuration, distance, metrics, records, histograms.

use std::time::Duration;

use serde_json::{Value, json};
use tokenlag_channel::distance;
use tokenlag_channel::http::Incoming;
use tokenlag_probes::clock::{Clock, MonoClock, Stamp};
use tokenlag_probes::folder::recorder_log;
use tokenlag_probes::{ClockReply, TraceId};

use super::Admin;
use super::answer::{Answer, JSON, NDJSON, OPENMETRICS, PROMETHEUS, TEXT, push_line};
use crate::exposition::prometheus_text;

/// The most records of one answer of `/exchanges`; the cursor leads on to the rest.
const PAGE: usize = 4096;
/// The most deltas of one answer, or one record: with both stamps of each some 8 MB of text.
const PAGE_DELTAS: usize = 200_000;

impl Admin {
    /// Both stamps of this request and its answer, from which the asker tells how far his own clock is off.
    pub(super) fn clock(&self, received: Stamp) -> Answer {
        let mut reply = ClockReply {
            received,
            replied: received,
            clock: self.clock.clone(),
        };
        // Last: what comes before it is no part of the way.
        reply.replied = MonoClock.now();
        let mut body = Vec::with_capacity(192);
        push_line(&mut body, &reply);
        Answer::ok(JSON, body)
    }

    /// What the process used since it began.
    pub(super) fn usage(&self) -> Answer {
        let Some(usage) = self.watches.with_process(self.allocations) else {
            let why = "the system does not tell what this process used";
            return Answer::error(503, "Service Unavailable", why);
        };
        let mut body = Vec::with_capacity(1_024);
        push_line(&mut body, &usage);
        Answer::ok(JSON, body)
    }

    /// What the proxy was told, and what it found out.
    pub(super) fn config(&self) -> Answer {
        let mut config = self.config.clone();
        config.insert("upstream_api".to_owned(), json!(self.book.kinds.shown()));
        let text = format!("{:#}\n", Value::Object(config));
        Answer::ok(JSON, text)
    }

    /// How far the upstream is from here, found out anew.
    pub(super) async fn distance(&self) -> Answer {
        match distance::round_trip(self.upstream.host(), self.upstream.port()).await {
            Ok(least) => {
                let nanos = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
                let found = json!({"upstream": self.upstream.to_string(), "round_trip_ns": nanos});
                Answer::ok(JSON, format!("{found}\n"))
            }
            Err(error) => Answer::error(502, "Bad Gateway", &error.to_string()),
        }
    }

    /// OpenMetrics for those who ask for it, Prometheus' older text for all others.
    pub(super) fn metrics(&self, incoming: &Incoming) -> Answer {
        let evicted = self.book.ledger().evicted();
        let holdings = self.book.archive.holdings();
        self.book.metrics.woke(&self.stamping.take());
        let metrics = (self.book.metrics).render(evicted, holdings, &self.carried.borrow());
        let mut accepted = incoming.head.headers.all("accept");
        if accepted.any(|value| value.contains("application/openmetrics-text")) {
            Answer::ok(OPENMETRICS, metrics)
        } else {
            Answer::ok(PROMETHEUS, prometheus_text(&metrics))
        }
    }

    pub(super) fn exchanges(&self, query: &str) -> Answer {
        let mut since = 0;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (name, value.parse::<u64>(), value.parse::<TraceId>()) {
                ("since", Ok(cursor), _) => since = cursor,
                ("trace", _, Ok(trace)) => return self.one(trace),
                _ => {
                    let why = "since=CURSOR is a number, trace=ID 32 hexadecimal digits";
                    return Answer::error(400, "Bad Request", why);
                }
            }
        }
        let (page, cursor) = self.book.ledger().since(since, PAGE, PAGE_DELTAS);
        // No exchange waits for the serialising.
        let mut body = Vec::new();
        for record in page.records() {
            push_line(&mut body, &record);
        }
        push_line(&mut body, &cursor);
        Answer::ok(NDJSON, body)
    }

    fn one(&self, trace: TraceId) -> Answer {
        let mut body = Vec::new();
        let record = self.book.ledger().of_trace(trace);
        match record {
            Some(record) => push_line(&mut body, &record),
            None => {
                let why = "no finished exchange of that trace is kept (any more)";
                return Answer::error(404, "Not Found", why);
            }
        }
        Answer::ok(NDJSON, body)
    }

    pub(super) fn histograms(&self) -> Answer {
        // A copy, so that no exchange waits for the serialising.
        let recorders = self.book.recorders().clone();
        let rows = recorders
            .iter()
            .map(|(name, recorder)| (name.as_str(), recorder));
        let (started, at) = self.started;
        let lasted = Duration::from_nanos(MonoClock.now().since(at).unsigned_abs());
        match recorder_log(started, lasted, rows) {
            Ok(log) => Answer::ok(TEXT, log),
            Err(error) => Answer::error(500, "Internal Server Error", &error.to_string()),
        }
    }
}
