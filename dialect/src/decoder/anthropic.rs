//! Reads one event of Anthropic's Messages API.
//!
//! Shapes after <https://docs.anthropic.com/en/docs/build-with-claude/streaming>, error types after
//! <https://docs.anthropic.com/en/api/errors>.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::{DeltaKind, FailureKind, Usage};

use super::failure::failure_kind;
use super::{Reading, Terminal, Unreadable};
use crate::json::{Text, carries_something, is_object};
use crate::sse::SseEvent;

/// The token counts so far: `message_start` has those of the input, each `message_delta` the output's so far, and newer
/// servers repeat the input's there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    output: Option<u64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
}

pub(super) fn read(event: SseEvent<'_>, counts: &mut Counts) -> Result<Reading, Unreadable> {
    let parsed: Event<'_> = serde_json::from_slice(event.data).map_err(|_| Unreadable)?;
    let name = match &parsed.kind {
        Some(kind) => &**kind,
        None => std::str::from_utf8(event.name).unwrap_or(""),
    };
    let mut reading = Reading::default();
    match name {
        "content_block_delta" => {
            let kind = parsed.delta.and_then(delta_kind);
            kind.into_iter().for_each(|kind| reading.kinds.push(kind));
        }
        "message_start" => {
            #[derive(Deserialize)]
            struct Message<'a> {
                #[serde(borrow)]
                usage: Option<&'a RawValue>,
            }
            let message = parsed
                .message
                .and_then(|raw| serde_json::from_str::<Message<'_>>(raw.get()).ok());
            counts.add(message.and_then(|message| message.usage));
            reading.usage = counts.usage();
        }
        "message_delta" => {
            counts.add(parsed.usage);
            reading.usage = counts.usage();
        }
        "message_stop" => reading.terminal = Some(Terminal::Done),
        "error" => reading.terminal = Some(Terminal::Failed(failure(event.data))),
        _ => {}
    }
    Ok(reading)
}

/// What a delta carries; `None` where it is no model output (a signature, a citation) or empty.
fn delta_kind(raw: &RawValue) -> Option<DeltaKind> {
    let delta: Delta<'_> = serde_json::from_str(raw.get()).ok()?;
    let (carried, kind) = match &*delta.kind? {
        "text_delta" => (delta.text, DeltaKind::Content),
        "thinking_delta" => (delta.thinking, DeltaKind::Reasoning),
        "input_json_delta" => (delta.partial_json, DeltaKind::Tool),
        _ => return None,
    };
    carried.is_some_and(carries_something).then_some(kind)
}

impl Counts {
    fn add(&mut self, usage: Option<&RawValue>) {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Written {
            input_tokens: Option<u64>,
            cache_read_input_tokens: Option<u64>,
            cache_creation_input_tokens: Option<u64>,
            output_tokens: Option<u64>,
        }

        let Some(raw) = usage.filter(|raw| is_object(raw.get().as_bytes())) else {
            return;
        };
        let Ok(new) = serde_json::from_str::<Written>(raw.get()) else {
            return;
        };
        self.input = new.input_tokens.or(self.input);
        self.cache_read = new.cache_read_input_tokens.or(self.cache_read);
        self.cache_creation = new.cache_creation_input_tokens.or(self.cache_creation);
        self.output = new.output_tokens.or(self.output);
    }

    /// `input_tokens` counts what the cache neither had nor took in: ours counts the whole prompt.
    fn usage(&self) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let fresh = self.input.unwrap_or(0);
        Some(Usage {
            input: [self.cache_read, self.cache_creation]
                .into_iter()
                .flatten()
                .fold(fresh, u64::saturating_add),
            cached_input: self.cache_read,
            output: self.output.unwrap_or(0),
        })
    }
}

/// An error event has a type instead of the status that the same fault has over HTTP.
fn failure(json: &[u8]) -> FailureKind {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        error: Error<'a>,
    }

    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow, rename = "type")]
        kind: Text<'a>,
    }

    let kind = serde_json::from_slice::<Event<'_>>(json).map(|event| event.error.kind);
    match kind.as_deref() {
        Ok("api_error" | "overloaded_error" | "timeout_error") => FailureKind::ServerError,
        Ok(
            "invalid_request_error"
            | "authentication_error"
            | "billing_error"
            | "permission_error"
            | "not_found_error"
            | "request_too_large"
            | "rate_limit_error",
        ) => FailureKind::ClientError,
        _ => failure_kind(json),
    }
}
