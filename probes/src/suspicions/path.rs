//! Something between the two ends that holds tokens back: a hop that buffers, or one whose small writes wait for an
//! acknowledgement (Nagle's algorithm).

use crate::metric::Metric;
use crate::recorder::Recorder;
use crate::row::Row;
use crate::verdict::Warning;

use super::{millis, warning};

/// A hop that buffers takes at least this share of the model's gap out of at least `BUNCHED_GAPS` of the gaps, and leaves no
/// more of the median gap.
const BUNCHED_SHARE: f64 = 0.5;
const BUNCHED_GAPS: f64 = 0.4;

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

/// What is wrong with a row's path. One whose writes wait for acknowledgements bunches deltas too: that is the cause then.
pub(super) fn suspect(row: Row, recorder: &Recorder) -> Option<Warning> {
    nagle(row, recorder).or_else(|| buffering_hop(row, recorder))
}

/// The signature of Nagle's algorithm: a small segment waits until the one before it is acknowledged, and the other end puts
/// that off, in the hope of something to send with it (RFC 9293, section 3.7.4; RFC 1122, section 4.2.3.2). Linux does so on
/// a connection on which question and answer take turns, once in each: at the request's second segment, or at the reply's.
fn nagle(row: Row, recorder: &Recorder) -> Option<Warning> {
    // What a way takes where nothing waits: that of a request is told by that of the deltas, since on a connection that
    // lasts each of its requests may wait.
    let way = recorder.summary(Metric::TokenOverhead)?.min.max(0);
    let (leg, delayed, all) = [Metric::RequestTransfer, Metric::Delivery]
        .into_iter()
        .filter_map(|leg| {
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
            stands_out.then_some((leg, delayed, waits.count()))
        })
        .max_by_key(|(_, delayed, _)| *delayed)?;
    warning(
        "nagle",
        format!(
            "small writes on the path of {row} wait for acknowledgements: the {leg} of {delayed} of {all} exchanges took \
             {} to {} longer than the way of a delta ({}), which is how long an acknowledgement is put off",
            millis(DELAYED_FROM as f64),
            millis(DELAYED_TO as f64),
            millis(way as f64)
        ),
        "set TCP_NODELAY on the sockets of the hop between (haproxy: option http-no-delay; nginx: tcp_nodelay on), or have it \
         write each message at once",
    )
}

/// The signature of a hop that buffers: the median gap falls, by what as many gaps shrank, and the first token is held back as
/// long. A link that only jitters leaves the median gap as it is, and a model that sends in bursts shrinks no gap.
fn buffering_hop(row: Row, recorder: &Recorder) -> Option<Warning> {
    let tallies = recorder.tallies();
    let bunched = recorder.summary(Metric::GapBunch)?;
    let stretched = recorder.histogram(Metric::GapStretch).count();
    let gap = recorder.summary(Metric::Itl)?.p50 as f64;
    let gaps_per_exchange = tallies.deltas as f64 / tallies.completed as f64 - 1.0;
    let model_time = recorder.summary(Metric::ModelTime)?.mean;
    let model_gap = (model_time - recorder.summary(Metric::ModelTtft)?.mean) / gaps_per_exchange;
    let held = recorder.summary(Metric::FirstTokenOverhead)?.p50 as f64;

    let share = bunched.count as f64 / (bunched.count + stretched) as f64;
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

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
