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
use super::outlet::LaneOutlet;
use super::request::Request;
use super::session::{Held, Session};
use super::timing::Stopwatch;
use crate::front::turn::{self, Question};
use crate::outlet::Outlet;
use crate::tap::Tap;

const CHANNEL: &str = "ws";

/// A text message that was read.
pub(super) struct Message {
    pub(super) text: Text,
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
    let (request, lane) = match Request::read(&message.text) {
        Request::Processed => return,
        Request::Create(create) => {
            let lane = create.stream_id.as_deref().map(str::to_owned);
            (Ok(create), lane)
        }
        Request::Bad(bad, lane) => (Err(bad), lane.map(|lane| lane.into_owned())),
    };
    let outcome = in_turn(&session, &request, lane.as_deref(), &mut tap).await;
    session.worker.book.enter(tap.finish(outcome));
    drop(message.held);
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
    request: &Result<Box<Create<'_>>, BadRequest>,
    name: Option<&str>,
    tap: &mut Tap,
) -> Outcome {
    let too_late = session.takes_no_more(name);
    let Ok(place) = session.lanes.enter(name) else {
        session.worker.book.metrics.refused("ws", "lanes");
        return refuse(session, &BadRequest::lane_limit_reached(NAMED_LANES), name).await;
    };
    let Some(Some(turn)) = session.unless_gone(place.turn()).await else {
        return Outcome::Cancelled;
    };
    match (request, too_late) {
        (_, Some(event)) => refused(session.send([event]).await.is_ok()),
        (Ok(create), None) => answer(session, create, &turn.lane, tap).await,
        (Err(bad), None) => refuse(session, bad, name).await,
    }
}

/// Answers a create.
async fn answer(session: &Session, create: &Create<'_>, lane: &Lane, tap: &mut Tap) -> Outcome {
    let _active = session.worker.book.metrics.begin(CHANNEL);
    let trace = create.traceparent.as_deref();
    tap.trace = trace.and_then(TraceId::from_traceparent);
    let _hold = session.memory.hold(create);
    let body = match session.memory.upstream_body(create).await {
        Ok(body) => body,
        Err(bad) => return refuse(session, &bad, lane.as_deref()).await,
    };
    if !create.generate {
        return warm_up(session, create, lane).await;
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
    let passed = turn::pass(&session.worker, &question, tap, &mut outlet).await;
    let (outcome, ending, failure) = match passed {
        Ok(relayed) => {
            let cut_off = match relayed.outcome {
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
            (relayed.outcome, relayed.ending, failure)
        }
        Err(failed) => (Outcome::Failed(failed.kind), None, Some(failed.failure)),
    };
    // Before the lane goes on, and before the client can.
    let memory = &session.memory;
    memory
        .settle(lane, create, ending.as_deref(), outcome)
        .await;
    if let Some(failure) = failure {
        // The client may be gone already.
        let _ = session
            .send([events::failed(&failure, lane.as_deref())])
            .await;
    }
    outcome
}

/// `generate: false`: a response without output, whose id the next turn can build on.
async fn warm_up(session: &Session, create: &Create<'_>, lane: &Lane) -> Outcome {
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
    let mut outlet = LaneOutlet::new(session, lane.as_deref(), None);
    let mut sink = |_: &str, json: &[u8]| outlet.put(json);
    encoder.start(&mut sink);
    encoder.finish_without_output(Finish::Completed, None, &mut sink);
    session.memory.keep_warm_up(lane, create, &id).await;
    match outlet.flush().await {
        Ok(_) => Outcome::Complete,
        Err(_) => Outcome::Cancelled,
    }
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
