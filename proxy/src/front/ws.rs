//! The Responses API over WebSocket: each `response.create` becomes an HTTP request upstream, each event of its reply a
//! message.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, RequestHead, ResponseHead, ServerConnection};
use tokenlag_channel::ws::{Farewell, Received, Text, Upgrade, WebSocket};
use tokenlag_dialect::responses::{
    BadRequest, Create, Finish, ResponseEncoder, error_event, message_type,
};
use tokenlag_dialect::{Fields, SseEvent, responses};
use tokenlag_probes::clock::wall_clock;
use tokenlag_probes::{FailureKind, Outcome, Stamp, TraceId};
use tokio::select;

use super::turn::{self, Conversations, Question, concerns_upstream};
use crate::failure::Failed;
use crate::outlet::Outlet;
use crate::tap::Tap;
use crate::worker::Worker;

const CHANNEL: &str = "ws";

/// Messages that may wait behind the one that is being answered; beyond it the client is left to wait.
const WAITING: usize = 16;

/// How long a client may take not one byte.
const STALLED: Duration = Duration::from_secs(120);

/// The most of an upstream's error that is passed on.
const ERROR_BODY: usize = 64 * 1024;

/// Serves one WebSocket to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut connection: ServerConnection,
    head: &RequestHead,
) {
    let upgrade = match Upgrade::of(head) {
        Ok(upgrade) => upgrade,
        Err(refused) => {
            let mut fields = refused.fields.to_vec();
            fields.push(("connection", "close"));
            let (status, reason) = (refused.status, refused.reason);
            // The client may be gone already.
            let _ = connection
                .respond(status, reason, &fields, refused.message.as_bytes())
                .await;
            return;
        }
    };
    let mut fields: Vec<_> = head
        .headers
        .end_to_end()
        .filter(|(name, _)| concerns_upstream(name))
        .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
        .collect();
    fields.push(("content-type".into(), "application/json".into()));
    fields.push(("accept".into(), "text/event-stream".into()));
    let Ok(socket) = upgrade.grant(connection, [], STALLED).await else {
        return;
    };
    let mut session = Session {
        worker: &worker,
        target: &head.target,
        fields,
        conversations: Conversations::new(&worker, head.headers.iter()),
        outlet: WsOutlet {
            socket,
            outbox: Vec::new(),
            waiting: VecDeque::new(),
            refusal: None,
            ended: false,
            farewell: None,
        },
    };
    let farewell = session.run().await;
    session.outlet.socket.close(farewell.as_ref()).await;
}

/// One client's connection.
struct Session<'a> {
    worker: &'a Worker,
    target: &'a str,
    fields: Vec<(Bytes, Bytes)>,
    conversations: Conversations,
    outlet: WsOutlet,
}

impl Session<'_> {
    /// Serves until the client is gone (`None`) or is to be told goodbye.
    async fn run(&mut self) -> Option<Farewell> {
        loop {
            let message = match self.outlet.waiting.pop_front() {
                Some(message) => message,
                None => select! {
                    biased;
                    received = self.outlet.socket.receive() => match received {
                        Ok(message) => message,
                        Err(farewell) => return Some(farewell),
                    },
                    () = self.worker.draining() => {
                        let why = "the proxy is shutting down";
                        return Some(Farewell::new(Farewell::GOING_AWAY, why));
                    }
                },
            };
            match message {
                Received::Closed(_) => return None,
                Received::Binary(_) => {
                    let why = "binary messages are not taken; send JSON text";
                    self.say(error_event(400, "invalid_request_error", None, why, None))
                        .await
                        .ok()?;
                }
                Received::Text {
                    text,
                    in_head,
                    in_body,
                } => {
                    let mut tap = Tap::new(CHANNEL, None, in_head);
                    tap.in_body = in_body;
                    let outcome = match Create::parse(text.as_bytes()) {
                        Ok(create) => self.turn(&create, &mut tap).await,
                        Err(_) if is_processed(text.as_bytes()) => continue,
                        Err(bad) => self.refuse(&bad).await,
                    };
                    self.worker.book.enter(tap.finish(outcome));
                }
            }
            if let Some(farewell) = self.outlet.farewell.take() {
                return Some(farewell);
            }
        }
    }

    /// Answers one `response.create`.
    async fn turn(&mut self, create: &Create<'_>, tap: &mut Tap) -> Outcome {
        let _active = self.worker.book.metrics.begin(CHANNEL);
        let trace = create.traceparent.as_deref();
        tap.trace = trace.and_then(TraceId::from_traceparent);
        let body = match self.conversations.upstream_body(create).await {
            Ok(body) => body,
            Err(bad) => return self.refuse(&bad).await,
        };
        if !create.generate {
            return self.warm_up(create).await;
        }
        let question = Question {
            method: "POST",
            target: self.target,
            fields: &self.fields,
            traceparent: create
                .traceparent
                .as_deref()
                .filter(|_| tap.trace.is_some()),
            body: body.into(),
        };
        self.outlet.ended = false;
        let passed = turn::pass(self.worker, &question, tap, &mut self.outlet).await;
        let begun = passed.is_ok();
        let mut ending = None;
        let outcome = match passed {
            Ok(relayed) => {
                ending = relayed.ending;
                relayed.outcome
            }
            Err(Failed {
                failure,
                kind: counted,
            }) => {
                let (status, kind) = (failure.status, failure.kind());
                let code = Some(failure.code);
                let event = error_event(status, kind, code, &failure.message, None);
                // The client may be gone already.
                let _ = self.say(event).await;
                Outcome::Failed(counted)
            }
        };
        self.conversations
            .settle(create, ending.as_deref(), outcome)
            .await;
        if begun && !self.outlet.ended && outcome != Outcome::Cancelled {
            // No terminal event will come: say so instead of leaving a silence.
            let why = "the upstream's reply ended before its terminal event";
            let event = error_event(502, "server_error", Some("upstream_lost"), why, None);
            // The client may be gone already.
            let _ = self.say(event).await;
        }
        outcome
    }

    async fn refuse(&mut self, bad: &BadRequest) -> Outcome {
        match self.say(bad.to_event(None)).await {
            Ok(()) => Outcome::Failed(FailureKind::ClientError),
            Err(_) => Outcome::Cancelled,
        }
    }

    /// `generate: false`: a response without output, whose id the next turn can build on.
    async fn warm_up(&mut self, create: &Create<'_>) -> Outcome {
        let now = wall_clock().duration_since(std::time::UNIX_EPOCH);
        let id = self.worker.response_id();
        let mut encoder = ResponseEncoder::new(responses::ResponseHead {
            id: id.clone(),
            model: create.model.as_deref().unwrap_or_default().to_owned(),
            created_at: now.map_or(0, |since| since.as_secs()),
            previous_response_id: create.previous_response_id.as_deref().map(str::to_owned),
            store: create.store.unwrap_or(false),
            ..responses::ResponseHead::default()
        });
        let outbox = &mut self.outlet.outbox;
        let mut sink = |_: &str, json: &[u8]| outbox.push(Bytes::copy_from_slice(json));
        encoder.start(&mut sink);
        encoder.finish_without_output(Finish::Completed, None, &mut sink);
        self.conversations.keep(create, &id, Vec::new()).await;
        match self.outlet.flush().await {
            Ok(_) => Outcome::Complete,
            Err(_) => Outcome::Cancelled,
        }
    }

    async fn say(&mut self, event: Vec<u8>) -> io::Result<()> {
        self.outlet.outbox.push(event.into());
        self.outlet.flush().await.map(drop)
    }
}

/// A client that has worked a response off says so; nothing is answered.
fn is_processed(message: &[u8]) -> bool {
    message_type(message).as_deref() == Some("response.processed")
}

/// Writes a reply's events as messages.
struct WsOutlet {
    socket: WebSocket,
    outbox: Vec<Bytes>,
    /// Messages that came while one was being answered.
    waiting: VecDeque<Received>,
    /// An upstream's error: its status and what came of its body.
    refusal: Option<(u16, Vec<u8>)>,
    /// The reply was passed on to its end.
    ended: bool,
    /// The client broke the protocol; it is told so after the answer.
    farewell: Option<Farewell>,
}

impl Outlet for WsOutlet {
    fn wants_events(&self) -> bool {
        true
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, events: bool) {
        // A WebSocket has no status: what is no event stream is told as an error event.
        self.refusal = (!events).then(|| (head.status, Vec::new()));
    }

    fn event(&mut self, event: SseEvent<'_>) {
        self.outbox.push(Bytes::copy_from_slice(event.data));
    }

    fn bytes(&mut self, bytes: Bytes) {
        if let Some((_, body)) = &mut self.refusal {
            let room = ERROR_BODY - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some((status, body)) = self.refusal.take() {
            self.outbox.push(refusal_event(status, &body).into());
        }
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        let texts: Result<Vec<_>, _> = self.outbox.drain(..).map(Text::try_from).collect();
        let texts = texts.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.socket.send(texts).await
    }

    async fn gone(&mut self) {
        while self.farewell.is_none() && self.waiting.len() < WAITING {
            match self.socket.receive().await {
                Ok(Received::Closed(_)) => return,
                Ok(message) => self.waiting.push_back(message),
                Err(farewell) => self.farewell = Some(farewell),
            }
        }
        std::future::pending::<()>().await;
    }
}

/// The event that tells a client what the upstream answered instead of a stream.
fn refusal_event(status: u16, body: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Told {
        message: Option<String>,
        r#type: Option<String>,
        code: Option<String>,
        param: Option<String>,
    }
    // An upstream that answers a stream's request with something else, yet without an error, is at fault itself.
    let status = if status < 400 { 502 } else { status };
    let told = Fields::parse(body)
        .ok()
        .and_then(|fields| serde_json::from_str::<Told>(fields.get("error")?.get()).ok());
    let text;
    let (kind, code, message, param) = match &told {
        Some(told) => (
            told.r#type.as_deref(),
            told.code.as_deref(),
            told.message.as_deref(),
            told.param.as_deref(),
        ),
        None => {
            text = String::from_utf8_lossy(body);
            (None, None, Some(&*text), None)
        }
    };
    let usual = if status >= 500 {
        "server_error"
    } else {
        "invalid_request_error"
    };
    let message = message.unwrap_or("the upstream gave no reason");
    error_event(status, kind.unwrap_or(usual), code, message, param)
}
