//! `/v1/chat/completions`: answers a conversation that the request brings whole.

use std::rc::Rc;

use hyper::Response;
use tokenlag_dialect::chat::{ChatEncoder, ChatRequest};

use super::answer::{Answer, Ask, reply};
use super::body::Body;
use super::chunks::{Chunks, Encoder};
use super::error::ApiError;
use super::memory::role;
use super::service::{Service, unix_seconds};

pub(super) async fn handle(service: Rc<Service>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let request = ChatRequest::parse(body)?;
    let messages: Vec<_> = request
        .messages
        .iter()
        .map(|message| (role(&message.role), &*message.text))
        .collect();
    let ask = Ask {
        prompt: service.model.tokenizer().chat_prompt(&messages),
        param: "messages",
        max_tokens: request.max_tokens.unwrap_or(service.max_tokens),
        generation: request.generation,
    };
    let answer = Answer::begin(&service, ask).await?;
    let id = service.new_id("chatcmpl-");
    let name = service.model.name();
    let encoder = ChatEncoder::new(&id, name, unix_seconds(), request.include_usage);
    let script = Chunks::new(Encoder::Chat(encoder), request.include_usage);
    reply(answer, script, request.stream).await
}
