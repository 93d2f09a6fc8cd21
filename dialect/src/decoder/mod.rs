//! Chunks to token marks: the incremental decoder that the load generator, the proxy's tap and its bridge all use.
//!
//! What an event means is told by metrics.md's rules: a delta is a piece of model output that is not empty. Created
//! events, role-only chunks, empty deltas, pings and comments are none.

mod alike;
mod anthropic;
mod failure;
mod kinds;
mod ollama;
mod openai;
mod responses;

use tokenlag_probes::{DeltaKind, FailureKind, Outcome, Stamp, TokenMark, Usage};

use crate::chat::DONE;
use crate::dialect::{Dialect, Framing};
use crate::lines::LineSplitter;
use crate::scan::Malformed;
use crate::sse::{EventTooLarge, SseEvent, SseSplitter};
use alike::Alike;
pub(crate) use failure::failure_kind;
use kinds::Kinds;

/// The largest event that [`Decoder::new`] takes, in bytes: room for a terminal event that repeats a long response.
pub const EVENT_LIMIT: usize = 64 << 20;

/// Forms of events that one decoder of many replies remembers: those that begin a reply, make it up and end it.
const FORMS_OF_REPLIES: usize = 6;

/// What one event meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Deltas that it carried.
    pub deltas: u32,
    /// The kind of its first delta.
    pub kind: Option<DeltaKind>,
    /// It ended the reply.
    pub terminal: bool,
}

/// Which event ended the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Chat and completions: `[DONE]`; Anthropic: `message_stop`; Ollama: `"done":true`.
    Done,
    /// `response.completed`.
    Completed,
    /// `response.incomplete`: the output is whole as far as it was allowed to go (`max_output_tokens`).
    Incomplete,
    /// `response.failed`, or an `error` event of any dialect.
    Failed(FailureKind),
}

/// The stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// One event is larger than the decoder's limit.
    #[error(transparent)]
    EventTooLarge(#[from] EventTooLarge),
}

/// Reads one reply's chunks as they come, and marks its deltas with the stamps that came with the chunks.
#[derive(Debug)]
pub struct Decoder {
    splitter: Splitter,
    state: State,
}

/// The framing.
#[derive(Debug)]
enum Splitter {
    Sse(SseSplitter),
    Lines(LineSplitter),
    Messages { limit: usize },
}

/// All but the framing.
#[derive(Debug)]
struct State {
    dialect: Dialect,
    terminal: Option<Terminal>,
    terminal_event: Vec<u8>,
    usage: Option<Usage>,
    /// llama-server's `timings.cache_n`, for a `usage` that does not tell.
    cached_by_timings: Option<u64>,
    /// Anthropic's counts come in parts.
    counts: anthropic::Counts,
    unreadable: u64,
    alike: Alike,
}

/// What a dialect's reader found in one event.
#[derive(Debug, Default)]
struct Reading {
    kinds: Kinds,
    terminal: Option<Terminal>,
    usage: Option<Usage>,
    cached_by_timings: Option<u64>,
}

impl Reading {
    /// Nothing but deltas is known of the event.
    fn is_deltas_alone(&self) -> bool {
        self.terminal.is_none() && self.usage.is_none() && self.cached_by_timings.is_none()
    }
}

/// The event is not the JSON that its dialect promises.
struct Unreadable;

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self
    }
}

impl Decoder {
    /// A decoder at the start of a reply. One event may take up to [`EVENT_LIMIT`] bytes.
    pub fn new(dialect: Dialect, framing: Framing) -> Self {
        Self::with_limit(dialect, framing, EVENT_LIMIT)
    }

    /// A decoder for many replies, one after the other, with a [`reset`](Self::reset) between: of one server's replies the first
    /// and the last events are alike too, and need not be walked each time.
    pub fn for_replies(dialect: Dialect, framing: Framing) -> Self {
        Self::remembering(FORMS_OF_REPLIES, dialect, framing, EVENT_LIMIT)
    }

    /// A decoder that takes events of up to `limit` bytes.
    pub fn with_limit(dialect: Dialect, framing: Framing, limit: usize) -> Self {
        Self::remembering(1, dialect, framing, limit)
    }

    fn remembering(forms: usize, dialect: Dialect, framing: Framing, limit: usize) -> Self {
        Self {
            splitter: match framing {
                Framing::Sse => Splitter::Sse(SseSplitter::new(limit)),
                Framing::Lines => Splitter::Lines(LineSplitter::new(limit)),
                Framing::Messages => Splitter::Messages { limit },
            },
            state: State {
                dialect,
                terminal: None,
                terminal_event: Vec::new(),
                usage: None,
                cached_by_timings: None,
                counts: anthropic::Counts::default(),
                unreadable: 0,
                alike: Alike::new(forms),
            },
        }
    }

    /// Goes back to the start of a reply of the same dialect and framing, and keeps the buffers.
    pub fn reset(&mut self) {
        match &mut self.splitter {
            Splitter::Sse(splitter) => splitter.reset(),
            Splitter::Lines(splitter) => splitter.reset(),
            Splitter::Messages { .. } => {}
        }
        self.state.terminal = None;
        self.state.terminal_event.clear();
        self.state.usage = None;
        self.state.cached_by_timings = None;
        self.state.counts = anthropic::Counts::default();
        self.state.unreadable = 0;
    }

    /// Takes the bytes of one chunk and appends a mark for each delta that they complete: `at` and `chunk` are copied
    /// into it, no clock is read. Events after the terminal one mean nothing.
    ///
    /// # Errors
    ///
    /// An event is larger than the limit. Later calls fail too.
    pub fn feed(
        &mut self,
        at: Stamp,
        chunk: u32,
        bytes: &[u8],
        marks: &mut Vec<TokenMark>,
    ) -> Result<(), DecodeError> {
        self.feed_events(at, chunk, bytes, marks, &mut |_, _| {})
    }

    /// Does what [`Decoder::feed`] does, and shows every event to `on_event`, in order, with what it meant. Its marks
    /// have been appended by then.
    ///
    /// # Errors
    ///
    /// As [`Decoder::feed`].
    pub fn feed_events(
        &mut self,
        at: Stamp,
        chunk: u32,
        bytes: &[u8],
        marks: &mut Vec<TokenMark>,
        on_event: &mut dyn FnMut(SseEvent<'_>, &Meaning),
    ) -> Result<(), DecodeError> {
        let state = &mut self.state;
        let mut take = |event: SseEvent<'_>| {
            let meaning = state.take(at, chunk, event, marks);
            on_event(event, &meaning);
        };
        match &mut self.splitter {
            Splitter::Sse(splitter) => splitter.feed(bytes, &mut take)?,
            Splitter::Lines(splitter) => {
                splitter.feed(bytes, &mut |line| take(SseEvent::bare(line)))?
            }
            &mut Splitter::Messages { limit } if bytes.len() > limit => {
                return Err(EventTooLarge { limit }.into());
            }
            Splitter::Messages { .. } => take(SseEvent::bare(bytes)),
        }
        Ok(())
    }

    /// Which terminal event came; `None` while the reply goes on.
    pub fn terminal(&self) -> Option<&Terminal> {
        self.state.terminal.as_ref()
    }

    /// The data of the terminal event: its JSON, or `[DONE]`, or its line.
    pub fn terminal_event(&self) -> Option<&[u8]> {
        self.state
            .terminal
            .is_some()
            .then_some(&self.state.terminal_event)
            .map(Vec::as_slice)
    }

    /// The last `usage` seen (it may come in every chunk). Cached prompt tokens are taken from its details, else from
    /// llama-server's `timings.cache_n`.
    pub fn usage(&self) -> Option<Usage> {
        let usage = self.state.usage?;
        Some(Usage {
            cached_input: usage.cached_input.or(self.state.cached_by_timings),
            ..usage
        })
    }

    /// How the reply ended, once its terminal event came. `response.incomplete` counts as complete.
    pub fn outcome(&self) -> Option<Outcome> {
        Some(match self.state.terminal? {
            Terminal::Done | Terminal::Completed | Terminal::Incomplete => Outcome::Complete,
            Terminal::Failed(kind) => Outcome::Failed(kind),
        })
    }

    /// Events whose data was not the JSON that the dialect promises; they were passed by.
    pub fn unreadable(&self) -> u64 {
        self.state.unreadable
    }
}

impl State {
    /// What `[DONE]` means. It is no part of the other APIs, yet some servers end their streams with it too.
    fn done(&self) -> Reading {
        Reading {
            terminal: match self.dialect {
                Dialect::Chat | Dialect::Completions => Some(Terminal::Done),
                Dialect::Responses | Dialect::Anthropic | Dialect::Ollama => None,
            },
            ..Reading::default()
        }
    }

    fn take(
        &mut self,
        at: Stamp,
        chunk: u32,
        event: SseEvent<'_>,
        marks: &mut Vec<TokenMark>,
    ) -> Meaning {
        if self.terminal.is_some() || event.data.is_empty() {
            return Meaning::default();
        }
        if let Some(kinds) = self.alike.kinds(event) {
            return mark(at, chunk, kinds, marks);
        }
        let leaves = self.alike.leaves();
        let reading = if event.data.trim_ascii() == DONE {
            Ok(self.done())
        } else {
            match self.dialect {
                Dialect::Responses => responses::read(event, leaves),
                Dialect::Chat => openai::read_chat(event.data, leaves),
                Dialect::Completions => openai::read_completions(event.data, leaves),
                Dialect::Anthropic => anthropic::read(event, &mut self.counts, leaves),
                Dialect::Ollama => ollama::read(event.data, leaves),
            }
        };
        let Ok(reading) = reading else {
            self.unreadable += 1;
            return Meaning::default();
        };
        self.usage = reading.usage.or(self.usage);
        self.cached_by_timings = reading.cached_by_timings.or(self.cached_by_timings);
        if let Some(terminal) = reading.terminal {
            self.terminal = Some(terminal);
            self.terminal_event.extend_from_slice(event.data);
        }
        if reading.is_deltas_alone() {
            self.alike.learn(event, &reading.kinds);
        }
        Meaning {
            terminal: reading.terminal.is_some(),
            ..mark(at, chunk, reading.kinds.as_slice(), marks)
        }
    }
}

/// Marks the deltas of one event.
fn mark(at: Stamp, chunk: u32, kinds: &[DeltaKind], marks: &mut Vec<TokenMark>) -> Meaning {
    marks.extend(kinds.iter().map(|&kind| TokenMark { at, chunk, kind }));
    Meaning {
        deltas: kinds.len() as u32,
        kind: kinds.first().copied(),
        terminal: false,
    }
}
