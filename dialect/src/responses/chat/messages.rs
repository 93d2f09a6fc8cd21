//! Items of the Responses API as the messages of a chat.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::content::{Content, content};
use crate::fields::Fields;
use crate::json::{Text, is_object, read_str};
use crate::responses::BadRequest;

/// The messages of a conversation, as they grow item by item.
#[derive(Debug, Default)]
pub(super) struct Messages {
    messages: Vec<Message>,
}

/// A message of a chat.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    role: String,
    content: Option<Content>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    call_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    /// Of a custom tool's call.
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    /// Of a shell's call.
    #[serde(borrow)]
    action: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

impl Messages {
    /// Adds a system message, to the one before where that is the system's too.
    pub(super) fn system(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Message {
            role,
            content: Some(Content::Text(before)),
            ..
        }) = self.messages.last_mut()
            && role == "system"
        {
            before.push_str("\n\n");
            before.push_str(text);
            return;
        }
        self.push("system", Some(Content::Text(text.to_owned())));
    }

    /// Adds one item.
    ///
    /// # Errors
    ///
    /// It is not an item, refers to one by id, or holds content that a chat cannot have.
    pub(super) fn take(&mut self, item: &RawValue) -> Result<(), BadRequest> {
        if !is_object(item.get().as_bytes()) {
            return Err(wrong("each item of input must be an object"));
        }
        let item: Item<'_> = serde_json::from_str(item.get())
            .map_err(|error| wrong(format!("an item of input cannot be read: {error}")))?;
        match item.kind.as_deref() {
            None | Some("message") => self.message(&item),
            Some("item_reference") => Err(wrong(
                "the upstream has only chat completions and cannot look up an item_reference: send the item itself, or previous_response_id",
            )),
            Some(kind) if kind.ends_with("_output") => self.output(&item),
            Some(kind) if kind.ends_with("_call") => self.call(kind, &item),
            Some(_) => Ok(()),
        }
    }

    /// The messages, in order.
    pub(super) fn finish(self) -> Vec<Message> {
        self.messages
    }

    fn message(&mut self, item: &Item<'_>) -> Result<(), BadRequest> {
        let role = item
            .role
            .as_deref()
            .ok_or_else(|| wrong("a message of input needs a role"))?;
        let content = content(item.content)?;
        match (role, content) {
            ("system" | "developer", Content::Text(text)) => self.system(&text),
            ("developer", content) => self.push("system", Some(content)),
            (role, content) => self.push(role, Some(content)),
        }
        Ok(())
    }

    fn call(&mut self, kind: &str, item: &Item<'_>) -> Result<(), BadRequest> {
        // A hosted tool's call has no output for us to give: what it found is in the text that follows.
        let Some(id) = item.call_id.as_deref().or_else(|| {
            let ours = kind == "function_call";
            item.id.as_deref().filter(|_| ours)
        }) else {
            return match kind {
                "function_call" => Err(wrong("a function_call of input needs a call_id")),
                _ => Ok(()),
            };
        };
        let name = item.name.as_deref();
        let call = ToolCall {
            id: id.to_owned(),
            r#type: "function",
            function: Function {
                name: name
                    .unwrap_or(&kind[..kind.len() - "_call".len()])
                    .to_owned(),
                arguments: arguments(item),
            },
        };
        if let Some(last) = self.messages.last_mut()
            && last.role == "assistant"
        {
            last.tool_calls.push(call);
            return Ok(());
        }
        self.push("assistant", None);
        if let Some(last) = self.messages.last_mut() {
            last.tool_calls.push(call);
        }
        Ok(())
    }

    fn output(&mut self, item: &Item<'_>) -> Result<(), BadRequest> {
        let id = item
            .call_id
            .as_deref()
            .ok_or_else(|| wrong("the output of a call needs a call_id"))?;
        let content = match item.output {
            // An object is the output of a tool that chat does not know: its JSON says it.
            Some(output) if is_object(output.get().as_bytes()) => {
                Content::Text(output.get().to_owned())
            }
            output => content(output)?,
        };
        self.push("tool", Some(content));
        if let Some(last) = self.messages.last_mut() {
            last.tool_call_id = Some(id.to_owned());
        }
        Ok(())
    }

    fn push(&mut self, role: &str, content: Option<Content>) {
        self.messages.push(Message {
            role: role.to_owned(),
            content,
            tool_calls: Vec::new(),
            tool_call_id: None,
        });
    }
}

/// What a call asks, as the text of a JSON object.
fn arguments(item: &Item<'_>) -> String {
    if let Some(arguments) = item.arguments {
        return read_str(arguments).map_or_else(|| arguments.get().to_owned(), |text| text.into());
    }
    if let Some(input) = item.input {
        let mut object = Fields::default();
        object.set("input", input.to_owned());
        return object.to_raw().get().to_owned();
    }
    item.action.map_or("{}", RawValue::get).to_owned()
}

/// A fault of the conversation.
pub(super) fn wrong(message: impl Into<String>) -> BadRequest {
    BadRequest::param("input", message)
}
