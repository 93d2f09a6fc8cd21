//! What a request gets, whatever channel it came by.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Stamp, Usage};

use crate::SCRIPT_HEADER;
use crate::backend::Shared;
use crate::journal::ReceivedRequest;
use crate::play::{Playback, text};
use crate::reply::Reply;
use crate::request::Asked;

/// What a request gets.
pub(crate) enum Answer {
    /// One body of JSON, at its moment.
    Whole {
        due: Stamp,
        status: u16,
        body: Vec<u8>,
    },
    /// A stream of events.
    Stream(Box<Playback>),
}

/// Notes a request and says what it gets.
pub(crate) fn answer(request: &ReceivedRequest, shared: &Shared) -> Answer {
    shared.journal.note_request(request);
    let now = |value: serde_json::Value| Answer::Whole {
        due: request.at,
        status: 200,
        body: value.to_string().into_bytes(),
    };
    match request.path.split('?').next().unwrap_or_default() {
        "/health" => now(json!({"status": "ok"})),
        "/v1/models" => {
            let model =
                json!({"id": "scripted", "object": "model", "created": 0, "owned_by": "tokenlag"});
            now(json!({"object": "list", "data": [model]}))
        }
        path => match Dialect::of_path(path).filter(|_| request.method == "POST") {
            Some(dialect) => generate(dialect, request, shared),
            None => {
                let message = format!("no {} {path} here", request.method);
                error(request, 404, &message, None)
            }
        },
    }
}

fn generate(dialect: Dialect, request: &ReceivedRequest, shared: &Shared) -> Answer {
    let script = match request.header(SCRIPT_HEADER) {
        Some(line) => shared.script().with(line),
        None => Ok(shared.script()),
    };
    let script = match script {
        Ok(script) => script,
        Err(reason) => {
            return error(request, 400, &reason.to_string(), Some(SCRIPT_HEADER));
        }
    };
    if script.only.is_some_and(|only| only != dialect) {
        let message = format!("no {} {} here", request.method, request.path);
        return error(request, 404, &message, None);
    }
    let asked = match Asked::parse(dialect, &request.body) {
        Ok(asked) => asked,
        Err(reason) => return error(request, 400, &reason, None),
    };
    if let Some(status) = script.status {
        return late(
            script.head,
            error(request, status, "as the script says", None),
        );
    }
    let tokens = script.tokens.unwrap_or(asked.tokens);
    let usage = Usage {
        input: script.input.unwrap_or(asked.words),
        cached_input: Some(script.cached),
        output: u64::from(tokens),
    };
    let number = shared.replies.fetch_add(1, Ordering::Relaxed);
    let Some(mut reply) = Reply::new(dialect, &asked, number) else {
        return error(
            request,
            404,
            &format!("{dialect} is not scripted here"),
            None,
        );
    };
    // On a WebSocket every reply is one.
    let streams = asked.stream || request.header("upgrade").is_some();
    if !streams {
        return Answer::Whole {
            due: request.at + script.due(tokens),
            status: 200,
            body: reply.whole(&text(1, tokens), usage),
        };
    }
    let told = (script.usage && asked.include_usage).then_some(usage);
    let playback = Playback::new(reply, script, tokens, request.at, told);
    Answer::Stream(Box::new(playback))
}

fn late(by: Duration, answer: Answer) -> Answer {
    match answer {
        Answer::Whole { due, status, body } => Answer::Whole {
            due: due + by,
            status,
            body,
        },
        stream => stream,
    }
}

fn error(request: &ReceivedRequest, status: u16, message: &str, param: Option<&str>) -> Answer {
    let kind = match status {
        ..500 => "invalid_request_error",
        _ => "server_error",
    };
    Answer::Whole {
        due: request.at,
        status,
        body: error_body(kind, message, param),
    }
}

/// The body of an error.
pub(crate) fn error_body(kind: &str, message: &str, param: Option<&str>) -> Vec<u8> {
    let error = json!({"message": message, "type": kind, "param": param, "code": null});
    json!({ "error": error }).to_string().into_bytes()
}
