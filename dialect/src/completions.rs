//! Completions, the legacy API for base models: the request as a server reads it, and the encoder of its reply.

use serde::Deserialize;
use tokenlag_probes::Usage;

use crate::chat::{Head, SYSTEM_FINGERPRINT, StreamOptions, add_timings};
use crate::generation::{FinishReason, Generation, from_json, token_limit};
use crate::json::write;
use crate::responses::BadRequest;
use crate::usage::{PromptUsage, Timings};

/// A completion request.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The model's name.
    pub model: Option<String>,
    /// What to go on from.
    pub prompt: Prompt,
    /// Most tokens to generate.
    pub max_tokens: Option<usize>,
    /// The reply is to be streamed.
    pub stream: bool,
    /// A streamed reply ends with a chunk that carries `usage`.
    pub include_usage: bool,
    /// How to generate.
    pub generation: Generation,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text, to be tokenised.
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

#[derive(Deserialize)]
struct Members {
    model: Option<String>,
    prompt: Option<RawPrompt>,
    max_tokens: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    echo: Option<bool>,
    suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "prompt must be a string, an array of one string, or an array of token ids"
)]
enum RawPrompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

impl CompletionRequest {
    /// Reads a request's body. Members that it does not know are passed by.
    ///
    /// # Errors
    ///
    /// The body is not JSON, has no prompt or several, or a parameter cannot be served.
    pub fn parse(json: &[u8]) -> Result<Self, BadRequest> {
        let members: Members = from_json(json)?;
        if members.echo == Some(true) {
            return Err(BadRequest::param(
                "echo",
                "this server does not echo the prompt: leave out echo",
            ));
        }
        if members.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(BadRequest::param(
                "suffix",
                "this server does not fill in the middle: leave out suffix",
            ));
        }
        Ok(Self {
            model: members.model,
            prompt: read_prompt(members.prompt)?,
            max_tokens: token_limit("max_tokens", members.max_tokens)?,
            stream: members.stream.unwrap_or(false),
            include_usage: members
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            generation: Generation::parse(json)?,
        })
    }
}

fn read_prompt(prompt: Option<RawPrompt>) -> Result<Prompt, BadRequest> {
    let several = || {
        BadRequest::param(
            "prompt",
            "this server takes one prompt a request: send them apart",
        )
    };
    let only = |count: usize| if count == 1 { Ok(()) } else { Err(several()) };
    match prompt {
        None => Err(BadRequest::param("prompt", "prompt is missing")),
        Some(RawPrompt::Text(text)) => Ok(Prompt::Text(text)),
        Some(RawPrompt::Texts(texts)) if texts.is_empty() => Ok(Prompt::Tokens(Vec::new())),
        Some(RawPrompt::Texts(mut texts)) => {
            only(texts.len())?;
            Ok(Prompt::Text(texts.remove(0)))
        }
        Some(RawPrompt::Tokens(tokens)) => Ok(Prompt::Tokens(tokens)),
        Some(RawPrompt::TokenLists(mut lists)) => {
            only(lists.len())?;
            Ok(Prompt::Tokens(lists.remove(0)))
        }
    }
}

/// Writes the reply to one completion request. Each call appends one JSON text: a chunk of a stream (to be framed as
/// an event's data), or the whole reply.
#[derive(Clone, Debug)]
pub struct CompletionEncoder {
    /// All that chunks and the whole reply have in common: an object that is open up to its `choices`.
    head: Vec<u8>,
    /// Chunks before the last carry `"usage":null`, as OpenAI's do where usage was asked for.
    null_usage: bool,
}

impl CompletionEncoder {
    /// An encoder for the reply named `id` (`cmpl-...`), begun at `created` (Unix seconds).
    pub fn new(id: &str, model: &str, created: u64, include_usage: bool) -> Self {
        let head = Head {
            id,
            object: "text_completion",
            created,
            model,
            system_fingerprint: SYSTEM_FINGERPRINT,
        };
        Self {
            head: head.open(),
            null_usage: include_usage,
        }
    }

    /// A delta.
    pub fn text(&self, out: &mut Vec<u8>, text: &str) {
        self.choice(out, text, None);
        self.end_chunk(out);
    }

    /// The chunk that tells why the generation ended. Without a usage chunk to come it carries the timings.
    pub fn finish(&self, out: &mut Vec<u8>, reason: FinishReason, timings: Option<&Timings>) {
        self.choice(out, "", Some(reason));
        self.end_chunk(out);
        if let Some(timings) = timings {
            add_timings(out, timings);
        }
    }

    /// The chunk that carries the usage, and the timings, and no choice.
    pub fn usage(&self, out: &mut Vec<u8>, usage: Usage, timings: Option<&Timings>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(br#","choices":["#);
        self.end_with_usage(out, usage, timings);
    }

    /// The whole reply to a request that is not streamed.
    pub fn whole(
        &self,
        out: &mut Vec<u8>,
        text: &str,
        reason: FinishReason,
        usage: Usage,
        timings: Option<&Timings>,
    ) {
        self.choice(out, text, Some(reason));
        self.end_with_usage(out, usage, timings);
    }

    /// The object up to the end of its one choice.
    fn choice(&self, out: &mut Vec<u8>, text: &str, reason: Option<FinishReason>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(br#","choices":[{"index":0,"text":"#);
        write(out, text);
        out.extend_from_slice(br#","logprobs":null,"finish_reason":"#);
        write(out, &reason.map(FinishReason::name));
        out.push(b'}');
    }

    fn end_chunk(&self, out: &mut Vec<u8>) {
        out.push(b']');
        if self.null_usage {
            out.extend_from_slice(br#","usage":null"#);
        }
        out.push(b'}');
    }

    fn end_with_usage(&self, out: &mut Vec<u8>, usage: Usage, timings: Option<&Timings>) {
        out.extend_from_slice(br#"],"usage":"#);
        write(out, &PromptUsage::from(usage));
        out.push(b'}');
        if let Some(timings) = timings {
            add_timings(out, timings);
        }
    }
}
