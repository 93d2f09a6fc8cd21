//! An upstream whose reply ends long after its terminal event: the client has what it waited for, and may go on or leave.

mod socket;
mod stack;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use socket::{connect, create, event_of_type, id, turn};
use stack::{Stack, run, trace};
use tokenlag_probes::Outcome;
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What an upstream was asked, and over how many connections.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<(Vec<Value>, usize)>>);

impl Asked {
    /// The inputs of the last request: its items, or its text.
    fn last_input(&self) -> Value {
        self.0.lock().unwrap().0.last().unwrap()["input"].clone()
    }

    fn connections(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

/// A proxy in front of an upstream that writes the last chunk apart from the terminal event, or never.
async fn start(ends: bool) -> (Stack, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seen.0.lock().unwrap().1 += 1;
            tokio::spawn(serve(stream, seen.clone(), ends));
        }
    });
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(unused, upstream.parse().unwrap(), |options| options);
    (stack, asked)
}

/// Answers one request after the other.
async fn serve(stream: TcpStream, asked: Asked, ends: bool) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream
                .read_line(&mut line)
                .await
                .ok()
                .filter(|&read| read > 0)?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let number = {
            let mut asked = asked.0.lock().unwrap();
            asked.0.push(serde_json::from_slice(&body).unwrap());
            asked.0.len()
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        let id = format!("resp_{number}");
        let said = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": id}]});
        for event in [
            json!({"type": "response.created", "response": {"id": id}}),
            json!({"type": "response.output_text.delta", "delta": "hi"}),
            json!({"type": "response.completed", "response": {"id": id, "status": "completed", "output": [said]}}),
        ] {
            let kind = event["type"].as_str().unwrap();
            let event = format!("event: {kind}\ndata: {event}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await.ok()?;
        }
        if !ends {
            // Whoever waits for the end waits until the proxy lets go.
            stream.read_u8().await.ok()?;
        }
        stream.write_all(b"0\r\n\r\n").await.ok()?;
    }
}

/// A create over HTTP of which the client reads as far as the terminal event, and leaves. Gives the response's id.
async fn ask_and_leave(stack: &Stack, body: &Value, traceparent: &str) -> String {
    let body = body.to_string();
    let request = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: a\r\ntraceparent: {traceparent}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    loop {
        let line = lines
            .next_line()
            .await
            .unwrap()
            .expect("the terminal event");
        if let Some(event) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(event).unwrap();
            if event["type"] == "response.completed" {
                return event["response"]["id"].as_str().unwrap().to_owned();
            }
        }
    }
}

fn roles(input: &Value) -> Vec<&str> {
    let items = input.as_array().unwrap().iter();
    items.map(|item| item["role"].as_str().unwrap()).collect()
}

const WHOLE: [&str; 3] = ["user", "assistant", "user"];

#[test]
fn who_leaves_with_the_terminal_event_was_served_and_can_go_on() {
    run(async {
        let (stack, asked) = start(false).await;
        let name = trace(1);
        let first = json!({"input": "one", "stream": true});
        let first = ask_and_leave(&stack, &first, &name.traceparent()).await;
        // At once: no other thread may be too early either.
        let next = json!({"input": "two", "stream": true, "previous_response_id": first});
        ask_and_leave(&stack, &next, &trace(2).traceparent()).await;
        assert_eq!(roles(&asked.last_input()), WHOLE);
        assert_eq!(stack.record(name).await.outcome, Outcome::Complete);
    });
}

#[test]
fn a_lane_goes_on_with_the_terminal_event() {
    run(async {
        let (stack, asked) = start(false).await;
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(None, "one", None)).await;
        let next = turn(&mut socket, &create(None, "two", Some(id(&first)))).await;
        id(&next);
        assert_eq!(roles(&asked.last_input()), WHOLE);
    });
}

#[test]
fn another_lane_goes_on_with_the_terminal_event() {
    run(async {
        let (stack, asked) = start(false).await;
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(Some("a"), "one", None)).await;
        let fork = turn(&mut socket, &create(Some("b"), "two", Some(id(&first)))).await;
        id(&fork);
        assert_eq!(roles(&asked.last_input()), WHOLE);
    });
}

#[test]
fn what_a_websocket_was_told_is_known_on_other_connections() {
    run(async {
        let (stack, asked) = start(false).await;
        let name = trace(3);
        let mut socket = connect(&stack).await;
        let mut stored = create(None, "one", None);
        stored["store"] = json!(true);
        stored["client_metadata"] = json!({"ws_request_header_traceparent": name.traceparent()});
        let first = turn(&mut socket, &stored).await;
        drop(socket);
        let mut other = connect(&stack).await;
        id(&turn(&mut other, &create(None, "two", Some(id(&first)))).await);
        assert_eq!(roles(&asked.last_input()), WHOLE);
        let next = json!({"input": "two", "stream": true, "previous_response_id": id(&first)});
        ask_and_leave(&stack, &next, &trace(4).traceparent()).await;
        assert_eq!(roles(&asked.last_input()), WHOLE);
        assert_eq!(stack.record(name).await.outcome, Outcome::Complete);
    });
}

#[test]
fn the_upstreams_connection_is_used_again_once_its_reply_has_ended() {
    run(async {
        let (stack, asked) = start(true).await;
        let mut socket = connect(&stack).await;
        for _ in 0..20 {
            id(&turn(&mut socket, &create(None, "hi", None)).await);
        }
        // A turn may come before the end of the one before it, but not each of them.
        assert!(asked.connections() < 20, "{}", asked.connections());
    });
}

#[test]
fn a_create_that_cannot_be_served_takes_the_response_that_it_names_with_it() {
    run(async {
        let (stack, _) = start(true).await;
        let mut socket = connect(&stack).await;
        let first = turn(&mut socket, &create(Some("a"), "one", None)).await;
        // Another lane leaves it alone.
        let mut bad = create(Some("b"), "x", Some(id(&first)));
        bad["generate"] = json!("yes");
        socket::say(&mut socket, &bad).await;
        assert_eq!(event_of_type(&mut socket, "error").await["stream_id"], "b");
        let second = turn(&mut socket, &create(Some("a"), "two", Some(id(&first)))).await;
        let mut bad = create(Some("a"), "x", Some(id(&second)));
        bad["generate"] = json!("yes");
        socket::say(&mut socket, &bad).await;
        assert_eq!(
            event_of_type(&mut socket, "error").await["error"]["param"],
            "generate"
        );
        let gone = turn(&mut socket, &create(Some("a"), "three", Some(id(&second)))).await;
        assert_eq!(
            gone["error"]["code"], "previous_response_not_found",
            "{gone}"
        );
    });
}
