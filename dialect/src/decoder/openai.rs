//! Reads one event of the chat completions and completions APIs, as OpenAI, llama-server and vLLM write them.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::DeltaKind;

use super::failure::failure_kind;
use super::kinds::Kinds;
use super::tally::{Deltas, Tally};
use super::{Reading, Terminal, Unreadable};
use crate::json::carries_something;
use crate::usage::{read_cached_from_timings, read_usage};

pub(super) fn read_chat(data: &[u8]) -> Result<Reading, Unreadable> {
    read::<ChatChoice<'_>>(data)
}

pub(super) fn read_completions(data: &[u8]) -> Result<Reading, Unreadable> {
    read::<TextChoice<'_>>(data)
}

fn read<'a, T: Deltas + Deserialize<'a>>(data: &'a [u8]) -> Result<Reading, Unreadable> {
    let chunk: Chunk<'a, T> = serde_json::from_slice(data).map_err(|_| Unreadable)?;
    Ok(Reading {
        kinds: chunk.choices.unwrap_or_default().kinds,
        // Servers report a failure within the stream as an `error` member; some send no `[DONE]` after it.
        terminal: chunk
            .error
            .filter(|error| carries_something(error))
            .map(|_| Terminal::Failed(failure_kind(data))),
        usage: chunk.usage.and_then(read_usage),
        cached_by_timings: chunk.timings.and_then(read_cached_from_timings),
    })
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deltas + Deserialize<'de>"))]
struct Chunk<'a, T> {
    choices: Option<Tally<T>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    timings: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TextChoice<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChatChoice<'a> {
    #[serde(borrow)]
    delta: Option<ChatDelta<'a>>,
}

#[derive(Deserialize)]
struct ChatDelta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    // Two names of one thing, and some servers send both: not aliases, which may not come together.
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    tool_calls: Option<Tally<ToolCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Deltas for TextChoice<'_> {
    fn count(&self, kinds: &mut Kinds) {
        if has(self.text) {
            kinds.push(DeltaKind::Content);
        }
    }
}

impl Deltas for ChatChoice<'_> {
    fn count(&self, kinds: &mut Kinds) {
        let Some(delta) = &self.delta else { return };
        if has(delta.reasoning_content) || has(delta.reasoning) {
            kinds.push(DeltaKind::Reasoning);
        }
        for _ in [delta.content, delta.refusal]
            .into_iter()
            .filter(|&text| has(text))
        {
            kinds.push(DeltaKind::Content);
        }
        for &kind in delta
            .tool_calls
            .iter()
            .flat_map(|calls| calls.kinds.as_slice())
        {
            kinds.push(kind);
        }
        if delta
            .function_call
            .as_ref()
            .is_some_and(|function| has(function.arguments))
        {
            kinds.push(DeltaKind::Tool);
        }
    }
}

impl Deltas for ToolCall<'_> {
    fn count(&self, kinds: &mut Kinds) {
        if self
            .function
            .as_ref()
            .is_some_and(|function| has(function.arguments))
        {
            kinds.push(DeltaKind::Tool);
        }
    }
}

fn has(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(carries_something)
}
