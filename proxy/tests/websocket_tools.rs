//! Function calls and reasoning over WebSocket: they pass both ways untouched and are part of what a turn goes on from.

mod socket;
mod stack;

use std::net::SocketAddr;

use serde_json::{Value, json};
use socket::{connect, create, event, id, is_last, say};
use stack::{Stack, run};
use tokenlag_proxy::UpstreamApi;
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An upstream that answers each request with the next of these streams, and hands out what it was asked.
async fn upstream(replies: Vec<Vec<Value>>) -> (SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for events in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            sender.send(request(&mut stream).await).unwrap();
            let mut reply =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
                    .to_owned();
            for event in events {
                let kind = event["type"].as_str().unwrap();
                reply.push_str(&format!("event: {kind}\ndata: {event}\n\n"));
            }
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

/// Reads a request's body, which has a Content-Length.
async fn request(stream: &mut TcpStream) -> Value {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            return serde_json::from_str(body).unwrap();
        }
    }
}

#[test]
fn calls_and_reasoning_are_part_of_the_conversation() {
    let reasoning =
        json!({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA=="});
    let call = json!({
        "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "run", "arguments": "{\"cmd\":\"ls\"}",
        "status": "completed",
    });
    let text = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "two files", "annotations": []}],
    });
    let first = vec![
        json!({"type": "response.created", "response": {"id": "resp_a", "status": "in_progress"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"id": "rs_1", "type": "reasoning", "summary": []}}),
        json!({"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "output_index": 0, "delta": "hm"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": reasoning}),
        json!({"type": "response.output_item.added", "output_index": 1, "item": call}),
        json!({"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 1, "delta": "{\"cmd\":\"ls\"}"}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": call}),
        json!({"type": "response.completed", "response": {"id": "resp_a", "status": "completed", "output": [reasoning, call]}}),
    ];
    let second = vec![
        json!({"type": "response.created", "response": {"id": "resp_b", "status": "in_progress"}}),
        json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "two files"}),
        json!({"type": "response.completed", "response": {"id": "resp_b", "status": "completed", "output": [text]}}),
    ];
    run(async {
        let (address, mut asked) = upstream(vec![first.clone(), second]).await;
        let backend = ScriptedBackend::start(Script::default()).unwrap();
        let url = format!("http://{address}").parse().unwrap();
        let stack = Stack::in_front_of(backend, url, |mut options| {
            options.upstream_api = UpstreamApi::Responses;
            options
        });
        let mut socket = connect(&stack).await;

        let tools = json!([{"type": "function", "name": "run", "parameters": {"type": "object"}, "strict": true}]);
        let mut message = create(Some("main"), "list", None);
        message["tools"] = tools.clone();
        message["tool_choice"] = json!("auto");
        message["reasoning"] = json!({"effort": "low"});
        message["include"] = json!(["reasoning.encrypted_content"]);
        say(&mut socket, &message).await;
        let mut seen = Vec::new();
        while !seen.last().is_some_and(is_last) {
            let mut event = event(&mut socket).await;
            assert_eq!(event["stream_id"], "main");
            event.as_object_mut().unwrap().remove("stream_id");
            seen.push(event);
        }
        assert_eq!(seen, first);
        let body = asked.recv().await.unwrap();
        for name in ["tools", "tool_choice", "reasoning", "include"] {
            assert_eq!(body[name], message[name], "{name}");
        }

        let output = json!({"type": "function_call_output", "call_id": "call_1", "output": "a b"});
        let mut message = create(Some("main"), "", Some(id(seen.last().unwrap())));
        message["input"] = json!([output]);
        message["tools"] = tools;
        say(&mut socket, &message).await;
        let body = asked.recv().await.unwrap();
        let user = &body["input"][0];
        assert_eq!(
            (&user["role"], &user["content"][0]["text"]),
            (&json!("user"), &json!("list"))
        );
        assert_eq!(
            body["input"].as_array().unwrap()[1..],
            [reasoning, call, output]
        );
        let last = socket::last_event(&mut socket).await;
        assert_eq!(last["response"]["output"][0]["id"], "msg_1");
    });
}
