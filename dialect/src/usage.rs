//! Token counts as the APIs write and read them: `usage` of both kinds of OpenAI API, and llama-server's `timings`.

use serde::{Deserialize, Serialize};
use tokenlag_probes::Usage;

use crate::json::is_object;

/// `usage` as any of the dialects writes it: chat and completions say prompt and completion, Responses input and output.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AnyUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

/// Reads a `usage` object. `None` where it counts nothing (null, empty, not an object).
pub(crate) fn read_usage(json: &[u8]) -> Option<Usage> {
    if !is_object(json) {
        return None;
    }
    let usage: AnyUsage = serde_json::from_slice(json).ok()?;
    let input = usage.input_tokens.or(usage.prompt_tokens);
    let output = usage.output_tokens.or(usage.completion_tokens);
    if input.is_none() && output.is_none() {
        return None;
    }
    let details = usage.input_tokens_details.or(usage.prompt_tokens_details);
    Some(Usage {
        input: input.unwrap_or(0),
        cached_input: details.and_then(|details| details.cached_tokens),
        output: output.unwrap_or(0),
    })
}

/// Output tokens that were spent on reasoning, as the details of a `usage` object tell them.
pub(crate) fn read_reasoning_tokens(json: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct AnyUsage {
        completion_tokens_details: Option<Details>,
        output_tokens_details: Option<Details>,
    }

    #[derive(Deserialize)]
    struct Details {
        reasoning_tokens: Option<u64>,
    }

    let usage: AnyUsage = serde_json::from_slice(json).ok()?;
    let details = usage
        .output_tokens_details
        .or(usage.completion_tokens_details);
    details?.reasoning_tokens
}

/// Prompt tokens from the cache as llama-server's `timings` object tells them.
pub(crate) fn read_cached_from_timings(json: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Cached {
        cache_n: Option<u64>,
    }
    serde_json::from_slice::<Cached>(json).ok()?.cache_n
}

/// `usage` of chat completions and completions.
#[derive(Serialize)]
pub(crate) struct PromptUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<WrittenDetails>,
}

/// `usage` of the Responses API.
#[derive(Serialize)]
pub(crate) struct InputUsage {
    input_tokens: u64,
    input_tokens_details: WrittenDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Serialize)]
struct WrittenDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for PromptUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.input + usage.output,
            prompt_tokens_details: usage
                .cached_input
                .map(|cached_tokens| WrittenDetails { cached_tokens }),
        }
    }
}

impl InputUsage {
    /// Of the output `reasoning_tokens` were spent on reasoning.
    pub(crate) fn new(usage: Usage, reasoning_tokens: u64) -> Self {
        Self {
            input_tokens: usage.input,
            input_tokens_details: WrittenDetails {
                cached_tokens: usage.cached_input.unwrap_or(0),
            },
            output_tokens: usage.output,
            output_tokens_details: OutputDetails { reasoning_tokens },
            total_tokens: usage.input + usage.output,
        }
    }
}

/// llama-server's `timings` object, on the last chunk of chat and completions: what the model itself took.
///
/// `cache_n` prompt tokens came from the cache, `prompt_n` were computed in `prompt_ms`, `predicted_n` tokens were
/// generated in `predicted_ms`. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Prompt tokens that the cache had.
    pub cache_n: u64,
    /// Prompt tokens that were computed.
    pub prompt_n: u64,
    /// From the job's start to its first token.
    pub prompt_ms: f64,
    /// Tokens generated.
    pub predicted_n: u64,
    /// From the first token to the last.
    pub predicted_ms: f64,
}

impl Serialize for Timings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written {
            cache_n: u64,
            prompt_n: u64,
            prompt_ms: f64,
            prompt_per_token_ms: f64,
            prompt_per_second: f64,
            predicted_n: u64,
            predicted_ms: f64,
            predicted_per_token_ms: f64,
            predicted_per_second: f64,
        }
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let (prompt_n, predicted_n) = (self.prompt_n as f64, self.predicted_n as f64);
        Written {
            cache_n: self.cache_n,
            prompt_n: self.prompt_n,
            prompt_ms: self.prompt_ms,
            prompt_per_token_ms: ratio(self.prompt_ms, prompt_n),
            prompt_per_second: ratio(prompt_n * 1e3, self.prompt_ms),
            predicted_n: self.predicted_n,
            predicted_ms: self.predicted_ms,
            predicted_per_token_ms: ratio(self.predicted_ms, predicted_n),
            predicted_per_second: ratio(predicted_n * 1e3, self.predicted_ms),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, want: Option<(u64, Option<u64>, u64)>) {
        let want = want.map(|(input, cached_input, output)| Usage {
            input,
            cached_input,
            output,
        });
        assert_eq!(read_usage(json.as_bytes()), want, "{json}");
    }

    #[test]
    fn both_kinds_of_usage_are_read() {
        check(
            r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}"#,
            Some((5, None, 7)),
        );
        check(
            r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}"#,
            Some((5, Some(4), 7)),
        );
        check(
            r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":null}"#,
            Some((5, None, 7)),
        );
        check(
            r#"{"input_tokens":1,"input_tokens_details":{"cached_tokens":0},"output_tokens":2}"#,
            Some((1, Some(0), 2)),
        );
        check("null", None);
        check("{}", None);
        check("[1]", None);
        check(r#"{"prompt_tokens":"many"}"#, None);
    }

    #[test]
    fn what_is_written_reads_back() {
        let usage = Usage {
            input: 9,
            cached_input: Some(8),
            output: 3,
        };
        assert_eq!(
            read_usage(crate::json::raw(&PromptUsage::from(usage)).get().as_bytes()),
            Some(usage)
        );
        assert_eq!(
            read_usage(
                crate::json::raw(&InputUsage::new(usage, 2))
                    .get()
                    .as_bytes()
            ),
            Some(usage)
        );
        assert_eq!(
            read_reasoning_tokens(
                crate::json::raw(&InputUsage::new(usage, 2))
                    .get()
                    .as_bytes()
            ),
            Some(2)
        );
    }

    #[test]
    fn timings_without_time_have_no_rate() {
        let raw = crate::json::raw(&Timings::default());
        assert!(
            raw.get().contains(r#""predicted_per_second":0.0"#),
            "{}",
            raw.get()
        );
        assert_eq!(read_cached_from_timings(raw.get().as_bytes()), Some(0));
    }
}
