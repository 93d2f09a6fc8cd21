//! Chat completions: the request as a server reads it, and the encoder of its reply, streamed or whole.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenlag_probes::Usage;

use crate::generation::{FinishReason, Generation, from_json, token_limit};
use crate::json::{Text, write};
use crate::message::{Message, content_text};
use crate::responses::BadRequest;
use crate::usage::{PromptUsage, Timings};

/// A chat completion request.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model's name.
    pub model: Option<String>,
    /// The conversation, at least one message.
    pub messages: Vec<Message>,
    /// Most tokens to generate: `max_completion_tokens`, else `max_tokens`.
    pub max_tokens: Option<usize>,
    /// The reply is to be streamed.
    pub stream: bool,
    /// A streamed reply ends with a chunk that carries `usage`.
    pub include_usage: bool,
    /// How to generate.
    pub generation: Generation,
}

/// `stream_options`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Members<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<RawMessage<'a>>>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    role: String,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
}

impl ChatRequest {
    /// Reads a request's body. Members that it does not know (`tools`, `response_format`, ...) are passed by.
    ///
    /// # Errors
    ///
    /// The body is not JSON, lacks messages, holds content that is not text, or a parameter cannot be served.
    pub fn parse(json: &[u8]) -> Result<Self, BadRequest> {
        let members: Members<'_> = from_json(json)?;
        let messages = members.messages.unwrap_or_default();
        if messages.is_empty() {
            return Err(BadRequest::param(
                "messages",
                "messages must have at least one message",
            ));
        }
        let limit = match members.max_completion_tokens {
            Some(limit) => token_limit("max_completion_tokens", Some(limit))?,
            None => token_limit("max_tokens", members.max_tokens)?,
        };
        Ok(Self {
            model: members.model,
            messages: messages
                .iter()
                .map(RawMessage::read)
                .collect::<Result<_, _>>()?,
            max_tokens: limit,
            stream: members.stream.unwrap_or(false),
            include_usage: members
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            generation: Generation::parse(json)?,
        })
    }
}

impl RawMessage<'_> {
    fn read(&self) -> Result<Message, BadRequest> {
        let mut text = content_text(self.content, "messages")?.into_owned();
        let functions = self
            .tool_calls
            .iter()
            .flatten()
            .filter_map(|call| call.function.as_ref());
        for function in functions {
            let arguments = function.arguments.as_deref().unwrap_or("");
            text.push_str(&format!("{}({arguments})", &*function.name));
        }
        Ok(Message {
            role: self.role.clone(),
            text,
        })
    }
}

/// Writes the reply to one chat completion request. Each call appends one JSON text: a chunk of a stream (to be framed
/// as an event's data), or the whole reply.
#[derive(Clone, Debug)]
pub struct ChatEncoder {
    /// All that the chunks have in common: an object that is open up to its `choices`.
    chunk_head: Vec<u8>,
    whole_head: Vec<u8>,
    /// Chunks before the last carry `"usage":null`, as OpenAI's do where usage was asked for.
    null_usage: bool,
}

/// The members that every chunk of a reply repeats.
#[derive(Serialize)]
pub(crate) struct Head<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'a str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'a str,
}

impl Head<'_> {
    /// The object's JSON, open at its end for more members.
    pub(crate) fn open(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, self);
        out.pop();
        out
    }
}

impl ChatEncoder {
    /// An encoder for the reply named `id` (`chatcmpl-...`), begun at `created` (Unix seconds).
    pub fn new(id: &str, model: &str, created: u64, include_usage: bool) -> Self {
        let head = |object| {
            let head = Head {
                id,
                object,
                created,
                model,
                system_fingerprint: SYSTEM_FINGERPRINT,
            };
            head.open()
        };
        Self {
            chunk_head: head("chat.completion.chunk"),
            whole_head: head("chat.completion"),
            null_usage: include_usage,
        }
    }

    /// The first chunk: the role, and no content.
    pub fn role(&self, out: &mut Vec<u8>) {
        self.chunk(out, |out| {
            out.extend_from_slice(
                br#"{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#,
            );
        });
    }

    /// A delta.
    pub fn content(&self, out: &mut Vec<u8>, text: &str) {
        self.chunk(out, |out| {
            out.extend_from_slice(br#"{"content":"#);
            write(out, text);
            out.extend_from_slice(br#"},"logprobs":null,"finish_reason":null"#);
        });
    }

    /// The chunk that tells why the generation ended. Without a usage chunk to come it carries the timings.
    pub fn finish(&self, out: &mut Vec<u8>, reason: FinishReason, timings: Option<&Timings>) {
        self.chunk(out, |out| {
            out.extend_from_slice(br#"{},"logprobs":null,"finish_reason":"#);
            write(out, reason.name());
        });
        if let Some(timings) = timings {
            add_timings(out, timings);
        }
    }

    /// The chunk that carries the usage, and the timings, and no choice.
    pub fn usage(&self, out: &mut Vec<u8>, usage: Usage, timings: Option<&Timings>) {
        out.extend_from_slice(&self.chunk_head);
        out.extend_from_slice(br#","choices":[],"usage":"#);
        write(out, &PromptUsage::from(usage));
        out.push(b'}');
        if let Some(timings) = timings {
            add_timings(out, timings);
        }
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
        out.extend_from_slice(&self.whole_head);
        out.extend_from_slice(
            br#","choices":[{"index":0,"message":{"role":"assistant","content":"#,
        );
        write(out, text);
        out.extend_from_slice(br#","refusal":null},"logprobs":null,"finish_reason":"#);
        write(out, reason.name());
        out.extend_from_slice(br#"}],"usage":"#);
        write(out, &PromptUsage::from(usage));
        out.push(b'}');
        if let Some(timings) = timings {
            add_timings(out, timings);
        }
    }

    /// One chunk; `rest` writes its choice from the value of `delta` on.
    fn chunk(&self, out: &mut Vec<u8>, rest: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.chunk_head);
        out.extend_from_slice(br#","choices":[{"index":0,"delta":"#);
        rest(out);
        out.extend_from_slice(b"}]");
        if self.null_usage {
            out.extend_from_slice(br#","usage":null"#);
        }
        out.push(b'}');
    }
}

/// What `system_fingerprint` says: the build that computed the reply.
pub(crate) const SYSTEM_FINGERPRINT: &str = concat!("tokenlag-", env!("CARGO_PKG_VERSION"));

/// The data of the event that ends a stream of chat completions or completions.
pub const DONE: &[u8] = b"[DONE]";

/// Adds `timings` to the object that was just written.
pub(crate) fn add_timings(out: &mut Vec<u8>, timings: &Timings) {
    out.pop();
    out.extend_from_slice(br#","timings":"#);
    write(out, timings);
    out.push(b'}');
}
