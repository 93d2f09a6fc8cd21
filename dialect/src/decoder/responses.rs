//! Reads one event of the Responses API, as the HTTP stream and the WebSocket mode write it.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::DeltaKind;

use super::failure::failure_kind;
use super::{Reading, Terminal, Unreadable};
use crate::json::{Text, carries_something};
use crate::sse::SseEvent;
use crate::usage::read_usage;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

pub(super) fn read(event: SseEvent<'_>) -> Result<Reading, Unreadable> {
    let parsed: Event<'_> = serde_json::from_slice(event.data).map_err(|_| Unreadable)?;
    // The type in the JSON is what OpenAI's own clients read; the SSE name stands in where a server leaves it out.
    let name = match &parsed.kind {
        Some(kind) => &**kind,
        None => std::str::from_utf8(event.name).unwrap_or(""),
    };
    let mut reading = Reading {
        terminal: match name {
            "response.completed" => Some(Terminal::Completed),
            "response.incomplete" => Some(Terminal::Incomplete),
            "response.failed" | "error" => Some(Terminal::Failed(failure_kind(event.data))),
            _ => None,
        },
        ..Reading::default()
    };
    if reading.terminal.is_some() {
        reading.usage = parsed
            .response
            .and_then(|raw| serde_json::from_str::<Response<'_>>(raw.get()).ok())
            .and_then(|response| response.usage)
            .and_then(read_usage);
    } else if parsed.delta.is_some_and(carries_something)
        && let Some(kind) = delta_kind(name)
    {
        reading.kinds.push(kind);
    }
    Ok(reading)
}

/// What the `delta` of an event of this type carries; `None` where it is no model output.
fn delta_kind(name: &str) -> Option<DeltaKind> {
    let of = name.strip_prefix("response.")?.strip_suffix(".delta")?;
    match of {
        "output_text" | "refusal" => Some(DeltaKind::Content),
        "function_call_arguments"
        | "mcp_call_arguments"
        | "custom_tool_call_input"
        | "code_interpreter_call_code" => Some(DeltaKind::Tool),
        _ if of.starts_with("reasoning") => Some(DeltaKind::Reasoning),
        _ => None,
    }
}
