//! The reply of a server that has only chat completions, as a Responses stream: translated event by event.

use std::collections::HashMap;

use serde_json::value::RawValue;
use tokenlag_probes::{FailureKind, Outcome, Usage};

use super::chunk::{Choice, Chunk, Delta, Function, failure, piece};
use crate::chat::DONE;
use crate::decoder::{EVENT_LIMIT, failure_kind};
use crate::json::{carries_something, is_object, read_str};
use crate::responses::{CallHandle, Completed, Finish, ResponseEncoder, ResponseHead, Sink};
use crate::usage::{read_cached_from_timings, read_reasoning_tokens, read_usage};

/// Translates one streamed chat completion into the events of one response.
///
/// Call [`start`](Self::start), [`event`](Self::event) with the data of each event of the chat's stream, and
/// [`end`](Self::end) once no more will come. Each delta becomes exactly one delta event of the same kind, in the same
/// order, so that the ordinals of both sides agree. For a request that is not streamed give a sink that drops what it
/// takes, and then call [`into_response`](Self::into_response).
///
/// | chat | Responses |
/// |---|---|
/// | `delta.reasoning_content`, `delta.reasoning` | a `reasoning` item, `response.reasoning_text.delta` |
/// | `delta.content`, `delta.refusal` | a `message` item, `response.output_text.delta`, `response.refusal.delta` |
/// | `delta.tool_calls[].function` | a `function_call` item, `response.function_call_arguments.delta` |
/// | `finish_reason` `length`, `content_filter` | `response.incomplete` with its reason |
/// | any other `finish_reason`, then `[DONE]` | `response.completed` |
/// | an `error` member, or an end before either | `response.failed` |
///
/// Choices other than the first are passed by: [`to_chat`](super::to_chat) asks for none.
#[derive(Debug)]
pub struct FromChat {
    encoder: ResponseEncoder,
    calls: Calls,
    /// How the response ends, once the chat said so.
    finish: Option<Finish>,
    usage: Option<Usage>,
    cached_by_timings: Option<u64>,
    outcome: Option<Outcome>,
    /// Bytes of all pieces so far, and of the items around them.
    size: usize,
    limit: usize,
    unreadable: u64,
}

/// The calls that have begun.
#[derive(Debug, Default)]
struct Calls {
    by_index: HashMap<u64, Call>,
    /// The index that was written to last, for servers that leave it out.
    last: Option<u64>,
}

#[derive(Debug)]
struct Call {
    handle: CallHandle,
    id: String,
}

/// What an item weighs beside its text: its own memory and its place in the terminal event.
const ITEM_WEIGHT: usize = 512;

/// The index of the one call of the legacy `function_call` member.
const LEGACY_CALL: u64 = u64::MAX;

impl FromChat {
    /// A translation into the response of that head. It may take up to [`EVENT_LIMIT`] bytes.
    pub fn new(head: ResponseHead) -> Self {
        Self::with_limit(head, EVENT_LIMIT)
    }

    /// A translation into a response of up to `limit` bytes: all of it is kept, since the terminal event repeats it.
    pub fn with_limit(head: ResponseHead, limit: usize) -> Self {
        Self {
            encoder: ResponseEncoder::new(head),
            calls: Calls::default(),
            finish: None,
            usage: None,
            cached_by_timings: None,
            outcome: None,
            size: 0,
            limit,
            unreadable: 0,
        }
    }

    /// `response.created` and `response.in_progress`.
    pub fn start(&mut self, sink: &mut Sink<'_>) {
        self.encoder.start(sink);
    }

    /// Takes the data of one event of the chat's stream. What cannot be read is counted and passed by; what follows
    /// the end means nothing.
    pub fn event(&mut self, data: &[u8], sink: &mut Sink<'_>) {
        if self.outcome.is_some() || data.is_empty() {
            return;
        }
        if data.trim_ascii() == DONE {
            let finish = self.finish.take().unwrap_or(Finish::Completed);
            return self.finish(finish, Outcome::Complete, sink);
        }
        if !is_object(data) {
            self.unreadable += 1;
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.unreadable += 1;
            return;
        };
        self.count(&chunk);
        for choice in chunk.choices.iter().flatten() {
            if choice.index.is_none_or(|index| index.get() == "0") {
                self.choice(choice, sink);
            }
        }
        if let Some(error) = chunk.error.filter(|error| carries_something(error)) {
            let finish = failure(error);
            self.finish(finish, Outcome::Failed(failure_kind(data)), sink);
        } else if self.size > self.limit {
            let finish = Finish::Failed {
                code: "server_error".into(),
                message: format!("the reply is larger than {} bytes", self.limit),
            };
            self.finish(finish, Outcome::Failed(FailureKind::Protocol), sink);
        }
    }

    /// The chat's stream has ended. Where it had no terminal event the response completes if a `finish_reason` came,
    /// else it fails: it was cut off.
    pub fn end(&mut self, sink: &mut Sink<'_>) -> Outcome {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let (finish, outcome) = match self.finish.take() {
            Some(finish) => (finish, Outcome::Complete),
            None => (
                Finish::Failed {
                    code: "upstream_lost".into(),
                    message: "the upstream's reply ended before its terminal event".into(),
                },
                Outcome::Truncated,
            ),
        };
        self.finish(finish, outcome, sink);
        outcome
    }

    /// How the response ended; `None` while it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// What a later turn needs of a response that ended well; `None` of one that goes on or failed.
    pub fn completed(&self) -> Option<Completed> {
        (self.outcome == Some(Outcome::Complete)).then(|| Completed {
            id: self.encoder.head().id.clone(),
            output: self.encoder.output(),
            usage: self.usage(),
        })
    }

    /// The last token counts that came.
    pub fn usage(&self) -> Option<Usage> {
        let usage = self.usage?;
        Some(Usage {
            cached_input: usage.cached_input.or(self.cached_by_timings),
            ..usage
        })
    }

    /// Events that were not the JSON that chat completions promise; they were passed by.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The JSON of the whole response, for a request that is not streamed. One that had not ended is one that was cut
    /// off.
    pub fn into_response(mut self) -> Vec<u8> {
        self.end(&mut |_, _| {});
        let finish = self.finish.take().unwrap_or(Finish::Completed);
        self.encoder.whole(&finish, self.usage())
    }

    fn finish(&mut self, finish: Finish, outcome: Outcome, sink: &mut Sink<'_>) {
        self.encoder.finish(finish.clone(), self.usage(), sink);
        self.finish = Some(finish);
        self.outcome = Some(outcome);
    }

    fn count(&mut self, chunk: &Chunk<'_>) {
        if let Some(counts) = chunk.usage.map(json)
            && let Some(usage) = read_usage(counts)
        {
            self.usage = Some(usage);
            let reasoning = read_reasoning_tokens(counts).unwrap_or(0);
            self.encoder.set_reasoning_tokens(reasoning);
        }
        let cached = chunk.timings.map(json).and_then(read_cached_from_timings);
        self.cached_by_timings = cached.or(self.cached_by_timings);
    }

    fn choice(&mut self, choice: &Choice<'_>, sink: &mut Sink<'_>) {
        if let Some(delta) = choice.delta.as_ref().or(choice.message.as_ref()) {
            self.delta(delta, sink);
        }
        match choice.finish_reason.and_then(read_str).as_deref() {
            None => {}
            Some("length") => self.finish = Some(Finish::MaxOutputTokens),
            Some("content_filter") => self.finish = Some(Finish::ContentFilter),
            Some(_) => self.finish = Some(Finish::Completed),
        }
    }

    fn delta(&mut self, delta: &Delta<'_>, sink: &mut Sink<'_>) {
        let items = self.encoder.items();
        if let Some(text) = piece(delta.reasoning_content).or(piece(delta.reasoning)) {
            self.size += text.len();
            self.encoder.reasoning(&text, sink);
        }
        if let Some(text) = piece(delta.content) {
            self.size += text.len();
            self.encoder.delta(&text, sink);
        }
        if let Some(text) = piece(delta.refusal) {
            self.size += text.len();
            self.encoder.refusal(&text, sink);
        }
        for call in delta.tool_calls.iter().flatten() {
            if let Some(function) = &call.function {
                let index = call.index.and_then(|index| index.get().parse().ok());
                let id = call.id.and_then(read_str);
                self.call(index, id.as_deref(), function, sink);
            }
        }
        if let Some(function) = &delta.function_call {
            self.call(Some(LEGACY_CALL), None, function, sink);
        }
        self.size += (self.encoder.items() - items) * ITEM_WEIGHT;
    }

    fn call(
        &mut self,
        index: Option<u64>,
        id: Option<&str>,
        function: &Function<'_>,
        sink: &mut Sink<'_>,
    ) {
        let name = function.name.and_then(read_str).unwrap_or_default();
        let id = id.unwrap_or_default();
        let arguments = piece(function.arguments);
        self.size += name.len() + id.len() + arguments.as_deref().map_or(0, str::len);

        let calls = &mut self.calls;
        let index = index.or(calls.last).unwrap_or(0);
        // Servers that leave out the index, or always say 0, tell the next call by its id and name.
        let goes_on = calls
            .by_index
            .get(&index)
            .filter(|call| id.is_empty() || name.is_empty() || call.id == id);
        calls.last = Some(index);
        let handle = match goes_on {
            Some(call) => {
                self.encoder
                    .extend_call_name(call.handle, &name, !id.is_empty());
                call.handle
            }
            None => {
                let id = match id {
                    "" => self.encoder.next_call_id(),
                    id => id.to_owned(),
                };
                let handle = self.encoder.begin_call(&id, &name, sink);
                calls.by_index.insert(index, Call { handle, id });
                handle
            }
        };
        if let Some(text) = arguments {
            self.encoder.call_arguments(handle, &text, sink);
        }
    }
}

fn json(raw: &RawValue) -> &[u8] {
    raw.get().as_bytes()
}
