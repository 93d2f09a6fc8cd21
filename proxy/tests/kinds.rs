//! What the upstream speaks is found out once, and what has only chat completions is translated for, on every channel.

mod stack;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use stack::{CHANNELS, Seen, Stack, create, exchange, get, raw, run, trace};
use tokenlag_channel::BaseUrl;
use tokenlag_probes::{Encoding, FailureKind, Outcome, Transport};
use tokenlag_proxy::{ProxyOptions, StateAt, UpstreamApi};
use tokenlag_scripted::{Script, ScriptedBackend};

fn script(line: &str) -> Script {
    Script::default().with(line).unwrap()
}

fn stack(line: &str, adjust: impl FnOnce(ProxyOptions) -> ProxyOptions) -> Stack {
    let backend = ScriptedBackend::start(script(line)).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |options| adjust(finding_out(options)))
}

/// In front of a server that is no scripted one.
fn before(address: SocketAddr, adjust: impl FnOnce(ProxyOptions) -> ProxyOptions) -> Stack {
    let nobody = ScriptedBackend::start(Script::default()).unwrap();
    let upstream = BaseUrl::of(address.ip().to_string(), address.port());
    Stack::in_front_of(nobody, upstream, |options| adjust(finding_out(options)))
}

fn finding_out(options: ProxyOptions) -> ProxyOptions {
    ProxyOptions {
        upstream_api: UpstreamApi::Auto,
        ..options
    }
}

/// What `/config` says of the upstream.
async fn found(stack: &Stack) -> Value {
    let (_, config) = get(stack.addresses.admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    config["upstream_api"].clone()
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn an_upstream_that_has_the_responses_api_is_found_to_have_it() {
    let stack = stack("gap=0ms", |options| options);
    run(async {
        let told = found(&stack).await;
        assert_eq!(told["told"], "auto", "{told}");
        assert_eq!(told["kind"], "responses", "{told}");
        assert_eq!(
            told["how"],
            "GET /v1/responses with Upgrade answered 404; POST /v1/responses answered 400"
        );
        let asked = stack.backend.take_requests().len();
        found(&stack).await;
        assert_eq!(
            (asked, stack.backend.requests().len()),
            (2, 0),
            "asked once"
        );
    });
}

#[test]
fn another_sidecar_is_found_to_speak_websocket() {
    let far = stack("gap=0ms", |options| options);
    let near = before(far.addresses.listen, |options| options);
    run(async {
        let told = found(&near).await;
        assert_eq!(told["kind"], "websocket", "{told}");
        assert_eq!(found(&far).await["kind"], "responses");
    });
}

#[test]
fn nothing_is_asked_where_it_was_told() {
    for (api, kind) in [
        (UpstreamApi::Responses, "responses"),
        (UpstreamApi::Chat, "chat"),
        (UpstreamApi::WebSocket, "websocket"),
    ] {
        let stack = stack("gap=0ms", |options| ProxyOptions {
            upstream_api: api,
            ..options
        });
        run(async {
            let told = found(&stack).await;
            assert_eq!(told, json!({"told": kind, "kind": kind, "how": "told so"}));
            assert!(stack.backend.requests().is_empty());
        });
    }
}

#[test]
fn an_upstream_that_is_down_at_the_start_is_found_out_later() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let stack = before(address, |options| options);
    run(async {
        let told = found(&stack).await;
        assert_eq!(told["kind"], Value::Null, "{told}");
        assert!(
            told["how"].as_str().unwrap().contains("cannot connect"),
            "{told}"
        );
        let backend = ScriptedBackend::start_on(address, script("gap=0ms,only=chat")).unwrap();
        // It is asked again after a while.
        while found(&stack).await["kind"] != "chat" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(backend.requests().len() >= 3);
    });
}

#[test]
fn a_create_that_meets_no_responses_api_is_asked_as_a_chat() {
    let line = "ttft=5ms,gap=1ms,only=chat";
    for (number, way) in CHANNELS.into_iter().enumerate() {
        let stack = stack(line, |options| options);
        run(async {
            let label = format!("{} {}", way.0, way.1);
            let channel = stack.channel(way.0);
            for turn in 0..2 {
                let trace = trace(number as u128 * 10 + turn);
                let seen = exchange(&channel, way, trace, &create("hello", 20), &[])
                    .await
                    .unwrap();
                let hop = stack.record(trace).await;
                let emitted = stack.backend.emissions(trace).unwrap();
                assert_eq!(seen.outcome, Some(Outcome::Complete), "{label}");
                assert_eq!(hop.outcome, Outcome::Complete, "{label}");
                assert_eq!(emitted.len(), 20, "{label}");
                assert_eq!(seen.marks.len(), 20, "{label}");
                assert_eq!(hop.usage.map(|usage| usage.output), Some(20), "{label}");
                let stamps = emitted.iter().zip(&hop.up_token).zip(&hop.out_token);
                for (((left, up), out), mark) in stamps.zip(&seen.marks) {
                    assert!(left <= up && up <= out && *out <= mark.at, "{label}");
                }
                let done: Value = serde_json::from_slice(&seen.terminal).unwrap();
                let response = &done["response"];
                assert_eq!(response["usage"]["output_tokens"], 20, "{label}");
                assert_eq!(response["status"], "completed", "{label}");
                assert_eq!(
                    response["output"][0]["content"][0]["text"], seen.text,
                    "{label}"
                );
            }
            let paths = stack.backend.take_requests();
            let paths: Vec<_> = paths.iter().map(|request| &*request.path).collect();
            let last = &paths[paths.len() - 2..];
            assert_eq!(last, ["/v1/chat/completions"; 2], "{label}: {paths:?}");
            assert_eq!(found(&stack).await["kind"], "chat", "{label}");
        });
    }
}

#[test]
fn what_is_named_is_gone_on_from_as_a_chat() {
    for way in CHANNELS {
        let stack = stack("gap=0ms,only=chat", |options| options);
        run(async {
            let channel = stack.channel(way.0);
            let ask = async |text: &str, previous: Option<&str>| -> Seen {
                let mut body: Value = serde_json::from_str(&create(text, 4)).unwrap();
                if let Some(id) = previous {
                    body["previous_response_id"] = json!(id);
                }
                exchange(&channel, way, trace(1), &body.to_string(), &[])
                    .await
                    .unwrap()
            };
            let first = ask("one", None).await;
            let done: Value = serde_json::from_slice(&first.terminal).unwrap();
            ask("two", done["response"]["id"].as_str()).await;
            let asked = stack.backend.take_requests().pop().unwrap();
            let asked: Value = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(
                asked["messages"],
                json!([
                    {"role": "user", "content": "one"},
                    {"role": "assistant", "content": first.text},
                    {"role": "user", "content": "two"},
                ]),
                "{} {}",
                way.0,
                way.1
            );
            // Nobody knows this one, least of all the upstream.
            let lost = ask("two", Some("resp_no")).await;
            let error: Value = match lost.terminal.is_empty() {
                true => serde_json::from_slice(&lost.body).unwrap(),
                false => serde_json::from_slice(&lost.terminal).unwrap(),
            };
            assert_eq!(
                error["error"]["code"], "previous_response_not_found",
                "{error}"
            );
        });
    }
}

#[test]
fn a_create_that_is_not_streamed_gets_its_response_in_one_piece() {
    for state_at in [StateAt::Proxy, StateAt::Upstream] {
        let stack = stack("gap=0ms,only=chat", |options| ProxyOptions {
            state_at,
            ..options
        });
        run(async {
            let body = r#"{"model":"m","input":"hello","max_output_tokens":7}"#;
            let answer = raw(
                stack.addresses.listen,
                post("/v1/responses", body).as_bytes(),
            )
            .await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("content-type: application/json"), "{head}");
            let response: Value = serde_json::from_str(body).unwrap();
            assert_eq!(response["object"], "response", "{response}");
            assert_eq!(response["status"], "completed", "{response}");
            assert_eq!(response["usage"]["output_tokens"], 7, "{response}");
            assert_eq!(response["output"][0]["type"], "message", "{response}");
            if state_at == StateAt::Proxy {
                let next = json!({"input": "more", "previous_response_id": response["id"]});
                let next = post("/v1/responses", &next.to_string());
                raw(stack.addresses.listen, next.as_bytes()).await;
                let asked = stack.backend.take_requests().pop().unwrap();
                let asked: Value = serde_json::from_slice(&asked.body).unwrap();
                assert_eq!(asked["messages"].as_array().unwrap().len(), 3, "{asked}");
            }
        });
    }
}

#[test]
fn what_a_chat_cannot_say_is_refused() {
    let stack = stack("gap=0ms,only=chat", |options| options);
    run(async {
        let body = r#"{"input":[{"type":"item_reference","id":"x"}],"stream":true}"#;
        let answer = raw(
            stack.addresses.listen,
            post("/v1/responses", body).as_bytes(),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("item_reference"), "{answer}");
    });
}

#[test]
fn a_chat_that_is_refused_or_cut_off_is_a_response_that_is() {
    let stack = stack("gap=0ms,only=chat", |options| ProxyOptions {
        upstream_api: UpstreamApi::Chat,
        ..options
    });
    let way = (Transport::Http, Encoding::Events);
    run(async {
        let channel = stack.channel(way.0);
        stack.backend.set_script(script("only=chat,status=429"));
        let seen = exchange(&channel, way, trace(1), &create("x", 5), &[])
            .await
            .unwrap();
        assert_eq!(seen.status, 429);
        assert!(String::from_utf8_lossy(&seen.body).contains("as the script says"));

        stack
            .backend
            .set_script(script("only=chat,gap=1ms,close=3"));
        let trace = trace(2);
        let broken = exchange(&channel, way, trace, &create("x", 5), &[]).await;
        broken.unwrap_err();
        let hop = stack.record(trace).await;
        assert_eq!(hop.outcome, Outcome::Failed(FailureKind::ConnectionLost));
        assert_eq!(hop.out_token.len(), 2);
    });
}

#[test]
fn an_unknown_model_is_not_taken_for_a_missing_api() {
    let stack = stack("gap=0ms,status=404", |options| options);
    run(async {
        for _ in 0..2 {
            let answer = raw(
                stack.addresses.listen,
                post("/v1/responses", &create("x", 3)).as_bytes(),
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
        let paths = stack.backend.take_requests();
        assert!(paths.iter().all(|request| request.path == "/v1/responses"));
    });
}

/// A server that has chat completions alone, and answers each with these bytes.
fn canned(reply: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream, reply));
        }
    });
    address
}

fn serve(mut stream: TcpStream, reply: &str) {
    let mut request = Vec::new();
    let mut room = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut room) {
            Ok(count) if count > 0 => request.extend_from_slice(&room[..count]),
            _ => return,
        }
    }
    let answer = if request.starts_with(b"POST /v1/chat/completions ") {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{reply}"
        )
    } else {
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
    };
    // A client that reads no further is one that knows enough.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    while stream.read(&mut room).is_ok_and(|count| count > 0) {}
}

/// Reasoning, text, and a call, as vLLM streams them.
const TOOLS: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Let me \"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"look\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"ls\",\"arguments\":\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":6,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn tools_reasoning_and_usage_come_through() {
    let address = canned(TOOLS);
    for way in CHANNELS {
        let stack = before(address, |options| options);
        run(async {
            let label = format!("{} {}", way.0, way.1);
            let channel = stack.channel(way.0);
            let body = json!({
                "input": "list", "stream": true,
                "tools": [{"type": "function", "name": "ls", "parameters": {"type": "object"}}],
            });
            let trace = trace(7);
            let seen = exchange(&channel, way, trace, &body.to_string(), &[])
                .await
                .unwrap();
            let done: Value = serde_json::from_slice(&seen.terminal).unwrap();
            let output = &done["response"]["output"];
            assert_eq!(output[0]["type"], "reasoning", "{label}: {done}");
            assert_eq!(output[1]["content"][0]["text"], "Let me look", "{label}");
            assert_eq!(output[2]["type"], "function_call", "{label}");
            assert_eq!(output[2]["call_id"], "call_1", "{label}");
            assert_eq!(output[2]["name"], "ls", "{label}");
            assert_eq!(output[2]["arguments"], r#"{"a":1}"#, "{label}");
            let usage = &done["response"]["usage"];
            assert_eq!(usage["input_tokens"], 9, "{label}");
            assert_eq!(usage["input_tokens_details"]["cached_tokens"], 4, "{label}");
            let hop = stack.record(trace).await;
            assert_eq!(hop.up_token.len(), 5, "{label}");
            assert_eq!(hop.out_token.len(), 5, "{label}");
            assert_eq!(seen.marks.len(), 5, "{label}");
            assert_eq!(hop.usage.unwrap().cached_input, Some(4), "{label}");
        });
    }
}

#[test]
fn a_chat_is_translated_beyond_any_leg() {
    for transport in [
        Transport::HttpCold,
        Transport::Http,
        Transport::Http2,
        Transport::Ws,
    ] {
        let far = stack("gap=1ms,only=chat", |options| ProxyOptions {
            // It translates nothing itself, whatever is asked of it.
            upstream_api: UpstreamApi::Responses,
            ..options
        });
        let near = before(far.addresses.listen, |options| ProxyOptions {
            upstream_channel: transport,
            upstream_api: UpstreamApi::Chat,
            ..options
        });
        run(async {
            let way = (Transport::Http, Encoding::Events);
            let channel = near.channel(way.0);
            let trace = trace(3);
            let seen = exchange(&channel, way, trace, &create("x", 12), &[])
                .await
                .unwrap();
            assert_eq!(seen.outcome, Some(Outcome::Complete), "{transport}");
            assert_eq!(seen.marks.len(), 12, "{transport}");
            assert_eq!(near.record(trace).await.up_token.len(), 12, "{transport}");
            assert_eq!(far.record(trace).await.up_token.len(), 12, "{transport}");
        });
    }
}
