//! One message of a client, from its reading to its booking: a create waits for its lane's turn, goes upstream, and its
//! reply comes back in the lane.

use std::rc::Rc;

use tokenlag_channel::ws::Text;
use tokenlag_dialect::responses::{BadRequest, Create, Finish, ResponseEncoder, ResponseHead};
use tokenlag_probes::clock::wall_clock;
use tokenlag_probes::{FailureKind, Outcome, Stamp, TraceId};

use super::events;
use super::lanes::Lane;
use super::limits::NAMED_LANES;
use super::memory::{LaneTurn, input};
use super::outlet::LaneOutlet;
use super::request::{Bad, Content, Request};
use super::session::{Held, Session};
use super::timing::Stopwatch;
use crate::archive::Item;
use crate::conversations::NotKept;
use crate::front::turn::{self, Question};
use crate::outlet::Outlet;
use crate::relay::Relayed;
use crate::tap::Tap;

const CHANNEL: &str = "ws";

/// A text message that was read.
pub(super) struct Message {
    pub(super) content: Content,
    pub(super) in_head: Stamp,
    pub(super) in_body: Stamp,
    /// Its share of what the connection holds.
    pub(super) held: Held,
}

/// Serves a message to its end. Polled for the first time, it takes its place in its lane: whoever polls messages in the
/// order in which they came has them served in that order.
pub(super) async fn serve(session: Rc<Session>, message: Message) {
    let mut tap = Tap::new(CHANNEL, None, message.in_head);
    tap.in_body = message.in_body;
    let mut held = message.held;
    let text;
    let (request, input) = match message.content {
        Content::Read(request, input) => (request, input),
        Content::Text(whole) => {
            text = whole;
            (Request::read(&text), None)
        }
        Content::Dropped => (Request::dropped(), None),
    };
    let (request, lane) = match request {
        Request::Processed => return,
        Request::Create(create) => {
            let lane = create.stream_id.as_deref().map(str::to_owned);
            (Ok(create), lane)
        }
        Request::Bad(bad) => {
            let lane = bad.lane.clone();
            (Err(bad), lane)
        }
    };
    let asked = Asked {
        request: &request,
        input,
        held: &mut held,
    };
    let outcome = in_turn(&session, asked, lane.as_deref(), &mut tap).await;
    session.worker.book.enter(tap.finish(outcome));
    drop(held);
}

/// A message that was read, and what it takes.
struct Asked<'a> {
    request: &'a Result<Box<Create<'a>>, Box<Bad>>,
    /// Its input, where that was read already.
    input: Option<Vec<Item>>,
    held: &'a mut Held,
}

/// Answers a binary message, which is nobody's request.
pub(super) async fn refuse_binary(session: Rc<Session>) {
    let bad = BadRequest {
        message: "binary messages are not taken; send JSON text".to_owned(),
        param: None,
        code: None,
    };
    if let Ok(place) = session.lanes.enter(None)
        && let Some(Some(_turn)) = session.unless_gone(place.turn()).await
    {
        refuse(&session, &bad, None).await;
    }
}

/// Waits for the lane's turn. What cannot be served waits too: told at once, it would be taken for the end of the answer that
/// is under way in the lane.
async fn in_turn(
    session: &Session,
    asked: Asked<'_>,
    name: Option<&str>,
    tap: &mut Tap,
) -> Outcome {
    let too_late = session.takes_no_more(name);
    let too_late = too_late.or_else(|| (!asked.held.has_room()).then(|| no_room(session, name)));
    let Ok(place) = session.lanes.enter(name) else {
        session.worker.book.metrics.refused("ws", "lanes");
        return refuse(session, &BadRequest::lane_limit_reached(NAMED_LANES), name).await;
    };
    let Some(Some(turn)) = session.unless_gone(place.turn()).await else {
        return Outcome::Cancelled;
    };
    match (asked.request, too_late) {
        (_, Some(event)) => refused(session.send([event]).await.is_ok()),
        (Ok(create), None) => {
            let (input, held) = (asked.input, asked.held);
            answer(session, create, (input, held), &turn.lane, tap).await
        }
        (Err(bad), None) => {
            session.memory.evict(&turn.lane, bad.parent.as_deref());
            refuse(session, &bad.why, name).await
        }
    }
}

/// Answers a create.
async fn answer(
    session: &Session,
    create: &Create<'_>,
    (read, held): (Option<Vec<Item>>, &mut Held),
    lane: &Lane,
    tap: &mut Tap,
) -> Outcome {
    let _active = session.worker.book.metrics.begin(CHANNEL);
    let trace = create.traceparent.as_deref();
    tap.trace = trace.and_then(TraceId::from_traceparent);
    let memory = &session.memory;
    let parent = create.previous_response_id.as_deref();
    let _hold = memory.hold(create);
    let history = match memory.history(create).await {
        Ok(history) => history,
        Err(bad) => {
            memory.evict(lane, parent);
            return refuse(session, &bad, lane.as_deref()).await;
        }
    };
    if !create.generate {
        // What is no input is for the upstream to judge, when the turn comes.
        let input = read.or_else(|| input(create)).unwrap_or_default();
        return warm_up(session, create, lane, (history, input)).await;
    }
    let body = memory.upstream_body(create, &history);
    if held.take(body.len()).is_err() {
        memory.evict(lane, parent);
        let event = no_room(session, lane.as_deref());
        return refused(session.send([event]).await.is_ok());
    }
    let question = Question {
        method: "POST",
        target: &session.target,
        fields: &session.fields,
        traceparent: create
            .traceparent
            .as_deref()
            .filter(|_| tap.trace.is_some()),
        body: body.into(),
    };
    let stopwatch = session.wants_timing.then(|| Stopwatch::start(tap.in_body));
    let mut outlet = LaneOutlet::new(session, lane.as_deref(), stopwatch);
    let mut turn = LaneTurn::new(memory, lane, create, (history, read));
    let passed = turn::pass(&session.worker, &question, &mut turn, tap, &mut outlet).await;
    let (outcome, failure) = match passed {
        Ok(Relayed { outcome, .. }) => {
            let cut_off = match outcome {
                Outcome::Cancelled => false,
                Outcome::Truncated => true,
                Outcome::Complete | Outcome::Failed(_) => !outlet.ended,
            };
            // No terminal event will come: say so instead of leaving a silence.
            let failure = cut_off.then(|| {
                events::upstream_failed(
                    "upstream_lost",
                    "the upstream's reply ended before its terminal event",
                )
            });
            (outcome, failure)
        }
        Err(failed) => (Outcome::Failed(failed.kind), Some(failed.failure)),
    };
    // Before the lane goes on, and before the client can. All of these are told as an error of status 400 to 599.
    if matches!(outcome, Outcome::Failed(_) | Outcome::Truncated) {
        memory.evict(lane, parent);
    }
    if let Some(failure) = failure {
        // The client may be gone already.
        let _ = session
            .send([events::failed(&failure, lane.as_deref())])
            .await;
    }
    outcome
}

/// `generate: false`: a response without output, whose id the next turn can build on.
async fn warm_up(
    session: &Session,
    create: &Create<'_>,
    lane: &Lane,
    items: (Vec<Item>, Vec<Item>),
) -> Outcome {
    let now = wall_clock().duration_since(std::time::UNIX_EPOCH);
    let id = session.worker.response_id();
    let mut encoder = ResponseEncoder::new(ResponseHead {
        id: id.clone(),
        model: create.model.as_deref().unwrap_or_default().to_owned(),
        created_at: now.map_or(0, |since| since.as_secs()),
        previous_response_id: create.previous_response_id.as_deref().map(str::to_owned),
        store: create.store.unwrap_or(false),
        ..ResponseHead::default()
    });
    let memory = &session.memory;
    if let Err(why) = memory.keep_warm_up(lane, create, &id, items) {
        memory.evict(lane, create.previous_response_id.as_deref());
        let lane = lane.as_deref();
        let event = match why {
            NotKept::NoRoom => no_room(session, lane),
            NotKept::TooLarge => {
                session.worker.book.metrics.refused("ws", "too_much_kept");
                events::ours(too_large().to_event(lane))
            }
        };
        return refused(session.send([event]).await.is_ok());
    }
    let mut outlet = LaneOutlet::new(session, lane.as_deref(), None);
    let mut sink = |_: &str, json: &[u8]| outlet.put(json);
    encoder.start(&mut sink);
    encoder.finish_without_output(Finish::Completed, None, &mut sink);
    match outlet.flush().await {
        Ok(_) => Outcome::Complete,
        Err(_) => Outcome::Cancelled,
    }
}

/// A create goes on from more than a connection may keep.
fn too_large() -> BadRequest {
    BadRequest {
        message: "the conversation that the warm-up belongs to is larger than what a connection may keep; send it with the turn"
            .to_owned(),
        param: Some("input"),
        code: Some("conversation_too_large"),
    }
}

/// Counts a create for which there is no memory; the event says so.
fn no_room(session: &Session, lane: Option<&str>) -> Text {
    session.worker.book.metrics.refused("ws", "no_room");
    events::failed(&events::no_room(), lane)
}

async fn refuse(session: &Session, bad: &BadRequest, lane: Option<&str>) -> Outcome {
    let event = events::ours(bad.to_event(lane));
    refused(session.send([event]).await.is_ok())
}

fn refused(told: bool) -> Outcome {
    match told {
        true => Outcome::Failed(FailureKind::ClientError),
        false => Outcome::Cancelled,
    }
}
