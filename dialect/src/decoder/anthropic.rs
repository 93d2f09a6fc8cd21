//! Reads one event of Anthropic's Messages API.
//!
//! Shapes after <https://docs.anthropic.com/en/docs/build-with-claude/streaming>, error types after
//! <https://docs.anthropic.com/en/api/errors>.

use serde::Deserialize;
use tokenlag_probes::{DeltaKind, FailureKind, Usage};

use super::failure::failure_kind;
use super::{Reading, Terminal, Unreadable};
use crate::json::{Text, is_object};
use crate::scan::{Leaves, Scanner};
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

/// What one event holds of what is looked at.
#[derive(Default)]
struct Event<'a> {
    kind: Option<&'a [u8]>,
    /// And where it begins.
    delta: Option<(&'a [u8], usize)>,
    message: Option<&'a [u8]>,
    usage: Option<&'a [u8]>,
}

pub(super) fn read(
    event: SseEvent<'_>,
    counts: &mut Counts,
    leaves: &mut Leaves,
) -> Result<Reading, Unreadable> {
    let mut found = Event::default();
    Scanner::whole(event.data, leaves, |scanner, key| {
        match key {
            b"type" => found.kind = scanner.name()?,
            b"delta" => {
                let delta = scanner.value()?;
                found.delta = Some((delta, scanner.place() - delta.len()));
            }
            b"message" => found.message = Some(scanner.value()?),
            b"usage" => found.usage = Some(scanner.value()?),
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    let mut reading = Reading::default();
    match found.kind.unwrap_or(event.name) {
        b"content_block_delta" => {
            let delta = found.delta;
            let kind = delta.and_then(|(delta, offset)| delta_kind(delta, offset, leaves));
            if let Some(kind) = kind {
                reading.kinds.push(kind);
            }
        }
        b"message_start" => {
            // What is counted depends on what was counted before.
            leaves.incomplete = true;
            counts.add(found.message.and_then(usage_of));
            reading.usage = counts.usage();
        }
        b"message_delta" => {
            leaves.incomplete = true;
            counts.add(found.usage);
            reading.usage = counts.usage();
        }
        b"message_stop" => reading.terminal = Some(Terminal::Done),
        b"error" => reading.terminal = Some(Terminal::Failed(failure(event.data))),
        _ => {}
    }
    Ok(reading)
}

/// What a delta carries; `None` where it is no model output (a signature, a citation) or empty.
fn delta_kind(delta: &[u8], offset: usize, leaves: &mut Leaves) -> Option<DeltaKind> {
    let mut name = None;
    let (mut text, mut thinking, mut json) = (false, false, false);
    Scanner::part(delta, offset, leaves, |scanner, key| {
        match key {
            b"type" => name = scanner.name()?,
            b"text" => text = scanner.something()?,
            b"thinking" => thinking = scanner.something()?,
            b"partial_json" => json = scanner.something()?,
            _ => scanner.pass()?,
        }
        Ok(())
    })
    .ok()?;
    let (carried, kind) = match name? {
        b"text_delta" => (text, DeltaKind::Content),
        b"thinking_delta" => (thinking, DeltaKind::Reasoning),
        b"input_json_delta" => (json, DeltaKind::Tool),
        _ => return None,
    };
    carried.then_some(kind)
}

/// The usage of a `message` object.
fn usage_of(message: &[u8]) -> Option<&[u8]> {
    let mut usage = None;
    Scanner::whole(message, &mut Leaves::default(), |scanner, key| {
        match key {
            b"usage" => usage = Some(scanner.value()?),
            _ => drop(scanner.value()?),
        }
        Ok(())
    })
    .ok()?;
    usage
}

impl Counts {
    fn add(&mut self, usage: Option<&[u8]>) {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Written {
            input_tokens: Option<u64>,
            cache_read_input_tokens: Option<u64>,
            cache_creation_input_tokens: Option<u64>,
            output_tokens: Option<u64>,
        }

        let Some(usage) = usage.filter(|usage| is_object(usage)) else {
            return;
        };
        let Ok(new) = serde_json::from_slice::<Written>(usage) else {
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
