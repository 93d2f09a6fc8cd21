//! What a request asks for, of what the instrument can do anything about.

use serde_json::Value;
use tokenlag_dialect::Dialect;

/// Tokens of a reply where neither script nor request says how many.
const USUAL_TOKENS: u32 = 16;

/// The part of a request's body that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) tokens: u32,
    /// Words of the body: stands in for a tokenizer's count.
    pub(crate) words: u64,
}

impl Asked {
    /// Reads a body; the error is its reason in words.
    pub(crate) fn parse(dialect: Dialect, body: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON: {error}"))?;
        if !json.is_object() {
            return Err("the body is no JSON object".to_owned());
        }
        let limit = ["max_output_tokens", "max_completion_tokens", "max_tokens"]
            .iter()
            .find_map(|name| json[*name].as_u64());
        let usage_asked = json["stream_options"]["include_usage"].as_bool();
        Ok(Self {
            model: json["model"].as_str().unwrap_or("scripted").to_owned(),
            stream: json["stream"].as_bool().unwrap_or(false),
            include_usage: dialect == Dialect::Responses || usage_asked.unwrap_or(false),
            tokens: limit.map_or(USUAL_TOKENS, |limit| limit.min(4_000_000) as u32),
            words: body
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .count() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_api_calls_its_limit() {
        for (body, tokens) in [
            (r#"{"max_output_tokens": 3}"#, 3),
            (r#"{"max_completion_tokens": 4, "max_tokens": 9}"#, 4),
            (r#"{"max_tokens": 5}"#, 5),
            ("{}", USUAL_TOKENS),
        ] {
            assert_eq!(
                Asked::parse(Dialect::Chat, body.as_bytes()).unwrap().tokens,
                tokens
            );
        }
    }

    #[test]
    fn usage_is_told_where_it_was_asked_for() {
        let usage = |dialect, body: &str| {
            Asked::parse(dialect, body.as_bytes())
                .unwrap()
                .include_usage
        };
        assert!(usage(Dialect::Responses, "{}"));
        assert!(!usage(Dialect::Chat, "{}"));
        assert!(usage(
            Dialect::Chat,
            r#"{"stream_options": {"include_usage": true}}"#
        ));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert!(Asked::parse(Dialect::Chat, b"[]").is_err());
        assert!(Asked::parse(Dialect::Chat, b"{").is_err());
    }
}
