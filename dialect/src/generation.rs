//! How to generate: the parameters that all three APIs share, read and checked in one place.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::fields::Fields;
use crate::json::is_object;
use crate::responses::BadRequest;

/// Most stop strings that a request may give, as OpenAI documents it.
pub const MAX_STOPS: usize = 4;

/// How tokens are to be chosen, and when to stop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    /// From 0 (always the likeliest token) to 2; `None` leaves it to the server.
    pub temperature: Option<f32>,
    /// The share of probability to sample from, above 0 up to 1.
    pub top_p: Option<f32>,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
    /// Strings that end the output, and are no part of it: up to [`MAX_STOPS`], none empty.
    pub stop: Vec<String>,
    /// Generate up to the limit of tokens, even past the model's end of text (an extension that vLLM and llama-server
    /// know too; load tests need it for equal output lengths).
    pub ignore_eos: bool,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end of text, or a stop string.
    Stop,
    /// The limit of tokens.
    Length,
}

impl FinishReason {
    /// The `finish_reason` of chat completions and completions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The members as they come; null is the same as missing.
#[derive(Deserialize)]
struct Members {
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    #[serde(default, deserialize_with = "strings")]
    stop: Vec<String>,
    ignore_eos: Option<bool>,
    n: Option<u64>,
    best_of: Option<u64>,
}

impl Generation {
    /// Reads the parameters out of a request's body; members that it does not know are passed by.
    ///
    /// # Errors
    ///
    /// A parameter has the wrong type or is out of range; more than one choice is asked for.
    pub fn parse(json: &[u8]) -> Result<Self, BadRequest> {
        let members: Members = from_json(json)?;
        in_range("temperature", members.temperature, 0.0..=2.0)?;
        in_range("top_p", members.top_p, f32::MIN_POSITIVE..=1.0)?;
        for (param, value) in [("n", members.n), ("best_of", members.best_of)] {
            if value.is_some_and(|value| value != 1) {
                return Err(BadRequest::param(
                    param,
                    format!("this server makes one choice a request: leave out {param}, or send 1"),
                ));
            }
        }
        if members.stop.len() > MAX_STOPS || members.stop.iter().any(String::is_empty) {
            return Err(BadRequest::param(
                "stop",
                format!("stop takes up to {MAX_STOPS} strings, none of them empty"),
            ));
        }
        Ok(Self {
            temperature: members.temperature,
            top_p: members.top_p,
            seed: members.seed.map(i64::cast_unsigned),
            stop: members.stop,
            ignore_eos: members.ignore_eos.unwrap_or(false),
        })
    }
}

/// Reads a request's typed members; the error names line and column.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, BadRequest> {
    if !is_object(json) {
        Fields::parse(json)?;
    }
    serde_json::from_slice(json).map_err(|error| BadRequest {
        message: match error.classify() {
            serde_json::error::Category::Data => format!("the request cannot be read: {error}"),
            _ => format!("the request is not valid JSON: {error}"),
        },
        param: None,
        code: Some("invalid_json"),
    })
}

/// A limit of tokens: at least 1.
pub(crate) fn token_limit(
    param: &'static str,
    limit: Option<usize>,
) -> Result<Option<usize>, BadRequest> {
    match limit {
        Some(0) => Err(BadRequest::param(
            param,
            format!("{param} must be at least 1"),
        )),
        limit => Ok(limit),
    }
}

fn in_range(
    param: &'static str,
    value: Option<f32>,
    range: std::ops::RangeInclusive<f32>,
) -> Result<(), BadRequest> {
    match value {
        Some(value) if !range.contains(&value) => {
            let low = if *range.start() > 0.0 {
                "above 0"
            } else {
                "at least 0"
            };
            Err(BadRequest::param(
                param,
                format!("{param} must be {low} and at most {}", range.end()),
            ))
        }
        _ => Ok(()),
    }
}

/// A string, several, or null.
pub(crate) fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or an array of strings")]
    enum Strings<'a> {
        None(()),
        One(Cow<'a, str>),
        Many(Vec<String>),
    }

    Ok(match Strings::deserialize(deserializer)? {
        Strings::None(()) => Vec::new(),
        Strings::One(one) => vec![one.into_owned()],
        Strings::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read() {
        let read = Generation::parse(
            br#"{"temperature":0,"top_p":0.9,"seed":-1,"stop":"\n","ignore_eos":true,"n":1,"other":[]}"#,
        );
        assert_eq!(
            read.unwrap(),
            Generation {
                temperature: Some(0.0),
                top_p: Some(0.9),
                seed: Some(u64::MAX),
                stop: vec!["\n".into()],
                ignore_eos: true,
            }
        );
        let nulls = br#"{"temperature":null,"top_p":null,"seed":null,"stop":null,"n":null}"#;
        assert_eq!(Generation::parse(nulls).unwrap(), Generation::default());
        assert_eq!(
            Generation::parse(br#"{"stop":["a","b"]}"#).unwrap().stop,
            ["a", "b"]
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (json, param) in [
            (r#"{"n":2}"#, Some("n")),
            (r#"{"best_of":3}"#, Some("best_of")),
            (r#"{"temperature":2.5}"#, Some("temperature")),
            (r#"{"temperature":-0.1}"#, Some("temperature")),
            (r#"{"top_p":0}"#, Some("top_p")),
            (r#"{"stop":["a","b","c","d","e"]}"#, Some("stop")),
            (r#"{"stop":""}"#, Some("stop")),
            (r#"{"stop":7}"#, None),
            (r#"{"seed":"x"}"#, None),
            ("{", None),
            ("[0.5,1]", None),
        ] {
            let error = Generation::parse(json.as_bytes()).unwrap_err();
            assert_eq!(error.param, param, "{json}: {error}");
        }
        let error = Generation::parse(b"{\n  \"n\": 1,\n  oops}").unwrap_err();
        assert!(error.to_string().contains("line 3 column 3"), "{error}");
    }
}
