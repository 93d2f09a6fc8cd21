//! A request that is whole, on its way upstream, and its reply on the way back.

use tokenlag_channel::ChannelError;
use tokenlag_channel::http::Response;
use tokenlag_channel::http::head::is_hop_by_hop;
use tokenlag_channel::http::render::{push_field, start_request};
use tokenlag_probes::{Outcome, StateAt};
use tokio::select;

use crate::body::Expected;
pub(crate) use crate::conversations::Conversations;
use crate::failure::Failed;
use crate::inlet::Inlet;
use crate::keeper::{Keeper, Turn};
use crate::kind::{Kind, may_lack_responses};
use crate::outlet::Outlet;
use crate::pooled::Pooled;
pub(crate) use crate::question::Question;
use crate::relay::{self, Relayed};
use crate::tap::Tap;
use crate::translation::{Translation, chat_target};
use crate::upstream::was_stale;
use crate::worker::Worker;

/// Serves a request of HTTP, or of a channel that is like it: what it goes on from is found, the upstream asked, the reply
/// passed on.
///
/// # Errors
/// There is no reply that can be passed on; the client is to be told why.
pub(crate) async fn serve(
    worker: &Worker,
    mut question: Question<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Relayed, Failed> {
    let mut turn = None;
    if question.is_create() && worker.state_at == StateAt::Proxy {
        let archive = &worker.book.archive;
        let scope = archive.scope(question.fields());
        let (begun, body) = Turn::begin(archive, scope, question.body).await;
        question.body = body;
        turn = Some(begun);
    }
    let turn = turn.as_mut().map(|turn| turn as &mut dyn Keeper);
    exchange(worker, &question, turn, tap, outlet).await
}

/// Asks, and passes the reply on; whatever the request goes on from is the caller's business, who gives the turn to be kept.
///
/// # Errors
/// There is no reply that can be passed on; the client is to be told why.
pub(crate) async fn pass(
    worker: &Worker,
    question: &Question<'_>,
    turn: &mut dyn Keeper,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Relayed, Failed> {
    exchange(worker, question, Some(turn), tap, outlet).await
}

/// What few exchanges need is boxed: the others neither keep room for it nor move it about.
async fn exchange(
    worker: &Worker,
    question: &Question<'_>,
    turn: Option<&mut dyn Keeper>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Relayed, Failed> {
    let kinds = &worker.book.kinds;
    if question.is_create() && kinds.known() == Some(Kind::Chat) {
        return Box::pin(translated(worker, question, turn, tap, outlet)).await;
    }
    let Some(mut inlet) = ask(worker, question, tap, outlet).await? else {
        return Ok(Outcome::Cancelled.into());
    };
    if question.is_create() {
        kinds.saw(inlet.head.status);
    }
    // Whether it has no such API, or means something else by it, is found out once.
    let may_lack = question.is_create() && may_lack_responses(inlet.head.status);
    if may_lack && kinds.may_be_chat() {
        let kind = Box::pin(worker.upstream_kind(question.target, question.fields()));
        if kind.await == Kind::Chat {
            return Box::pin(translated(worker, question, turn, tap, outlet)).await;
        }
    }
    let expected = Expected {
        dialect: question.dialect(),
        turn,
        translation: None,
    };
    Ok(relay::reply(worker, &mut inlet, expected, tap, outlet).await)
}

/// Asks an upstream that has only chat completions.
async fn translated(
    worker: &Worker,
    question: &Question<'_>,
    turn: Option<&mut dyn Keeper>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Relayed, Failed> {
    let parent = turn.as_ref().and_then(|turn| turn.parent());
    let (body, translation) = Translation::begin(&question.body, worker.response_id(), parent)?;
    // It is read here: it must not come compressed.
    let fields = question.fields.iter();
    let fields: Vec<_> = fields
        .filter(|(name, _)| !name.eq_ignore_ascii_case(b"accept-encoding"))
        .cloned()
        .collect();
    let chat = Question {
        method: question.method,
        target: &chat_target(question.target),
        fields: &fields,
        traceparent: question.traceparent,
        body,
    };
    let Some(mut inlet) = ask(worker, &chat, tap, outlet).await? else {
        return Ok(Outcome::Cancelled.into());
    };
    let expected = Expected {
        dialect: chat.dialect(),
        turn,
        translation: Some(Box::new(translation)),
    };
    Ok(relay::reply(worker, &mut inlet, expected, tap, outlet).await)
}

/// Sends a whole request and waits for the reply's head; `None` where the client is gone first.
///
/// # Errors
/// The upstream failed before it said anything that can be passed on.
async fn ask(
    worker: &Worker,
    question: &Question<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Option<Inlet>, ChannelError> {
    let target = worker.upstream.path(question.target);
    if let Some(leg) = worker.leg.as_ref().filter(|leg| leg.takes(question)) {
        return select! {
            biased;
            inlet = Box::pin(leg.ask(question, &target, tap)) => inlet.map(Some),
            () = outlet.gone() => Ok(None),
        };
    }
    let request = render(worker, question, &target);
    let (upstream, anew) = worker.pool.take().await?;
    tap.up_connected_anew = anew;
    let asked = match ask_on(upstream, worker, &request, question.method, tap, outlet).await {
        Err(error) if was_stale(anew, &error, tap.up_written) => {
            tap.up_connected_anew = true;
            let upstream = worker.pool.dial().await?;
            ask_on(upstream, worker, &request, question.method, tap, outlet).await
        }
        asked => asked,
    };
    let Some((upstream, response)) = asked? else {
        return Ok(None);
    };
    let idle = worker.pool.idle_timeout();
    Ok(Some(Inlet::http(upstream, response, idle)))
}

async fn ask_on(
    mut upstream: Box<Pooled>,
    worker: &Worker,
    request: &[u8],
    method: &str,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Option<(Box<Pooled>, Response)>, ChannelError> {
    tap.up_written = upstream.send_unless_answered(request).await?;
    tap.overlapped = tap.up_written.is_none();
    let head = relay::reply_head(worker, &mut upstream, method, outlet.gone()).await?;
    Ok(head.map(|response| (upstream, response)))
}

fn render(worker: &Worker, question: &Question<'_>, target: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + question.body.len());
    start_request(&mut out, question.method, target, &worker.authority);
    for (name, value) in question.fields() {
        push_field(&mut out, name, value);
    }
    if let Some(traceparent) = question.traceparent {
        push_field(&mut out, b"traceparent", traceparent.as_bytes());
    }
    if worker.pool.is_cold() {
        push_field(&mut out, b"connection", b"close");
    }
    if question.method != "GET" || !question.body.is_empty() {
        let length = question.body.len().to_string();
        push_field(&mut out, b"content-length", length.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&question.body);
    out
}

/// Whether a client's field concerns the upstream of a request that the proxy writes anew.
pub(crate) fn concerns_upstream(name: &[u8]) -> bool {
    const OURS: [&[u8]; 6] = [
        b"host",
        b"content-length",
        b"expect",
        b"traceparent",
        b"content-type",
        b"accept",
    ];
    let websocket = name.len() > 14 && name[..14].eq_ignore_ascii_case(b"sec-websocket-");
    !websocket && !is_hop_by_hop(name) && !OURS.iter().any(|own| name.eq_ignore_ascii_case(own))
}
