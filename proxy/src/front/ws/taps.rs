//! Taps of the responses that pass between two joined sockets: which message belongs to which of them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use tokenlag_channel::Chunk;
use tokenlag_dialect::responses::Create;
use tokenlag_dialect::{Dialect, Framing};
use tokenlag_probes::{Outcome, Stamp, TraceId};
use tokio::sync::Notify;

use super::limits::{ACTIVE, WAITING};
use crate::book::Book;
use crate::metrics::Active;
use crate::tap::Tap;

const CHANNEL: &str = "ws";

/// Responses under way on one pair of sockets, over all lanes: as many as the proxy's own lanes would hold.
const UNDER_WAY: usize = ACTIVE + WAITING;

/// The name of a lane.
type Name = Option<String>;

/// The responses under way on one pair of sockets.
pub(super) struct Taps<'a> {
    book: &'a Book,
    /// None of them is empty.
    lanes: RefCell<HashMap<Name, VecDeque<Passing>>>,
    /// Creates taken so far.
    asked: Cell<u64>,
    /// The last response under way has ended.
    ended: Notify,
}

/// One response, from its create on.
struct Passing {
    tap: Tap,
    /// Which create of the connection it is.
    number: u64,
    /// The first of its events came.
    begun: bool,
    _active: Active,
}

impl<'a> Taps<'a> {
    pub(super) fn new(book: &'a Book) -> Self {
        Self {
            book,
            lanes: RefCell::default(),
            asked: Cell::default(),
            ended: Notify::new(),
        }
    }

    /// The lane that a create names; `None` where the message is no create.
    pub(super) fn lane(message: &str) -> Option<Name> {
        let create = Create::parse(message.as_bytes()).ok()?;
        create.fields.get("type")?;
        Some(create.stream_id.map(|name| name.into_owned()))
    }

    /// Takes a message of the client that was passed on in a write that began at `up_written`, with the stamps of the first
    /// and the last read that carried it. What is no create is nobody's.
    pub(super) fn asked(&self, message: &str, read: (Stamp, Stamp), up_written: Stamp) {
        let Ok(create) = Create::parse(message.as_bytes()) else {
            return;
        };
        if create.fields.get("type").is_none() {
            return;
        }
        let trace = create.traceparent.as_deref();
        let trace = trace.and_then(TraceId::from_traceparent);
        let mut tap = Tap::new(CHANNEL, trace, read.0);
        tap.in_body = read.1;
        tap.up_written = Some(up_written);
        let number = self.asked.get();
        self.asked.set(number + 1);
        let passing = Passing {
            tap,
            number,
            begun: false,
            _active: self.book.metrics.begin(CHANNEL),
        };
        let name = create.stream_id.map(|name| name.into_owned());
        let mut lanes = self.lanes.borrow_mut();
        lanes.entry(name).or_default().push_back(passing);
        // An upstream that never answered so many has lost count.
        let under_way: usize = lanes.values().map(VecDeque::len).sum();
        let lost = (under_way > UNDER_WAY).then(|| take_oldest(&mut lanes));
        let lost = lost.flatten();
        drop(lanes);
        if let Some(lost) = lost {
            self.enter(lost, Outcome::Truncated);
        }
    }

    /// Takes a message of the upstream that was passed on in a write that began at `out`.
    pub(super) fn passed(&self, chunk: Chunk, out: Stamp) {
        let mut lanes = self.lanes.borrow_mut();
        // As long as only the default lane is in use, no event need be looked at for its lane.
        let named = lanes.keys().any(Option::is_some);
        let name = if named { stream_id(&chunk.bytes) } else { None };
        let Some(lane) = lanes.get_mut(&name) else {
            return;
        };
        let Some(passing) = lane.front_mut() else {
            return;
        };
        if !std::mem::replace(&mut passing.begun, true) {
            passing
                .tap
                .understand_framed(Dialect::Responses, Framing::Messages);
        }
        passing.tap.hold(chunk);
        passing.tap.wrote(out);
        if passing.tap.terminal_event().is_none() {
            return;
        }
        let ended = lane.pop_front();
        if lane.is_empty() {
            lanes.remove(&name);
        }
        drop(lanes);
        if let Some(ended) = ended {
            let outcome = ended.tap.relayed(200);
            self.enter(ended, outcome);
        }
    }

    /// The lanes in which a response is under way or waits.
    pub(super) fn waiting(&self) -> Vec<Name> {
        self.lanes.borrow().keys().cloned().collect()
    }

    /// Books all that is still under way as ended so.
    pub(super) fn end(&self, outcome: Outcome) {
        let lanes = std::mem::take(&mut *self.lanes.borrow_mut());
        for passing in lanes.into_values().flatten() {
            self.enter(passing, outcome);
        }
    }

    /// Whether nothing is under way.
    pub(super) fn are_idle(&self) -> bool {
        self.lanes.borrow().is_empty()
    }

    /// Returns when nothing is under way.
    pub(super) async fn idle(&self) {
        while !self.are_idle() {
            self.ended.notified().await;
        }
    }

    fn enter(&self, passing: Passing, outcome: Outcome) {
        self.book.enter(passing.tap.finish(outcome));
        if self.are_idle() {
            self.ended.notify_one();
        }
    }
}

/// Takes out the response that was asked for first.
fn take_oldest(lanes: &mut HashMap<Name, VecDeque<Passing>>) -> Option<Passing> {
    let fronts = lanes
        .iter()
        .filter_map(|(name, lane)| Some((lane.front()?.number, name)));
    let name = fronts.min_by_key(|(number, _)| *number)?.1.clone();
    let lane = lanes.get_mut(&name)?;
    let oldest = lane.pop_front();
    if lane.is_empty() {
        lanes.remove(&name);
    }
    oldest
}

/// The lane that an event names.
fn stream_id(event: &[u8]) -> Name {
    #[derive(Deserialize)]
    struct Event {
        stream_id: Option<String>,
    }

    let event: Option<Event> = serde_json::from_slice(event).ok();
    event.and_then(|event| event.stream_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ProxyOptions;
    use tokenlag_probes::HopExchange;

    fn book() -> Book {
        let listen = ([127, 0, 0, 1], 0).into();
        let upstream = "http://127.0.0.1:1".parse().unwrap();
        Book::new(&ProxyOptions::new(listen, upstream))
    }

    fn at(nanos: u64) -> Stamp {
        Stamp::from_nanos(nanos)
    }

    fn create(lane: &str, trace: u32) -> String {
        format!(
            r#"{{"type":"response.create"{lane},"client_metadata":{{"ws_request_header_traceparent":"00-{trace:032x}-0000000000000001-01"}}}}"#
        )
    }

    fn event(json: &str, read: u64) -> Chunk {
        Chunk {
            at: at(read),
            ordinal: 0,
            bytes: json.to_owned().into(),
        }
    }

    fn record(book: &Book, trace: u32) -> HopExchange {
        let trace = format!("{trace:032x}").parse().unwrap();
        book.ledger().of_trace(trace).expect("booked")
    }

    #[test]
    fn each_response_has_the_stamps_of_its_own_lane() {
        let book = book();
        let taps = Taps::new(&book);
        taps.asked(&create("", 1), (at(1), at(2)), at(3));
        taps.asked(&create(r#","stream_id":"a""#, 2), (at(4), at(5)), at(6));
        taps.asked(r#"{"type":"response.processed"}"#, (at(6), at(6)), at(6));
        assert_eq!(taps.waiting().len(), 2);
        let delta =
            |lane: &str| format!(r#"{{"type":"response.output_text.delta","delta":"x"{lane}}}"#);
        let done = |lane: &str| {
            format!(r#"{{"type":"response.completed","response":{{"id":"r"}}{lane}}}"#)
        };
        let a = r#","stream_id":"a""#;
        taps.passed(event(&delta(a), 10), at(11));
        taps.passed(event(&delta(""), 12), at(13));
        taps.passed(event(&delta(a), 14), at(15));
        taps.passed(event(&done(a), 16), at(17));
        taps.passed(event(r#"{"type":"codex.rate_limits"}"#, 17), at(17));
        taps.passed(event(&done(""), 18), at(19));
        assert!(taps.waiting().is_empty());
        let of_default = record(&book, 1);
        assert_eq!(of_default.up_token, [at(12)]);
        assert_eq!(of_default.out_token, [at(13)]);
        assert_eq!((of_default.in_head, of_default.in_body), (at(1), at(2)));
        assert_eq!(
            (of_default.up_written, of_default.up_end),
            (Some(at(3)), Some(at(18)))
        );
        assert_eq!(of_default.outcome, Outcome::Complete);
        let of_a = record(&book, 2);
        assert_eq!(of_a.up_token, [at(10), at(14)]);
        assert_eq!(of_a.out_token, [at(11), at(15)]);
        assert_eq!(of_a.up_end, Some(at(16)));
    }

    #[test]
    fn what_never_ended_is_booked_at_the_end() {
        let book = book();
        let taps = Taps::new(&book);
        taps.asked(&create("", 1), (at(1), at(2)), at(3));
        taps.asked(&create("", 2), (at(4), at(4)), at(4));
        taps.end(Outcome::Cancelled);
        assert_eq!(record(&book, 1).outcome, Outcome::Cancelled);
        assert_eq!(record(&book, 2).outcome, Outcome::Cancelled);
    }

    #[test]
    fn beyond_the_bound_of_all_lanes_the_oldest_is_given_up() {
        let book = book();
        let taps = Taps::new(&book);
        let lane = |number: usize| format!(r#","stream_id":"{number}""#);
        let count = UNDER_WAY + 3;
        for number in 1..=count {
            let create = create(&lane(number), number as u32);
            taps.asked(&create, (at(1), at(1)), at(1));
        }
        assert_eq!(taps.waiting().len(), UNDER_WAY);
        for lost in 1..=3 {
            assert_eq!(record(&book, lost).outcome, Outcome::Truncated);
        }
        let kept = format!("{:032x}", 4).parse().unwrap();
        assert!(book.ledger().of_trace(kept).is_none());
        // Nobody waits for what was given up; what is kept still has its own events.
        let done = |number: usize| {
            let lane = lane(number);
            format!(r#"{{"type":"response.completed","response":{{"id":"r"}}{lane}}}"#)
        };
        taps.passed(event(&done(1), 2), at(3));
        assert_eq!(taps.waiting().len(), UNDER_WAY);
        for number in 4..=count {
            taps.passed(event(&done(number), 2), at(3));
        }
        assert!(taps.are_idle());
        assert_eq!(record(&book, 4).outcome, Outcome::Complete);
    }
}
