//! Reads one line of Ollama's own API, of `/api/chat` and of `/api/generate`.
//!
//! Shapes after <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::{DeltaKind, Usage};

use super::failure::failure_kind;
use super::kinds::Kinds;
use super::tally::{Deltas, Tally};
use super::{Reading, Terminal, Unreadable};
use crate::json::carries_something;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    done: Option<bool>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    tool_calls: Option<Tally<ToolCall<'a>>>,
}

/// A call comes whole, its arguments as an object: it is one delta, even without arguments.
#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

impl Deltas for ToolCall<'_> {
    fn count(&self, kinds: &mut Kinds) {
        if has(self.function) {
            kinds.push(DeltaKind::Tool);
        }
    }
}

pub(super) fn read(data: &[u8]) -> Result<Reading, Unreadable> {
    let line: Line<'_> = serde_json::from_slice(data).map_err(|_| Unreadable)?;
    let mut kinds = Kinds::default();
    let message = line.message.as_ref();
    if has(line.thinking) || has(message.and_then(|message| message.thinking)) {
        kinds.push(DeltaKind::Reasoning);
    }
    if has(line.response) || has(message.and_then(|message| message.content)) {
        kinds.push(DeltaKind::Content);
    }
    for &kind in message
        .and_then(|message| message.tool_calls.as_ref())
        .into_iter()
        .flat_map(|calls| calls.kinds.as_slice())
    {
        kinds.push(kind);
    }
    let terminal = if has(line.error) {
        Some(Terminal::Failed(failure_kind(data)))
    } else if line.done == Some(true) {
        Some(Terminal::Done)
    } else {
        None
    };
    // A prompt that was in the cache as a whole is not counted by some versions; then nothing tells its length.
    let counted = line.prompt_eval_count.is_some() || line.eval_count.is_some();
    Ok(Reading {
        kinds,
        terminal,
        usage: counted.then_some(Usage {
            input: line.prompt_eval_count.unwrap_or(0),
            cached_input: None,
            output: line.eval_count.unwrap_or(0),
        }),
        cached_by_timings: None,
    })
}

fn has(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(carries_something)
}
