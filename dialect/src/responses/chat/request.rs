//! A `create` as the chat completions request that does the same, for a server that has no Responses API.

use serde::Serialize;
use serde_json::value::RawValue;

use super::messages::Messages;
use super::tools::set_tools;
use crate::fields::Fields;
use crate::json::raw;
use crate::responses::{BadRequest, Create};

/// Members that mean something to the Responses API alone, and those that are written anew from the conversation.
const DROPPED: [&str; 24] = [
    "type",
    "stream_id",
    "previous_response_id",
    "generate",
    "client_metadata",
    "background",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "max_tool_calls",
    "text",
    "reasoning",
    "include",
    "store",
    "metadata",
    "truncation",
    "context_management",
    "top_logprobs",
    "n",
    "conversation",
    "prompt",
];

/// The chat completions body for the whole conversation: `history` (oldest first), then the create's own input. It
/// always asks for a stream that ends with its usage, whatever the client asked for.
///
/// - `instructions` come first, as the system's message; `developer` messages are the system's too. System messages that
///   follow one another are one: many chat templates take only one, at the start.
/// - Function calls that follow one another are one assistant message, with the assistant's text right before them.
///   Their outputs are tool messages. Calls of other kinds (`custom_tool_call`, `local_shell_call`) are written as
///   function calls. Reasoning is left out, and so are items that tell of a hosted tool's work.
/// - Of the tools functions alone are known to chat. Others (web search, custom, local shell) are left out: clients such
///   as Codex always offer some, and do well without.
/// - `max_output_tokens` is `max_tokens`, which llama-server, vLLM and Ollama know; `text.format` is `response_format`,
///   `text.verbosity` is `verbosity`, `reasoning.effort` is `reasoning_effort`.
/// - Members that have the same name and meaning there (`temperature`, `seed`, `stop`, ...) and unknown ones
///   (`ignore_eos`, ...) are passed on; those that only the Responses API has are left out.
///
/// # Errors
///
/// The conversation is empty, or holds what chat completions cannot say: an item by reference, a file by address, a
/// `conversation` or `prompt` that the server would keep.
pub fn to_chat<'h>(
    create: &Create<'_>,
    history: impl Iterator<Item = &'h RawValue>,
) -> Result<Vec<u8>, BadRequest> {
    for name in ["conversation", "prompt"] {
        if member(&create.fields, name).is_some() {
            return Err(BadRequest::param(
                name,
                format!(
                    "the upstream has only chat completions and keeps no {name}: send it as input"
                ),
            ));
        }
    }
    let own = create.input_items()?;
    let mut messages = Messages::default();
    if let Some(text) = create.fields.get_str("instructions") {
        messages.system(&text);
    }
    for item in history {
        messages.take(item)?;
    }
    for item in &own {
        messages.take(item)?;
    }
    let messages = messages.finish();
    if messages.is_empty() {
        return Err(BadRequest::param(
            "input",
            "input must have at least one item",
        ));
    }

    let mut fields = create.fields.clone();
    for name in DROPPED {
        fields.remove(name);
    }
    fields.set("messages", raw(&messages));
    fields.set("stream", raw(&true));
    fields.set(
        "stream_options",
        raw(&StreamOptions {
            include_usage: true,
        }),
    );
    rename(
        &mut fields,
        &create.fields,
        "max_output_tokens",
        "max_tokens",
    );
    if let Some(reasoning) = object(&create.fields, "reasoning") {
        rename(&mut fields, &reasoning, "effort", "reasoning_effort");
    }
    if let Some(text) = object(&create.fields, "text") {
        rename(&mut fields, &text, "verbosity", "verbosity");
        if let Some(format) = object(&text, "format").and_then(|format| response_format(&format)) {
            fields.set("response_format", format);
        }
    }
    set_tools(&mut fields, &create.fields)?;
    Ok(fields.to_vec())
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// A member that is there and not null.
pub(super) fn member<'a>(fields: &'a Fields<'_>, name: &str) -> Option<&'a RawValue> {
    fields.get(name).filter(|value| value.get() != "null")
}

/// A member that is an object.
fn object<'a>(fields: &'a Fields<'_>, name: &str) -> Option<Fields<'a>> {
    Fields::parse(fields.get(name)?.get().as_bytes()).ok()
}

/// Copies a member under another name, unless it is null.
pub(super) fn rename(to: &mut Fields<'_>, from: &Fields<'_>, old: &str, new: &str) {
    if let Some(value) = member(from, old) {
        to.set(new, value.to_owned());
    }
}

/// `text.format` is flat, `response_format` holds the schema in an object of its own. Plain text needs none.
fn response_format(format: &Fields<'_>) -> Option<Box<RawValue>> {
    let kind = format.get_str("type")?;
    let mut out = Fields::default();
    match &*kind {
        "text" => return None,
        "json_schema" => {
            let mut schema = Fields::default();
            for name in ["name", "description", "schema", "strict"] {
                rename(&mut schema, format, name, name);
            }
            out.set_str("type", &kind);
            out.set("json_schema", schema.to_raw());
        }
        _ => return Some(format.to_raw()),
    }
    Some(out.to_raw())
}
