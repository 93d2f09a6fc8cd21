//! `/v1/completions`: goes on from a text or from token ids.

use std::rc::Rc;

use hyper::Response;
use tokenlag_dialect::chat::DONE;
use tokenlag_dialect::completions::{CompletionEncoder, CompletionRequest, Prompt};
use tokenlag_dialect::write_event;

use super::answer::{Answer, Ask, Ending, Script, reply};
use super::body::Body;
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
    let script = Completion {
        encoder: CompletionEncoder::new(&id, name, unix_seconds(), request.include_usage),
        include_usage: request.include_usage,
        json: Vec::new(),
    };
    reply(answer, script, request.stream).await
}

struct Completion {
    encoder: CompletionEncoder,
    include_usage: bool,
    json: Vec<u8>,
}

impl Completion {
    fn event(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&CompletionEncoder, &mut Vec<u8>)) {
        self.json.clear();
        write(&self.encoder, &mut self.json);
        write_event(out, None, &self.json);
    }
}

impl Script for Completion {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn delta(&mut self, out: &mut Vec<u8>, text: &str) {
        self.event(out, |encoder, json| encoder.text(json, text));
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
