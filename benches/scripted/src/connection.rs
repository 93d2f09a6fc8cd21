//! One connection: requests in, replies out, until either side has had enough.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Stamp, TraceId, Usage};

use crate::SCRIPT_HEADER;
use crate::backend::Shared;
use crate::http::{self, Request, RequestReader};
use crate::journal::ReceivedRequest;
use crate::play::{After, Player, text};
use crate::reply::Reply;
use crate::request::Asked;
use crate::script::Script;
use crate::wait;

/// Serves one connection to its end. Errors of the socket end it; they are the client's to notice.
pub(crate) fn serve(socket: &Arc<TcpStream>, number: u64, shared: &Shared) -> After {
    let mut stream: &TcpStream = socket;
    let mut reader = RequestReader::default();
    loop {
        let request = match reader.next(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return After::Close,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    let body = error_body("invalid_request_error", &error.to_string(), None);
                    // The client may be gone already.
                    let _ = stream.write_all(&http::whole(400, &body, true));
                }
                return After::Close;
            }
        };
        match answer(stream, request, number, shared) {
            Ok(After::KeepAlive) => {}
            Ok(after) => return after,
            Err(_) => return After::Close,
        }
    }
}

fn answer(
    stream: &TcpStream,
    request: Request,
    connection: u64,
    shared: &Shared,
) -> io::Result<After> {
    let trace = request
        .header("traceparent")
        .and_then(TraceId::from_traceparent);
    let close = request.wants_close();
    let received = ReceivedRequest {
        connection,
        at: request.read_at,
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: request.body,
        trace,
    };
    shared.journal.note_request(&received);
    match received.path.split('?').next().unwrap_or_default() {
        "/health" => reply_whole(stream, 200, &json!({"status": "ok"}), close),
        "/v1/models" => {
            let model =
                json!({"id": "scripted", "object": "model", "created": 0, "owned_by": "tokenlag"});
            reply_whole(
                stream,
                200,
                &json!({"object": "list", "data": [model]}),
                close,
            )
        }
        path => match Dialect::of_path(path).filter(|_| received.method == "POST") {
            Some(dialect) => generate(stream, dialect, &received, close, shared),
            None => {
                let message = format!("no {} {path} here", received.method);
                reply_error(stream, 404, &message, None, close)
            }
        },
    }
}

fn generate(
    mut stream: &TcpStream,
    dialect: Dialect,
    request: &ReceivedRequest,
    close: bool,
    shared: &Shared,
) -> io::Result<After> {
    let script = match request.header(SCRIPT_HEADER) {
        Some(line) => shared.script().with(line),
        None => Ok(shared.script()),
    };
    let script = match script {
        Ok(script) => script,
        Err(error) => {
            return reply_error(stream, 400, &error.to_string(), Some(SCRIPT_HEADER), close);
        }
    };
    if script.only.is_some_and(|only| only != dialect) {
        let message = format!("no {} {} here", request.method, request.path);
        return reply_error(stream, 404, &message, None, close);
    }
    let asked = match Asked::parse(dialect, &request.body) {
        Ok(asked) => asked,
        Err(reason) => return reply_error(stream, 400, &reason, None, close),
    };
    if let Some(status) = script.status {
        pause(request.at, script.head, shared)?;
        return reply_error(stream, status, "as the script says", None, close);
    }
    let tokens = script.tokens.unwrap_or(asked.tokens);
    let usage = Usage {
        input: script.input.unwrap_or(asked.words),
        cached_input: Some(script.cached),
        output: u64::from(tokens),
    };
    let number = shared.replies.fetch_add(1, Ordering::Relaxed);
    let Some(mut reply) = Reply::new(dialect, &asked, number) else {
        let message = format!("{dialect} is not scripted here");
        return reply_error(stream, 404, &message, None, close);
    };
    if !asked.stream {
        pause(request.at, script.due(tokens), shared)?;
        let body = reply.whole(&text(1, tokens), usage);
        stream.write_all(&http::whole(200, &body, close))?;
        return Ok(kept(close));
    }
    let note = |stamps: &[Stamp]| {
        if let Some(trace) = request.trace {
            shared.journal.note_emissions(trace, stamps);
        }
    };
    let player = Player {
        out: stream,
        script: &script,
        tokens,
        start: request.at,
        stopping: &shared.stopping,
        close,
        note: &note,
    };
    let told = usage_told(&script, &asked).then_some(usage);
    player.play(&mut reply, told)
}

fn usage_told(script: &Script, asked: &Asked) -> bool {
    script.usage && asked.include_usage
}

fn pause(start: Stamp, time: Duration, shared: &Shared) -> io::Result<()> {
    match wait::until(start + time, &shared.stopping) {
        true => Ok(()),
        false => Err(io::Error::other("the backend was told to stop")),
    }
}

fn reply_error(
    stream: &TcpStream,
    status: u16,
    message: &str,
    param: Option<&str>,
    close: bool,
) -> io::Result<After> {
    let kind = match status {
        ..500 => "invalid_request_error",
        _ => "server_error",
    };
    let body = error_body(kind, message, param);
    let mut stream = stream;
    stream.write_all(&http::whole(status, &body, close))?;
    Ok(kept(close))
}

fn reply_whole(
    mut stream: &TcpStream,
    status: u16,
    body: &serde_json::Value,
    close: bool,
) -> io::Result<After> {
    stream.write_all(&http::whole(status, body.to_string().as_bytes(), close))?;
    Ok(kept(close))
}

fn error_body(kind: &str, message: &str, param: Option<&str>) -> Vec<u8> {
    let error = json!({"message": message, "type": kind, "param": param, "code": null});
    json!({ "error": error }).to_string().into_bytes()
}

fn kept(close: bool) -> After {
    match close {
        true => After::Close,
        false => After::KeepAlive,
    }
}
