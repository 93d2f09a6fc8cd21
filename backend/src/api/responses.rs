//! `/v1/responses`: answers a turn, which may go on from a response that the server remembers.

use std::rc::Rc;

use hyper::{Response, StatusCode};
use tokenlag_dialect::generation::FinishReason;
use tokenlag_dialect::responses::input::read_item;
use tokenlag_dialect::responses::{Create, Finish, Params, ResponseEncoder, ResponseHead};
use tokenlag_dialect::write_event;

use super::answer::{Answer, Ask, Ending, Script, reply};
use super::body::Body;
use super::error::ApiError;
use super::memory::Remembered;
use super::service::{Service, unix_seconds};

pub(super) async fn handle(service: Rc<Service>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let create = Create::parse(body)?;
    let params = Params::parse(body)?;
    let mut messages = Vec::new();
    for item in create.input_items()? {
        messages.extend(read_item(&item)?);
    }
    let previous = create.previous_response_id.as_deref();
    if messages.is_empty() && previous.is_none() {
        let message = "input is missing: send a string, or at least one item";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message).param("input"));
    }
    let instructions = params.instructions.as_deref();
    let turn = service
        .memory
        .borrow_mut()
        .turn(previous, instructions, &messages);
    let (prompt, turn) = turn
        .map_err(|_| unknown_response(previous.unwrap_or_default()))?
        .split();
    let ask = Ask {
        prompt,
        param: "input",
        max_tokens: params.max_output_tokens.unwrap_or(service.max_tokens),
        generation: params.generation.clone(),
    };
    let answer = Answer::begin(&service, ask).await?;
    let store = create.store.unwrap_or(true);
    let head = ResponseHead {
        id: service.new_id("resp_"),
        model: service.model.name().to_owned(),
        created_at: unix_seconds(),
        previous_response_id: previous.map(str::to_owned),
        instructions: params.instructions,
        max_output_tokens: params.max_output_tokens.map(|limit| limit as u64),
        temperature: Some(answer.temperature()),
        top_p: Some(params.generation.top_p.unwrap_or(1.0)),
        store,
        metadata: params.metadata,
    };
    let script = ResponseEvents {
        encoder: ResponseEncoder::new(head),
        turn: store.then_some(turn),
        service,
    };
    reply(answer, script, create.stream).await
}

fn unknown_response(id: &str) -> ApiError {
    let message = format!(
        "there is no response `{id}` to go on from: it was never stored, or is forgotten by now; send the whole conversation as input"
    );
    ApiError::new(StatusCode::BAD_REQUEST, message)
        .param("previous_response_id")
        .code("previous_response_not_found")
}

struct ResponseEvents {
    encoder: ResponseEncoder,
    /// The turn, where it is to be remembered.
    turn: Option<Remembered>,
    service: Rc<Service>,
}

impl ResponseEvents {
    /// Remembers the turn. Its own token ids are the model's very words, so that the next turn finds them cached; text
    /// that a stop string cut is tokenised again.
    fn remember(&mut self, tokens: Option<Vec<u32>>) {
        let Some(turn) = self.turn.take() else { return };
        let tokens = tokens.unwrap_or_else(|| {
            let tokenizer = self.service.model.tokenizer();
            tokenizer.encode(self.encoder.text(), false)
        });
        let id = &self.encoder.head().id;
        self.service
            .memory
            .borrow_mut()
            .remember(id, &turn, &tokens);
    }
}

fn finish_of(reason: FinishReason) -> Finish {
    match reason {
        FinishReason::Stop => Finish::Completed,
        FinishReason::Length => Finish::MaxOutputTokens,
    }
}

impl Script for ResponseEvents {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.encoder
            .start(&mut |name, json| write_event(out, Some(name), json));
    }

    fn delta(&mut self, out: &mut Vec<u8>, text: &str) {
        self.encoder
            .delta(text, &mut |name, json| write_event(out, Some(name), json));
    }

    fn end(&mut self, out: &mut Vec<u8>, ending: Ending) {
        // Before the terminal event leaves: the client may go on from this response as soon as it has read it.
        self.remember(ending.tokens);
        let finish = finish_of(ending.reason);
        self.encoder
            .finish(finish, Some(ending.usage), &mut |name, json| {
                write_event(out, Some(name), json);
            });
    }

    fn whole(&mut self, text: &str, ending: Ending) -> Vec<u8> {
        self.encoder.delta(text, &mut |_, _| ());
        self.remember(ending.tokens);
        self.encoder
            .whole(&finish_of(ending.reason), Some(ending.usage))
    }
}
