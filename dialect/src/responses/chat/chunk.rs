//! One event of a chat's stream: its shape, and the pieces of output in it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Text, carries_something, read_str};
use crate::responses::Finish;

#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) timings: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    /// In the place of a delta where the server did not stream.
    #[serde(borrow)]
    pub(super) message: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    pub(super) function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// A piece of model output, `None` where it is empty. What is neither a string nor text parts is passed on as its JSON:
/// the tap counts it as a delta too.
pub(super) fn piece(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        text: Text<'a>,
    }

    let raw = raw.filter(|raw| carries_something(raw))?;
    if let Some(text) = read_str(raw) {
        return Some(text);
    }
    let parts: Option<Vec<Part<'_>>> = serde_json::from_str(raw.get()).ok();
    let joined = parts.map(|parts| parts.iter().map(|part| &*part.text).collect::<String>());
    let joined = joined.filter(|text| !text.is_empty());
    Some(joined.map_or(Cow::Borrowed(raw.get()), Cow::Owned))
}

/// The failure that an `error` member tells: a string, or an object of `message`, `type` and `code`.
pub(super) fn failure(error: &RawValue) -> Finish {
    #[derive(Default, Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow)]
        code: Option<&'a RawValue>,
    }

    let told: Told<'_> = serde_json::from_str(error.get()).unwrap_or_default();
    let text = |raw: Option<&RawValue>| raw.and_then(read_str).map(Cow::into_owned);
    let message = text(told.message).or_else(|| text(Some(error)));
    Finish::Failed {
        code: text(told.code)
            .or_else(|| text(told.kind))
            .unwrap_or_else(|| "server_error".into()),
        message: message.unwrap_or_else(|| error.get().to_owned()),
    }
}
