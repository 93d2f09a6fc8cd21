//! The tap: stamps one exchange as it passes, and never changes a byte of it. What passes is read for its meaning only
//! after it was written on: measuring delays no token.

use tokenlag_channel::Chunk;
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{FailureKind, HopExchange, Outcome, Stamp, TokenMark, TraceId, Usage};

use crate::body::type_of;

/// Room for the marks of a usual reply.
const USUAL_DELTAS: usize = 512;

/// An exchange that is passing.
#[derive(Debug)]
pub(crate) struct Tap {
    channel: &'static str,
    /// The name that the client gave the exchange.
    pub(crate) trace: Option<TraceId>,
    in_head: Stamp,
    /// Read with the request's last byte.
    pub(crate) in_body: Stamp,
    /// Before the upstream write with the request's last byte.
    pub(crate) up_written: Option<Stamp>,
    /// The upstream connection was made for this exchange.
    pub(crate) up_connected_anew: bool,
    /// The reply began before the request had ended.
    pub(crate) overlapped: bool,
    /// Only what is read for its meaning has one: it is large, and moves with each exchange.
    decoder: Option<Box<Decoder>>,
    /// Chunks that are on their way to the client.
    held: Vec<Chunk>,
    /// Deltas that were read of the upstream.
    marks: Vec<TokenMark>,
    /// Stamps of those that were written to the client.
    out: Vec<Stamp>,
    up_end: Option<Stamp>,
    /// The last upstream read: the end of a reply that is no stream of events.
    last_read: Option<Stamp>,
}

impl Tap {
    pub(crate) fn new(channel: &'static str, trace: Option<TraceId>, in_head: Stamp) -> Self {
        Self {
            channel,
            trace,
            in_head,
            in_body: in_head,
            up_written: None,
            up_connected_anew: false,
            overlapped: false,
            decoder: None,
            held: Vec::new(),
            marks: Vec::new(),
            out: Vec::new(),
            up_end: None,
            last_read: None,
        }
    }

    /// From here on the reply's chunks are read as events of `dialect`, framed as it frames them. Without this call they
    /// are bytes.
    pub(crate) fn understand(&mut self, dialect: Dialect) {
        self.understand_framed(dialect, dialect.framing());
    }

    /// The same for events that are framed in another way.
    pub(crate) fn understand_framed(&mut self, dialect: Dialect, framing: Framing) {
        self.decoder = Some(Box::new(Decoder::new(dialect, framing)));
        self.marks.reserve(USUAL_DELTAS);
        self.out.reserve(USUAL_DELTAS);
    }

    /// Takes a chunk that was read of the upstream and is about to be written on.
    pub(crate) fn hold(&mut self, chunk: Chunk) {
        self.last_read = Some(chunk.at);
        if self.decoder.is_some() {
            self.held.push(chunk);
        }
    }

    /// Notes that everything held went to the client in a write that began at `at`.
    pub(crate) fn wrote(&mut self, at: Stamp) {
        self.decode();
        self.out.resize(self.marks.len(), at);
    }

    /// Reads what is held. Passing it on was the caller's business whatever it is: an event beyond the limit only ends
    /// the understanding.
    fn decode(&mut self) {
        for chunk in self.held.drain(..) {
            let Some(decoder) = &mut self.decoder else {
                continue;
            };
            let ended = decoder.terminal().is_some();
            let fed = decoder.feed(chunk.at, chunk.ordinal, &chunk.bytes, &mut self.marks);
            if fed.is_err() {
                self.decoder = None;
            } else if !ended && decoder.terminal().is_some() {
                self.up_end = Some(chunk.at);
            }
        }
    }

    /// Whether the terminal event came.
    pub(crate) fn has_ended(&self) -> bool {
        let mut decoder = self.decoder.iter();
        decoder.any(|decoder| decoder.terminal().is_some())
    }

    /// How the reply broke off, where an `error` event ended it instead of one that ends a response.
    pub(crate) fn broke_off(&self) -> Option<Outcome> {
        let error = type_of(self.terminal_event()?)? == "error";
        self.decoder.as_ref()?.outcome().filter(|_| error)
    }

    /// The terminal event's data.
    pub(crate) fn terminal_event(&self) -> Option<&[u8]> {
        self.decoder.as_ref()?.terminal_event()
    }

    /// How an exchange ended whose reply had this status and was relayed to its end.
    pub(crate) fn relayed(&self, status: u16) -> Outcome {
        match (status, &self.decoder) {
            (500.., _) => Outcome::Failed(FailureKind::ServerError),
            (400.., _) => Outcome::Failed(FailureKind::ClientError),
            (_, Some(decoder)) => decoder.outcome().unwrap_or(Outcome::Truncated),
            (_, None) => Outcome::Complete,
        }
    }

    /// The record of the exchange.
    pub(crate) fn finish(mut self, outcome: Outcome) -> HopExchange {
        // What was read and could not be written on any more still counts as read.
        self.decode();
        let whole = outcome == Outcome::Complete && self.decoder.is_none();
        let usage: Option<Usage> = self.decoder.as_ref().and_then(|decoder| decoder.usage());
        // The room for a usual reply is its task's; the record stays, and there are many of them.
        self.out.shrink_to_fit();
        HopExchange {
            trace: self.trace,
            channel: self.channel.into(),
            in_head: self.in_head,
            in_body: self.in_body,
            up_written: self.up_written,
            up_token: self.marks.iter().map(|mark| mark.at).collect(),
            up_coalesced: coalesced(&self.marks),
            out_token: self.out,
            up_end: self.up_end.or(self.last_read.filter(|_| whole)),
            usage,
            up_connected_anew: self.up_connected_anew,
            overlapped: self.overlapped,
            outcome,
        }
    }
}

/// Deltas that share their read with a later one.
fn coalesced(marks: &[TokenMark]) -> u32 {
    let pairs = marks.windows(2);
    pairs.filter(|pair| pair[0].chunk == pair[1].chunk).count() as u32
}
