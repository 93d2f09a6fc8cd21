//! What the proxy's threads share: the books of finished exchanges (ledger, histograms, metrics), touched once an exchange,
//! after its last byte was written, the archive of finished responses, and what is known of the upstream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokenlag_probes::metric::Metric;
use tokenlag_probes::{HopExchange, Outcome, Recorder};

use crate::archive::Archive;
use crate::kind::Kinds;
use crate::ledger::{Finished, Ledger};
use crate::metrics::Metrics;
use crate::options::ProxyOptions;
use crate::upstream;

/// Shared by the proxy's threads.
#[derive(Debug)]
pub(crate) struct Book {
    ledger: Mutex<Ledger>,
    /// One recorder a channel.
    recorders: Mutex<BTreeMap<String, Recorder>>,
    pub(crate) metrics: Metrics,
    /// What can be gone on from.
    pub(crate) archive: Arc<Archive>,
    /// What the upstream speaks.
    pub(crate) kinds: Kinds,
}

impl Book {
    pub(crate) fn new(options: &ProxyOptions) -> Self {
        let upstream = options.upstream.clone();
        Self {
            ledger: Mutex::new(Ledger::new(options.exchanges, options.deltas)),
            recorders: Mutex::new(BTreeMap::new()),
            metrics: Metrics::default(),
            archive: Arc::new(Archive::new(options.state_limits)),
            kinds: Kinds::new(options.upstream_api, upstream, upstream::dial(options)),
        }
    }

    pub(crate) fn enter(&self, record: HopExchange) {
        let figures = figures(&record);
        self.metrics.finished(&record, &figures);
        if !figures.is_empty() {
            let mut recorders = self.recorders();
            // A look-up first: the name is allocated once a channel, not once an exchange.
            if !recorders.contains_key(&*record.channel) {
                recorders.insert(record.channel.to_string(), Recorder::new());
            }
            if let Some(recorder) = recorders.get_mut(&*record.channel) {
                for &(metric, nanos) in &figures {
                    recorder.record(metric, nanos);
                }
            }
        }
        let finished = Finished::of(&record);
        self.ledger().push(finished);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A thread that panicked while it held the lock left whole records behind.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn recorders(&self) -> MutexGuard<'_, BTreeMap<String, Recorder>> {
        self.recorders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the proxy can say of an exchange without the client's stamps. Only replies that brought deltas to their end are
/// measured: failures are counted, and a health check is no model.
fn figures(record: &HopExchange) -> Vec<(Metric, i64)> {
    let measured =
        record.outcome == Outcome::Complete && !record.overlapped && !record.up_token.is_empty();
    let Some(written) = record.up_written.filter(|_| measured) else {
        return Vec::new();
    };
    let mut figures = Vec::with_capacity(4);
    figures.push((Metric::ProxyRequest, written.since(record.in_body)));
    if let Some(first) = record.up_token.first() {
        figures.push((Metric::ModelTtft, first.since(written)));
        if let Some(out) = record.out_token.first() {
            figures.push((Metric::ProxyToken, out.since(*first)));
        }
    }
    if let Some(end) = record.up_end {
        figures.push((Metric::ModelTime, end.since(written)));
    }
    figures
}
