//! What a WebSocket client may send beside good requests, with a client that is not ours.

mod stack;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use stack::{Stack, run};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

async fn connect(stack: &Stack) -> Socket {
    let stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    let url = format!("ws://{}/v1/responses", stack.addresses.listen);
    client_async(url, stream).await.unwrap().0
}

async fn event(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn last_event(socket: &mut Socket) -> Value {
    loop {
        let event = event(socket).await;
        if event["type"] == "response.completed" || event["type"] == "error" {
            return event;
        }
    }
}

const CREATE: &str = r#"{"type":"response.create","model":"m","input":"hi","max_output_tokens":3}"#;

#[test]
fn events_are_those_of_http_and_in_order() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let mut socket = connect(&stack).await;
        socket.send(Message::text(CREATE)).await.unwrap();
        let mut types = Vec::new();
        for number in 0.. {
            let event = event(&mut socket).await;
            assert_eq!(event["sequence_number"], number, "{event}");
            types.push(event["type"].as_str().unwrap().to_owned());
            if event["type"] == "response.completed" {
                break;
            }
        }
        types.dedup();
        assert_eq!(
            types,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
    });
}

#[test]
fn what_cannot_be_served_is_told_and_survived() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let mut socket = connect(&stack).await;
        for (message, code) in [
            (Message::text("no json"), "invalid_json"),
            (Message::text("[]"), "invalid_json"),
            (Message::text(r#"{"type":"response.sing"}"#), ""),
            (Message::binary(Bytes::from_static(b"\x00\x01")), ""),
            (
                Message::text(r#"{"type":"response.create","stream_id":"a b"}"#),
                "invalid_stream_id",
            ),
        ] {
            socket.send(message).await.unwrap();
            let error = event(&mut socket).await;
            assert_eq!(error["type"], "error", "{error}");
            assert_eq!(error["status"], 400, "{error}");
            assert_eq!(
                error["error"]["code"].as_str().unwrap_or_default(),
                code,
                "{error}"
            );
        }
        // Taken in silence.
        let processed = r#"{"type":"response.processed","response_id":"resp_1"}"#;
        socket.send(Message::text(processed)).await.unwrap();
        socket
            .send(Message::Ping(Bytes::from_static(b"?")))
            .await
            .unwrap();
        socket.send(Message::text(CREATE)).await.unwrap();
        assert_eq!(last_event(&mut socket).await["type"], "response.completed");
    });
}

#[test]
fn messages_that_come_during_an_answer_wait_for_its_end() {
    let stack = Stack::start("ttft=10ms,gap=1ms");
    run(async {
        let mut socket = connect(&stack).await;
        for _ in 0..30 {
            socket.send(Message::text(CREATE)).await.unwrap();
        }
        for _ in 0..30 {
            assert_eq!(last_event(&mut socket).await["type"], "response.completed");
        }
    });
}

#[test]
fn a_shutdown_says_goodbye_after_the_answer() {
    let mut stack = Stack::start("ttft=100ms,gap=10ms");
    run(async {
        let mut socket = connect(&stack).await;
        socket.send(Message::text(CREATE)).await.unwrap();
        assert_eq!(event(&mut socket).await["type"], "response.created");
        let drained = stack.begin_shutdown();
        assert_eq!(last_event(&mut socket).await["type"], "response.completed");
        let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else {
            panic!("no farewell");
        };
        assert_eq!(frame.code, CloseCode::Away);
        drop(socket);
        drained.join().unwrap();
    });
}

#[test]
fn another_version_of_websocket_is_told_which_is_spoken() {
    let stack = Stack::start("");
    run(async {
        let request = "GET /v1/responses HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                       sec-websocket-version: 7\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = stack::raw(stack.addresses.listen, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
    });
}
