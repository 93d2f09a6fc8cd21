//! Every error event of a WebSocket, word for word.

mod socket;
mod stack;

use serde_json::{Value, json};
use socket::{Socket, connect, create, event, id, last_event, say, turn};
use stack::{Stack, run};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use futures_util::SinkExt;

/// The whole event, but for the words of its message, which must be there.
#[track_caller]
fn check(
    event: &Value,
    lane: Option<&str>,
    status: u16,
    kind: &str,
    code: Option<&str>,
    param: Option<&str>,
) {
    let message = event["error"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{event}");
    let mut expected = json!({"type": "error", "status": status, "error": {
        "type": kind, "code": code, "message": message, "param": param,
    }});
    if let Some(lane) = lane {
        expected["stream_id"] = json!(lane);
    }
    assert_eq!(*event, expected);
}

const INVALID: &str = "invalid_request_error";

async fn raw(socket: &mut Socket, message: &str) -> Value {
    socket.send(Message::text(message)).await.unwrap();
    event(socket).await
}

#[test]
fn what_a_client_does_wrong() {
    let stack = socket::start("ttft=0,gap=0");
    run(async {
        let mut socket = connect(&stack).await;
        let error = turn(&mut socket, &create(Some("a"), "hi", Some("resp_no"))).await;
        assert_eq!(
            error,
            json!({"type": "error", "stream_id": "a", "status": 400, "error": {
                "type": "invalid_request_error", "code": "previous_response_not_found",
                "message": "Previous response with id 'resp_no' not found.", "param": "previous_response_id",
            }})
        );
        let error = turn(&mut socket, &create(None, "hi", Some("resp_no"))).await;
        check(
            &error,
            None,
            400,
            INVALID,
            Some("previous_response_not_found"),
            Some("previous_response_id"),
        );
        let long = "x".repeat(257);
        for bad in ["", "a b", "ä", &long] {
            let error = turn(&mut socket, &create(Some(bad), "hi", None)).await;
            check(
                &error,
                None,
                400,
                INVALID,
                Some("invalid_stream_id"),
                Some("stream_id"),
            );
        }
        let error = raw(&mut socket, r#"{"type":"response.create","stream_id":7}"#).await;
        check(
            &error,
            None,
            400,
            INVALID,
            Some("invalid_stream_id"),
            Some("stream_id"),
        );
        let error = raw(&mut socket, "hello").await;
        check(&error, None, 400, INVALID, Some("invalid_json"), None);
        let error = raw(&mut socket, r#"{"type":"response.cancel","stream_id":"a"}"#).await;
        check(&error, Some("a"), 400, INVALID, None, Some("type"));
        let error = raw(&mut socket, r#"{"model":"m","input":"hi"}"#).await;
        check(&error, None, 400, INVALID, None, Some("type"));
        let error = raw(&mut socket, r#"{"type":"response.create","generate":1}"#).await;
        check(&error, None, 400, INVALID, None, Some("generate"));
        socket
            .send(Message::Binary(Bytes::from_static(b"{}")))
            .await
            .unwrap();
        check(&event(&mut socket).await, None, 400, INVALID, None, None);
        // Taken in silence, and the connection lives on.
        say(
            &mut socket,
            &json!({"type": "response.processed", "response_id": "resp_1"}),
        )
        .await;
        id(&turn(&mut socket, &create(Some("a"), "hi", None)).await);
        assert_eq!(stack.backend.requests().len(), 1);
    });
}

#[test]
fn what_the_upstream_refuses() {
    let stack = socket::start("status=429");
    run(async {
        let mut socket = connect(&stack).await;
        let error = turn(&mut socket, &create(Some("a"), "hi", None)).await;
        check(&error, Some("a"), 429, INVALID, None, None);
        assert_eq!(error["error"]["message"], "as the script says");
        stack
            .backend
            .set_script(Script::default().with("status=503").unwrap());
        let error = turn(&mut socket, &create(None, "hi", None)).await;
        check(&error, None, 503, "server_error", None, None);
    });
}

#[test]
fn what_the_upstream_cuts_off() {
    for line in [
        "ttft=0,gap=0,close=2",
        "ttft=0,gap=0,truncate=2",
        "ttft=0,gap=0,reset=2",
    ] {
        let stack = socket::start(line);
        run(async {
            let mut socket = connect(&stack).await;
            say(&mut socket, &create(Some("a"), "hi", None)).await;
            assert_eq!(event(&mut socket).await["type"], "response.created");
            let error = last_event(&mut socket).await;
            check(
                &error,
                Some("a"),
                502,
                "server_error",
                Some("upstream_lost"),
                None,
            );
            stack.backend.set_script(Script::default());
            id(&turn(&mut socket, &create(Some("a"), "hi", None)).await);
        });
    }
}

#[test]
fn an_upstream_that_is_not_there() {
    let backend = ScriptedBackend::start(Script::default()).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let stack = Stack::in_front_of(backend, upstream.parse().unwrap(), |options| options);
    run(async {
        let mut socket = connect(&stack).await;
        let error = turn(&mut socket, &create(Some("a"), "hi", None)).await;
        check(
            &error,
            Some("a"),
            502,
            "server_error",
            Some("upstream_unreachable"),
            None,
        );
    });
}
