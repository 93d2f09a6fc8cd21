//! A client of any of the project's channels, and what it saw of a reply.

use tokenlag_channel::{Ask, Channel, ChannelError, Request};
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{Encoding, Outcome, Stamp, TokenMark, TraceId, Transport};

/// What a client of a channel read.
pub struct Seen {
    pub marks: Vec<TokenMark>,
    pub outcome: Option<Outcome>,
    pub head: Option<Stamp>,
    /// The HTTP status; zero where there was no reply.
    pub status: u16,
    /// The reply came as events of SSE, comments and all.
    pub is_sse: bool,
    /// What came before the first delta.
    pub early: Vec<u8>,
    pub error: Option<ChannelError>,
}

/// Asks over `channel` and reads to the reply's end.
pub async fn ask(channel: &Channel, row: (Transport, Encoding), trace: TraceId) -> Seen {
    ask_held(channel, row, trace, || ()).await
}

/// The same by a client that does `holding` between its first read and the next.
pub async fn ask_held(
    channel: &Channel,
    (transport, encoding): (Transport, Encoding),
    trace: TraceId,
    holding: impl FnOnce(),
) -> Seen {
    let ask = Ask {
        path: Dialect::Responses.path(),
        authority: "127.0.0.1",
        headers: &[],
        body: br#"{"model":"m","stream":true,"input":"say hi"}"#,
        trace,
        encoding,
    };
    let request = Request::render(transport, &ask).unwrap();
    let mut seen = Seen {
        marks: Vec::new(),
        outcome: None,
        head: None,
        status: 0,
        is_sse: false,
        early: Vec::new(),
        error: None,
    };
    let mut holding = Some(holding);
    let mut reply = match channel.open(&request).await {
        Ok(reply) => reply,
        Err(error) => {
            seen.error = Some(error);
            return seen;
        }
    };
    seen.status = reply.status();
    seen.is_sse = reply.framing() == Framing::Sse;
    let mut decoder = Decoder::new(Dialect::Responses, reply.framing());
    loop {
        match reply.next().await {
            Ok(Some(chunk)) => {
                decoder
                    .feed(chunk.at, chunk.ordinal, &chunk.bytes, &mut seen.marks)
                    .unwrap();
                if seen.marks.is_empty() {
                    seen.early.extend_from_slice(&chunk.bytes);
                }
                if let Some(hold) = holding.take() {
                    hold();
                }
            }
            Ok(None) => break,
            Err(error) => {
                seen.error = Some(error);
                break;
            }
        }
        if decoder.terminal().is_some() {
            break;
        }
    }
    seen.head = reply.head();
    seen.outcome = decoder.outcome();
    if seen.error.is_none() {
        // The connection's own affair.
        let _ = reply.finish().await;
    }
    seen
}
