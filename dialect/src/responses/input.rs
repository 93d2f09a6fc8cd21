//! Input items as plain messages, for a server whose model reads text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::BadRequest;
use crate::json::{Text, is_object};
use crate::message::{Message, content_text};

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// One input item as a message. `None` where the item has no text to read (reasoning).
///
/// Messages keep their role. A function call is the assistant's, as `name(arguments)`; the output of any kind of call
/// is the tool's. Items of kinds not known here become the assistant's, as their JSON, so that nothing is lost.
///
/// # Errors
///
/// The item is not an object, refers to another by id, or holds content that is not text.
pub fn read_item(item: &RawValue) -> Result<Option<Message>, BadRequest> {
    if !is_object(item.get().as_bytes()) {
        return Err(BadRequest::param(
            "input",
            "each item of input must be an object",
        ));
    }
    let parsed: Item<'_> = serde_json::from_str(item.get()).map_err(|error| {
        BadRequest::param("input", format!("an item of input cannot be read: {error}"))
    })?;
    let message = |role: &str, text: Cow<'_, str>| {
        Ok(Some(Message {
            role: role.to_owned(),
            text: text.into_owned(),
        }))
    };
    match parsed.kind.as_deref() {
        Some("reasoning") => Ok(None),
        Some("item_reference") => Err(BadRequest::param(
            "input",
            "this server cannot look up an item_reference: send the item itself, or previous_response_id",
        )),
        Some("function_call") => {
            let name = parsed.name.as_deref().unwrap_or("");
            let arguments = parsed.arguments.as_deref().unwrap_or("");
            message("assistant", Cow::Owned(format!("{name}({arguments})")))
        }
        // `{"role","content"}` without a type is a message too.
        Some("message") | None => match parsed.role {
            Some(role) => message(&role, content_text(parsed.content, "input")?),
            None => Err(BadRequest::param(
                "input",
                "a message of input needs a role",
            )),
        },
        Some(kind) if kind.ends_with("_output") => {
            let text = content_text(parsed.output, "input");
            message(
                "tool",
                text.unwrap_or_else(|_| parsed.output.map_or("", RawValue::get).into()),
            )
        }
        Some(_) => message("assistant", Cow::Borrowed(item.get())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(item: &str, want: Option<(&str, &str)>) {
        let raw: &RawValue = serde_json::from_str(item).unwrap();
        let got = read_item(raw).unwrap();
        let got = got.as_ref().map(|message| (&*message.role, &*message.text));
        assert_eq!(got, want, "{item}");
    }

    #[test]
    fn items_of_every_kind() {
        check(
            r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]}"#,
            Some(("user", "a")),
        );
        check(
            r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[]},{"type":"refusal","refusal":"b"}]}"#,
            Some(("assistant", "ab")),
        );
        check(
            r#"{"role":"developer","content":"a"}"#,
            Some(("developer", "a")),
        );
        check(
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}"#,
            Some(("assistant", "f({\"a\":1})")),
        );
        check(
            r#"{"type":"function_call_output","call_id":"c","output":"ok"}"#,
            Some(("tool", "ok")),
        );
        check(
            r#"{"type":"custom_tool_call_output","output":[{"type":"input_text","text":"ok"}]}"#,
            Some(("tool", "ok")),
        );
        check(
            r#"{"type":"computer_call_output","output":{"type":"x"}}"#,
            Some(("tool", r#"{"type":"x"}"#)),
        );
        check(r#"{"type":"reasoning","summary":[]}"#, None);
        check(
            r#"{"type":"web_search_call"}"#,
            Some(("assistant", r#"{"type":"web_search_call"}"#)),
        );
    }

    #[test]
    fn items_that_cannot_be_read() {
        for item in [
            "7",
            "[]",
            r#"{"type":"item_reference","id":"msg_1"}"#,
            r#"{"type":"message","content":"a"}"#,
            r#"{"role":"user","content":[{"type":"input_image","image_url":"x"}]}"#,
            r#"{"role":7}"#,
        ] {
            let raw: &RawValue = serde_json::from_str(item).unwrap();
            assert_eq!(read_item(raw).unwrap_err().param, Some("input"), "{item}");
        }
    }
}
