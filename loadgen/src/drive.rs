//! One exchange over a channel, from the dispatch to the terminal event.

use std::pin::pin;
use std::time::Duration;

use tokenlag_channel::{Channel, ChannelError, Reply, Request, Stamping};
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{Clock, Exchange, FailureKind, Handling, MonoClock, Outcome};
use tokio::task::yield_now;

use crate::conversation::needs_bytes;
use crate::heed::{Cut, Heed};
use crate::stop::Stop;

/// Bytes of an error's body that are read, so that the connection can be used again.
const ERROR_BODY: usize = 64 << 10;

/// Characters of an error that are kept for the user.
const EXCERPT: usize = 300;

/// A terminal event that is longer makes its decoder too large to be kept.
const SHORT_TERMINAL: usize = 16 << 10;

/// How a driven exchange ended, beyond its stamps.
#[derive(Debug, Default)]
pub struct Ending {
    /// The terminal event's data; empty where none came.
    pub terminal: Vec<u8>,
    /// The reply's bytes, where the dialect's next turn needs them and `keep` was set.
    pub bytes: Vec<u8>,
    /// Why it did not complete, in words.
    pub trouble: Option<String>,
}

/// How an exchange is driven.
#[derive(Clone, Copy, Debug)]
pub struct Driving<'a> {
    /// What the reply speaks.
    pub dialect: Dialect,
    /// Keep what the next turn needs.
    pub keep: bool,
    /// Who stamps what comes over the channel.
    pub stamping: &'a Stamping,
}

/// What exchanges that come one after the other need, each for itself.
pub struct Kit {
    /// The stop, and the limit of each exchange.
    pub heed: Heed,
    /// The last reply's decoder, whose buffers the next one uses.
    decoder: Kept,
}

/// A decoder, and what replies it is for; none after a reply that was not read to its end.
type Kept = Option<(Dialect, Framing, Decoder)>;

impl Kit {
    /// For exchanges that may take as long as `limit` each, until the run is stopped. Needs a runtime with timers.
    pub fn new(stop: &Stop, limit: Duration) -> Self {
        Self {
            heed: Heed::new(stop, limit),
            decoder: None,
        }
    }
}

/// The kept decoder at a reply's start, or a new one in its place where it is for other replies.
fn decoder(kept: &mut Kept, dialect: Dialect, framing: Framing) -> &mut Decoder {
    let fits = |&(its, also_its, _): &(_, _, _)| (its, also_its) == (dialect, framing);
    if !kept.as_ref().is_some_and(fits) {
        *kept = None;
    }
    let new = || (dialect, framing, Decoder::for_replies(dialect, framing));
    let (_, _, decoder) = kept.get_or_insert_with(new);
    decoder.reset();
    decoder
}

/// Sends `request` and reads its reply to the end, filling in `exchange`'s stamps, usage and outcome. `None`: the run was stopped.
///
/// The caller has stamped `dispatched`. Whatever goes wrong is the exchange's outcome, and in words
/// [`Ending::trouble`]; dropping the future leaves [`Outcome::Cancelled`].
pub async fn drive(
    channel: &Channel,
    request: &Request,
    driving: Driving<'_>,
    exchange: &mut Exchange,
    kit: &mut Kit,
) -> Option<Ending> {
    let mut ending = Ending::default();
    let Kit { heed, decoder } = kit;
    let began = exchange.dispatched;
    let ended = heed
        .in_time(
            began,
            // Made where it stays: it is large.
            pin!(run(
                channel,
                request,
                driving,
                exchange,
                &mut ending,
                decoder
            )),
        )
        .await;
    if !matches!(ended, Ok(Ok(()))) {
        // It may hold half of an event, however large.
        *decoder = None;
    }
    let (outcome, trouble) = match ended {
        Ok(Ok(())) => (Outcome::Complete, None),
        Ok(Err(trouble)) => (trouble.outcome, Some(trouble.message)),
        Err(Cut::Stopped) => return None,
        Err(Cut::TooLate) => {
            let message = format!("not finished within {:?}", heed.limit());
            (Outcome::Failed(FailureKind::Timeout), Some(message))
        }
    };
    exchange.outcome = outcome;
    ending.trouble = trouble;
    Some(ending)
}

struct Trouble {
    outcome: Outcome,
    message: String,
}

impl Trouble {
    fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed(kind),
            message: message.into(),
        }
    }
}

impl From<ChannelError> for Trouble {
    fn from(error: ChannelError) -> Self {
        Self::failed(error.kind(), error.to_string())
    }
}

async fn run(
    channel: &Channel,
    request: &Request,
    driving: Driving<'_>,
    exchange: &mut Exchange,
    ending: &mut Ending,
    kept: &mut Kept,
) -> Result<(), Trouble> {
    let mut reply = channel.open(request).await?;
    let opening = reply.opening();
    exchange.resolved = opening.resolved;
    exchange.transport_connected = opening.transport_connected;
    exchange.connected = Some(opening.connected);
    exchange.written = Some(opening.written);
    exchange.head = reply.head();
    if reply.status() >= 400 {
        return Err(refused(reply).await);
    }

    let framing = reply.framing();
    let keep_bytes = driving.keep && needs_bytes(driving.dialect, framing);
    let decoder = decoder(kept, driving.dialect, framing);
    let mut read = None;
    while let Some(chunk) = reply.next().await? {
        if read.replace(chunk.ordinal) != Some(chunk.ordinal) {
            // What lies there for other streams is read and stamped before this one's is looked at: a stamp is late by what
            // was done before the read, and by nothing that is done after it.
            yield_now().await;
        }
        exchange.head = exchange.head.or(reply.head());
        exchange.chunks = chunk.ordinal + 1;
        let reached = MonoClock.now();
        let known = exchange.tokens.len();
        decoder
            .feed(chunk.at, chunk.ordinal, &chunk.bytes, &mut exchange.tokens)
            .map_err(|error| Trouble::failed(FailureKind::Protocol, error.to_string()))?;
        if exchange.tokens.len() > known {
            let read = driving.stamping.read_of(chunk.at);
            let handling = Handling {
                read,
                reached,
                decoded: MonoClock.now(),
            };
            exchange.handling.resize(exchange.tokens.len(), handling);
        }
        if keep_bytes {
            ending.bytes.extend_from_slice(&chunk.bytes);
        }
        if decoder.terminal().is_some() {
            exchange.end = Some(chunk.at);
            break;
        }
    }
    exchange.usage = decoder.usage();
    let Some(outcome) = decoder.outcome() else {
        return Err(Trouble {
            outcome: Outcome::Truncated,
            message: format!(
                "the reply ended after {} deltas, without its terminal event",
                exchange.tokens.len()
            ),
        });
    };
    // The exchange is over; if the rest of the reply is broken, only the connection suffers.
    let _ = reply.finish().await;
    let terminal = decoder.terminal_event().unwrap_or_default();
    if outcome != Outcome::Complete {
        return Err(Trouble {
            outcome,
            message: excerpt(terminal),
        });
    }
    if driving.keep {
        ending.terminal.extend_from_slice(terminal);
    }
    if terminal.len() > SHORT_TERMINAL {
        *kept = None;
    }
    Ok(())
}

/// Reads the body of a reply whose status is an error.
async fn refused(mut reply: Reply) -> Trouble {
    let status = reply.status();
    let mut body = Vec::new();
    loop {
        match reply.next().await {
            Ok(Some(chunk)) if body.len() < ERROR_BODY => body.extend_from_slice(&chunk.bytes),
            Ok(None) => {
                let _ = reply.finish().await;
                break;
            }
            // The status says enough.
            Ok(Some(_)) | Err(_) => break,
        }
    }
    let kind = match status {
        400..=499 => FailureKind::ClientError,
        _ => FailureKind::ServerError,
    };
    Trouble::failed(kind, format!("status {status}: {}", excerpt(&body)))
}

/// The start of a message, on one line.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(b"{\n  \"error\": 1\n}"), "{ \"error\": 1 }");
        let long = excerpt("ä".repeat(1_000).as_bytes());
        assert_eq!(long.chars().count(), EXCERPT + 3);
    }
}
