//! Content parts of the Responses API as those of a chat.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::messages::wrong;
use crate::json::{Text, raw, read_str};
use crate::responses::BadRequest;

/// A message's content.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Box<RawValue>>),
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    image_url: Option<Text<'a>>,
    #[serde(borrow)]
    detail: Option<Text<'a>>,
    #[serde(borrow)]
    input_audio: Option<&'a RawValue>,
    #[serde(borrow)]
    file_data: Option<Text<'a>>,
    #[serde(borrow)]
    filename: Option<Text<'a>>,
    #[serde(borrow)]
    file_id: Option<Text<'a>>,
}

/// A part as a chat has it.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
    InputAudio { input_audio: &'a RawValue },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file_data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<&'a str>,
}

/// Content is a string, or parts. Where all parts are text they are joined by a line break, as servers do it whose
/// templates take text alone.
pub(super) fn content(content: Option<&RawValue>) -> Result<Content, BadRequest> {
    let Some(content) = content.filter(|content| content.get() != "null") else {
        return Ok(Content::Text(String::new()));
    };
    if let Some(text) = read_str(content) {
        return Ok(Content::Text(text.into_owned()));
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content.get())
        .map_err(|_| wrong("content must be a string or an array of parts"))?;
    let parts: Vec<ChatPart<'_>> = parts
        .iter()
        .map(Part::translate)
        .collect::<Result<_, _>>()?;
    let texts = parts.iter().map(|part| match part {
        ChatPart::Text { text } => Some(*text),
        _ => None,
    });
    Ok(match texts.collect::<Option<Vec<&str>>>() {
        Some(texts) => Content::Text(texts.join("\n")),
        None => Content::Parts(parts.iter().map(raw).collect()),
    })
}

impl Part<'_> {
    fn translate(&self) -> Result<ChatPart<'_>, BadRequest> {
        let kind = self.kind.as_deref().unwrap_or("");
        if let Some(text) = self.text.as_deref().or(self.refusal.as_deref()) {
            return Ok(ChatPart::Text { text });
        }
        match (kind, self.image_url.as_deref(), self.input_audio) {
            ("input_image", Some(url), _) => Ok(ChatPart::ImageUrl {
                image_url: ImageUrl {
                    url,
                    detail: self.detail.as_deref(),
                },
            }),
            ("input_audio", _, Some(input_audio)) => Ok(ChatPart::InputAudio { input_audio }),
            ("input_file", ..) if self.file_data.is_some() || self.file_id.is_some() => {
                Ok(ChatPart::File {
                    file: File {
                        file_data: self.file_data.as_deref(),
                        filename: self.filename.as_deref(),
                        file_id: self.file_id.as_deref(),
                    },
                })
            }
            _ => Err(wrong(format!(
                "the upstream has only chat completions, which take no part `{kind}` as it is here: send text, an image by image_url, or a file's data"
            ))),
        }
    }
}
