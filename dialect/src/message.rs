//! A message of a conversation as plain text, whichever API's shape it came in.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Text, read_str};
use crate::responses::BadRequest;

/// One message: who said it, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`; others as they came.
    pub role: String,
    /// The text of all its parts.
    pub text: String,
}

/// The text of a `content` member: a string, null, or an array of text parts (`text`, `input_text`, `output_text`,
/// `refusal`), which are joined.
///
/// # Errors
///
/// A part is not text (an image, audio, a file), or the content is of another type.
pub(crate) fn content_text<'a>(
    content: Option<&'a RawValue>,
    param: &'static str,
) -> Result<Cow<'a, str>, BadRequest> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Text<'a>>,
        #[serde(borrow)]
        text: Option<Text<'a>>,
        #[serde(borrow)]
        refusal: Option<Text<'a>>,
    }

    let wrong = |message: String| BadRequest::param(param, message);
    let Some(content) = content.filter(|content| content.get() != "null") else {
        return Ok(Cow::Borrowed(""));
    };
    if let Some(text) = read_str(content) {
        return Ok(text);
    }
    let parts: Vec<Part<'a>> = serde_json::from_str(content.get()).map_err(|_| {
        wrong(format!(
            "{param}: content must be a string or an array of text parts"
        ))
    })?;
    let mut joined = String::new();
    for part in parts {
        match (part.text.or(part.refusal), part.kind) {
            (Some(text), _) => joined.push_str(&text),
            (None, kind) => {
                let kind = kind.as_deref().unwrap_or("without a type").to_owned();
                return Err(wrong(format!(
                    "{param}: this model reads text only, not a part `{kind}`"
                )));
            }
        }
    }
    Ok(Cow::Owned(joined))
}
