//! One delta as each dialect writes it, of the size that it has in practice.

use bytes::Bytes;
use serde_json::json;
use tokenlag_dialect::{Dialect, Framing, write_event};

/// The bytes of JSON in an event of the Responses API.
pub const RESPONSES_EVENT: usize = 250;

/// The event's name, where the dialect has names, and its data.
pub fn delta(dialect: Dialect) -> (Option<&'static str>, Vec<u8>) {
    let text = " token";
    let (name, json) = match dialect {
        Dialect::Responses => return (Some("response.output_text.delta"), responses_delta()),
        Dialect::Chat => (
            None,
            json!({"id": "chatcmpl-Cq7x1b2c3d4e5f6a7b8c9d0e", "object": "chat.completion.chunk", "created": 1_763_800_000, "model": "m-2026-08-01",
                "choices": [{"index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": null}], "usage": null}),
        ),
        Dialect::Completions => (
            None,
            json!({"id": "cmpl-9a8b7c6d5e4f", "object": "text_completion", "created": 1_763_800_000, "model": "m-2026-08-01",
                "choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": null}], "usage": null}),
        ),
        Dialect::Anthropic => (
            Some("content_block_delta"),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": text}}),
        ),
        Dialect::Ollama => (
            None,
            json!({"model": "gemma3:270m", "created_at": "2026-11-22T08:00:00.021000000Z",
                "message": {"role": "assistant", "content": text}, "done": false}),
        ),
    };
    (name, json.to_string().into_bytes())
}

/// As OpenAI writes it: in this order, and padded.
fn responses_delta() -> Vec<u8> {
    let event = |padding: &str| {
        format!(
            r#"{{"type":"response.output_text.delta","sequence_number":42,"item_id":"msg_68f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5","output_index":0,"content_index":0,"delta":" token","logprobs":[],"obfuscation":"{padding}"}}"#
        )
    };
    let padding = "x".repeat(RESPONSES_EVENT - event("").len());
    event(&padding).into_bytes()
}

/// An event on the wire, framed in this way.
pub fn framed(framing: Framing, name: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match framing {
        Framing::Sse => write_event(&mut out, name, data),
        Framing::Lines => {
            out.extend_from_slice(data);
            out.push(b'\n');
        }
        Framing::Messages => out.extend_from_slice(data),
    }
    out
}

/// A delta of the dialect on the wire, framed as the dialect frames it.
pub fn wire(dialect: Dialect) -> Bytes {
    let (name, data) = delta(dialect);
    framed(dialect.framing(), name, &data).into()
}

/// Two deltas that differ as a stream's do, each on the wire: events that are all the same bytes would be read too cheaply.
pub fn wires(dialect: Dialect) -> [Bytes; 2] {
    let (name, data) = delta(dialect);
    let other = String::from_utf8_lossy(&data)
        .replace(" token", " other")
        .replace(":42,", ":43,")
        .replace(".021000000Z", ".034000000Z");
    [&data, other.as_bytes()].map(|data| framed(dialect.framing(), name, data).into())
}
