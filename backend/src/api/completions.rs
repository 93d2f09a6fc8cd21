//! `/v1/completions`: goes on from a text or from token ids.

use std::rc::Rc;

use hyper::Response;
use tokenlag_dialect::completions::{CompletionEncoder, CompletionRequest, Prompt};

use super::answer::{Answer, Ask, reply};
use super::body::Body;
use super::chunks::{Chunks, Encoder};
use super::error::ApiError;
use super::service::{Service, unix_seconds};

/// The limit of tokens of a request that names none, as OpenAI documents it.
const DEFAULT_MAX_TOKENS: usize = 16;

pub(super) async fn handle(service: Rc<Service>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let request = CompletionRequest::parse(body)?;
    let prompt = match request.prompt {
        Prompt::Text(text) => service.model.tokenizer().encode_prompt(&text),
        Prompt::Tokens(tokens) => tokens,
    };
    let ask = Ask {
        prompt,
        param: "prompt",
        max_tokens: request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        generation: request.generation,
    };
    let answer = Answer::begin(&service, ask).await?;
    let id = service.new_id("cmpl-");
    let name = service.model.name();
    let encoder = CompletionEncoder::new(&id, name, unix_seconds(), request.include_usage);
    let script = Chunks::new(Encoder::Completion(encoder), request.include_usage);
    reply(answer, script, request.stream).await
}
