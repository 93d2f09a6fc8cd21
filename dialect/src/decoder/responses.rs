//! Reads one event of the Responses API, as the HTTP stream and the WebSocket mode write it.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::{DeltaKind, Usage};

use super::failure::failure_kind;
use super::{Reading, Terminal, Unreadable};
use crate::scan::{Leaves, Scanner};
use crate::sse::SseEvent;
use crate::usage::read_usage;

pub(super) fn read(event: SseEvent<'_>, leaves: &mut Leaves) -> Result<Reading, Unreadable> {
    let mut kind = None;
    let mut delta = false;
    let mut response = None;
    Scanner::whole(event.data, leaves, |scanner, key| {
        match key {
            b"type" => kind = scanner.name()?,
            b"delta" => delta = scanner.something()?,
            b"response" => response = Some(scanner.value()?),
            _ => scanner.pass()?,
        }
        Ok(())
    })?;
    // The type in the JSON is what OpenAI's own clients read; the SSE name stands in where a server leaves it out.
    let name = kind.unwrap_or(event.name);
    let mut reading = Reading {
        terminal: match name {
            b"response.completed" => Some(Terminal::Completed),
            b"response.incomplete" => Some(Terminal::Incomplete),
            b"response.failed" | b"error" => Some(Terminal::Failed(failure_kind(event.data))),
            _ => None,
        },
        ..Reading::default()
    };
    if reading.terminal.is_some() {
        reading.usage = response.and_then(usage_of);
    } else if delta && let Some(kind) = delta_kind(name) {
        reading.kinds.push(kind);
    }
    Ok(reading)
}

/// The usage of a `response` object.
fn usage_of(response: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
    }

    let response: Response<'_> = serde_json::from_slice(response).ok()?;
    read_usage(response.usage?.get().as_bytes())
}

/// What the `delta` of an event of this type carries; `None` where it is no model output.
fn delta_kind(name: &[u8]) -> Option<DeltaKind> {
    let of = name.strip_prefix(b"response.")?.strip_suffix(b".delta")?;
    match of {
        b"output_text" | b"refusal" => Some(DeltaKind::Content),
        b"function_call_arguments"
        | b"mcp_call_arguments"
        | b"custom_tool_call_input"
        | b"code_interpreter_call_code" => Some(DeltaKind::Tool),
        _ if of.starts_with(b"reasoning") => Some(DeltaKind::Reasoning),
        _ => None,
    }
}
