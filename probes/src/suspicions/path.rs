//! Something between the two ends that holds tokens back: a hop that buffers, or one whose small writes wait for an
//! acknowledgement (Nagle's algorithm).

use crate::metric::Metric;
use crate::record::RunRecord;
use crate::recorder::Recorder;
use crate::row::{Row, Transport};
use crate::verdict::Warning;

use super::{millis, warning};

/// A hop that buffers takes at least this share of the model's gap out of at least `BUNCHED_GAPS` of the gaps, and leaves no
/// more of the median gap.
const BUNCHED_SHARE: f64 = 0.5;
const BUNCHED_GAPS: f64 = 0.4;

/// The load generator's thread ran, or waited for a core, for this share of the time: what it reads together may have come
/// one by one.
const BUSY: f64 = 0.5;

/// How long Linux puts an acknowledgement off that it could send with data: `TCP_DELACK_MIN`, 40 ms, and a tick or two. Its
/// timers tick every 1 to 10 ms; and a segment that followed the first a little later waits so much less.
const DELAYED_FROM: i64 = 36_000_000;
const DELAYED_TO: i64 = 52_000_000;
/// So many exchanges, and this share of a row's, must have waited so long.
const FEWEST_DELAYED: u64 = 3;
const DELAYED_SHARE: f64 = 0.1;
/// Waits of that length must be so many times as frequent as those a little shorter, and a little longer: queues and radio
/// links have all lengths.
const STANDS_OUT: u64 = 3;

/// A round trip from which on the few extra ones of slow start add up to a delayed acknowledgement, in nanoseconds.
const LONG_WAY: i64 = 5_000_000;
/// Bytes that leave at once on a new connection are 14,600 or so (ten segments, RFC 6928). Of exchanges whose history grows
/// the longest sends twice the mean.
const SENT_AT_ONCE: f64 = 7_000.0;
/// An offset that is known no better, and a way that the floor falls short of by more, say nothing of a wait, in nanoseconds.
const KNOWN_TO: i64 = 5_000_000;

/// What is wrong with a row's path. One whose writes wait for acknowledgements bunches deltas too: that is the cause then.
pub(super) fn suspect(record: &RunRecord, row: Row, recorder: &Recorder) -> Option<Warning> {
    // Between the ends of an emulated link there is no hop: what comes late there comes late by the link.
    if record.floor.is_some_and(|floor| floor.is_of_a_link()) {
        return None;
    }
    nagle(record, row, recorder).or_else(|| buffering_hop(record, row, recorder))
}

/// The signature of Nagle's algorithm: a small segment waits until the one before it is acknowledged, and the other end puts
/// that off, in the hope of something to send with it (RFC 9293, section 3.7.4; RFC 1122, section 4.2.3.2). Linux does so on
/// a connection on which question and answer take turns, once in each: at the request's second segment, or at the reply's.
fn nagle(record: &RunRecord, row: Row, recorder: &Recorder) -> Option<Warning> {
    if is_on_udp(row.transport) {
        return None;
    }
    // On a connection that lasts each of its requests may wait, so the quickest of them tells nothing.
    let down = recorder.summary(Metric::TokenOverhead)?.min;
    let up = quickest_request(record, row, recorder, down);
    let legs = [
        (Metric::RequestTransfer, up),
        (Metric::Delivery, Some(down)),
    ];
    let (leg, way, delayed, all) = legs
        .into_iter()
        .filter_map(|(leg, way)| {
            let way = way?;
            let waits = recorder.histogram(leg);
            let within = |from: i64, to: i64| waits.count_within(way + from, way + to);
            let delayed = within(DELAYED_FROM, DELAYED_TO);
            let width = DELAYED_TO - DELAYED_FROM;
            let beside = within(DELAYED_FROM - width, DELAYED_FROM)
                .max(within(DELAYED_TO, DELAYED_TO + width));
            let share = delayed as f64 / waits.count() as f64;
            let stands_out = delayed >= FEWEST_DELAYED
                && share >= DELAYED_SHARE
                && delayed >= STANDS_OUT * beside;
            stands_out.then_some((leg, way, delayed, waits.count()))
        })
        .max_by_key(|(.., delayed, _)| *delayed)?;
    warning(
        "nagle",
        format!(
            "small writes on the path of {row} wait for acknowledgements: the {leg} of {delayed} of {all} exchanges took \
             {} to {} longer than the way there by itself ({}), which is how long an acknowledgement is put off",
            millis(DELAYED_FROM as f64),
            millis(DELAYED_TO as f64),
            millis(way as f64)
        ),
        "set TCP_NODELAY on the sockets of the hop between (haproxy: option http-no-delay; nginx: tcp_nodelay on), or have it \
         write each message at once",
    )
}

/// The way between the two ends goes by QUIC, which has no such algorithm.
const fn is_on_udp(transport: Transport) -> bool {
    matches!(
        transport,
        Transport::Quic | Transport::Http3 | Transport::PairQuic | Transport::PairHttp3
    )
}

/// How long a request is on its way where no write waits, in nanoseconds: what the quickest delta, which took `down`, leaves
/// of a round trip, and no less than that delta. `None` where that is not known, or where something else makes requests
/// late by as much.
fn quickest_request(record: &RunRecord, row: Row, recorder: &Recorder, down: i64) -> Option<i64> {
    let round_trip = i64::try_from(record.floor?.round_trip_ns).ok()?;
    let unknown = record.clock_uncertainty_ns(row).unwrap_or(0);
    // A delta that takes longer than a round trip came from behind the hop that answered.
    if unknown >= KNOWN_TO.unsigned_abs() || down.saturating_sub(round_trip) > KNOWN_TO {
        return None;
    }
    // What does not leave at once waits for whole round trips: that is slow start, and no acknowledgement is put off.
    let leaves_at_once = || Some(sent_by_exchange(record, row, recorder)? <= SENT_AT_ONCE);
    if round_trip.max(down) >= LONG_WAY && leaves_at_once() != Some(true) {
        return None;
    }
    Some(down.max(round_trip.saturating_sub(down)))
}

/// Bytes that an exchange of the row sent over the way that is measured, on average; of a pair between its sidecars.
fn sent_by_exchange(record: &RunRecord, row: Row, recorder: &Recorder) -> Option<f64> {
    let leg = || record.leg_of(row)?.wire_bytes_sent;
    let sent = leg().or_else(|| record.counters_of(row).wire_bytes_sent)?;
    Some(sent as f64 / recorder.tallies().exchanges() as f64)
}

/// The signature of a hop that buffers: the median gap falls, by what as many gaps shrank, and the first token is held back as
/// long. A link that only jitters leaves the median gap as it is, and a model that sends in bursts shrinks no gap.
fn buffering_hop(record: &RunRecord, row: Row, recorder: &Recorder) -> Option<Warning> {
    let tallies = recorder.tallies();
    let bunched = recorder.summary(Metric::GapBunch)?;
    let stretched = recorder.histogram(Metric::GapStretch).count();
    let gap = recorder.summary(Metric::Itl)?.p50 as f64;
    let gaps_per_exchange = tallies.deltas as f64 / tallies.completed as f64 - 1.0;
    let model_time = recorder.summary(Metric::ModelTime)?.mean;
    let model_gap = (model_time - recorder.summary(Metric::ModelTtft)?.mean) / gaps_per_exchange;
    // A long way holds the first token as it holds all others.
    let round_trip = record.floor.map_or(0, |floor| floor.round_trip_ns);
    let held = recorder.summary(Metric::FirstTokenOverhead)?.p50 as f64 - round_trip as f64;

    let read_late = match is_busy(record, row) {
        true => tallies.coalesced,
        false => 0,
    };
    let shrank = bunched.count.saturating_sub(read_late);
    let share = shrank as f64 / (bunched.count + stretched) as f64;
    let by = BUNCHED_SHARE * model_gap;
    let buffers = model_gap > 0.0
        && share >= BUNCHED_GAPS
        && bunched.p50 as f64 >= by
        && gap <= model_gap - by
        && held >= by;
    if !buffers {
        return None;
    }
    warning(
        "buffering_hop",
        format!(
            "something on the path of {row} buffers: {:.0} % of the gaps between deltas shrank, by {} at the median, where the \
             model's gap is {} and half of those that arrived are at most {}, and the first token was held for {}",
            share * 100.0,
            millis(bunched.p50 as f64),
            millis(model_gap),
            millis(gap),
            millis(held)
        ),
        "turn buffering and compression of streams off at the hop between (nginx: proxy_buffering off)",
    )
}

/// The load generator had no time to read each delta as it came, so that those it read together are no hop's.
pub(super) fn is_busy(record: &RunRecord, row: Row) -> bool {
    let counters = record.counters_of(row);
    let waited = counters.client_run_queue.map_or(0, |queue| queue.delay_ns);
    let wanted = counters.client_cpu_ns.unwrap_or(0).saturating_add(waited);
    wanted as f64 > BUSY * record.measured_ns(row) as f64
}

/// The proxies mostly waited, all together: where that is not known they may not have.
pub(super) fn are_proxies_idle(record: &RunRecord, row: Row) -> bool {
    let counters = record.counters_of(row);
    let Some(used) = counters.proxy_cpu_ns else {
        return false;
    };
    let waited = counters.proxy_run_queue.map_or(0, |queue| queue.delay_ns);
    let wanted = used.saturating_add(waited);
    wanted as f64 <= BUSY * record.measured_ns(row) as f64
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
