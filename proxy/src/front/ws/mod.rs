//! The Responses API over WebSocket.
//!
//! Each `response.create` becomes a request upstream, each event of its reply a message. Exchanges of one lane (`stream_id`)
//! run one after the other, those of different lanes side by side; events of a named lane say its name. A connection goes
//! on from the latest response of each of its lanes.
//!
//! Where the upstream speaks WebSocket itself, none of this is done here: the two sockets are joined.
//!
//! The lanes of a connection share its socket: a client that takes no bytes holds all of them up, and nobody else's.

mod events;
mod exchange;
mod lanes;
mod limits;
mod memory;
mod native;
mod outlet;
mod pulse;
mod request;
mod session;
mod taps;
mod timing;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokenlag_channel::http::{RequestHead, ServerConnection};
use tokenlag_channel::ws::{Farewell, NotGranted, Upgrade};
use tokenlag_dialect::responses::TIMING_HEADER;

use super::turn::{Conversations, concerns_upstream};
use crate::kind::Kind;
use crate::leg::Leg;
use crate::worker::Worker;
pub use limits::WsLimits;
use memory::Memory;
use session::Session;

/// Serves one WebSocket to its end.
pub(crate) async fn serve(worker: Rc<Worker>, connection: ServerConnection, head: &RequestHead) {
    let upgrade = match Upgrade::of(head) {
        Ok(upgrade) => upgrade,
        Err(why) => {
            worker.book.metrics.refused("ws", "handshake");
            return refuse(connection, &why).await;
        }
    };
    if passes_through(&worker, head).await {
        return Box::pin(native::serve(&worker, connection, head, upgrade)).await;
    }
    let stalled = worker.websocket.stalled;
    let Ok(socket) = upgrade.grant(connection, [], stalled).await else {
        return;
    };
    let conversations = Conversations::new(&worker, head.headers.iter(), socket.share());
    let memory = Memory::new(conversations, Arc::clone(&worker.book), worker.state_at);
    let wants_timing = head.headers.get(TIMING_HEADER) == Some("true");
    let session = Session::new(
        worker,
        socket,
        &head.target,
        upstream_fields(head),
        memory,
        wants_timing,
    );
    Rc::new(session).serve().await;
}

/// Whether the upstream speaks WebSocket itself, and is to be spoken to so.
async fn passes_through(worker: &Worker, head: &RequestHead) -> bool {
    let another_channel = worker.leg.as_ref().is_some_and(Leg::carries_all);
    let fields = head.headers.iter();
    !another_channel && worker.upstream_kind(&head.target, fields).await == Kind::WebSocket
}

async fn refuse(mut connection: ServerConnection, why: &NotGranted) {
    let mut fields = why.fields.to_vec();
    fields.push(("content-type", "text/plain; charset=utf-8"));
    fields.push(("connection", "close"));
    let message = format!("{}\n", why.message);
    let answered = connection
        .respond(why.status, why.reason, &fields, message.as_bytes())
        .await;
    // The client may be gone already.
    if answered.is_ok() {
        connection.close_after_answer().await;
    }
}

/// The fields of the requests that a connection's creates become.
fn upstream_fields(head: &RequestHead) -> Vec<(Bytes, Bytes)> {
    let kept = head
        .headers
        .end_to_end()
        .filter(|(name, _)| concerns_upstream(name))
        .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
    let ours = [
        ("content-type".into(), "application/json".into()),
        ("accept".into(), "text/event-stream".into()),
    ];
    kept.chain(ours).collect()
}

/// How a client broke the protocol, for the counter.
fn broken(farewell: &Farewell) -> &'static str {
    match farewell.code {
        Farewell::TOO_BIG => "too_big",
        Farewell::NOT_UTF8 => "not_utf8",
        Farewell::POLICY => "slow",
        Farewell::TRY_AGAIN => "no_room",
        _ => "protocol",
    }
}
