//! `/v1/chat/completions`: answers a conversation that the request brings whole.

use std::rc::Rc;

use hyper::Response;
use tokenlag_dialect::chat::{ChatEncoder, ChatRequest, DONE};
use tokenlag_dialect::write_event;

use super::answer::{Answer, Ask, Ending, Script, reply};
use super::body::Body;
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
    let script = Chat {
        encoder: ChatEncoder::new(&id, name, unix_seconds(), request.include_usage),
        include_usage: request.include_usage,
        json: Vec::new(),
    };
    reply(answer, script, request.stream).await
}

struct Chat {
    encoder: ChatEncoder,
    include_usage: bool,
    json: Vec<u8>,
}

impl Chat {
    fn event(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&ChatEncoder, &mut Vec<u8>)) {
        self.json.clear();
        write(&self.encoder, &mut self.json);
        write_event(out, None, &self.json);
    }
}

impl Script for Chat {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.event(out, |encoder, json| encoder.role(json));
    }

    fn delta(&mut self, out: &mut Vec<u8>, text: &str) {
        self.event(out, |encoder, json| encoder.content(json, text));
    }

    fn end(&mut self, out: &mut Vec<u8>, ending: Ending) {
        // The timings stand in the last chunk, as llama-server has it.
        let timings = Some(&ending.timings);
        let on_finish = timings.filter(|_| !self.include_usage);
        self.event(out, |encoder, json| {
            encoder.finish(json, ending.reason, on_finish)
        });
        if self.include_usage {
            self.event(out, |encoder, json| {
                encoder.usage(json, ending.usage, timings)
            });
        }
        write_event(out, None, DONE);
    }

    fn whole(&mut self, text: &str, ending: Ending) -> Vec<u8> {
        let mut out = Vec::new();
        let timings = Some(&ending.timings);
        self.encoder
            .whole(&mut out, text, ending.reason, ending.usage, timings);
        out
    }
}
