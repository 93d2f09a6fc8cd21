//! Two sidecars, one beside the application and one beside the backend: plain HTTP goes in, comes out, and travels between
//! them by any channel.

mod pair;
mod stack;

use pair::{APPLICATION, LEGS, Leg, Pair, script};
use serde_json::{Value, json};
use stack::{Seen, Stack, create, exchange, raw, run, trace};
use tokenlag_channel::tls;
use tokenlag_probes::{Encoding, Outcome, Transport};
use tokenlag_proxy::{ProxyOptions, StateAt};
use tokenlag_scripted::ScriptedBackend;

/// What the backend says to a request that is asked of it directly, being its first.
fn directly(line: &str, body: &str) -> Seen {
    let backend = ScriptedBackend::start(script(line)).unwrap();
    let dial = tokenlag_channel::Dial {
        tls: None,
        ..stack::dial(backend.address(), &certificate())
    };
    let channel = tokenlag_channel::Channel::new(Transport::HttpCold, dial);
    run(exchange(&channel, APPLICATION, trace(1), body, &[])).unwrap()
}

fn certificate() -> String {
    tls::self_signed(&["127.0.0.1"]).unwrap().cert_pem
}

fn check(tls: bool, leg: Leg) {
    let line = "ttft=5ms,gap=1ms";
    let expected = directly(line, &create("hello", 20));
    let pair = Pair::between(leg, Stack::start(line), tls, |options| options);
    let label = format!("{} {}", leg.0, leg.1);
    run(async {
        for turn in 0..3 {
            let trace = trace(turn);
            let seen = pair.ask(trace, &create("hello", 20)).await.unwrap();
            assert_eq!(seen.outcome, Some(Outcome::Complete), "{label}");
            if turn == 0 {
                assert_eq!(seen.body, expected.body, "{label}");
            }
            assert_eq!(seen.marks.len(), 20, "{label}");

            let near = pair.near.record(trace).await;
            let far = pair.far.record(trace).await;
            let emitted = pair.far.backend.emissions(trace).unwrap();
            assert_eq!(near.channel, "http", "{label}");
            assert_eq!(far.channel, name(leg), "{label}");
            assert_eq!(near.outcome, Outcome::Complete, "{label}");
            assert_eq!(far.outcome, Outcome::Complete, "{label}");
            assert_eq!(near.usage, far.usage, "{label}");
            assert_eq!(near.usage.map(|usage| usage.output), Some(20), "{label}");
            let stamps = [
                &emitted,
                &far.up_token,
                &far.out_token,
                &near.up_token,
                &near.out_token,
            ];
            for (earlier, later) in stamps.iter().zip(&stamps[1..]) {
                assert_eq!((earlier.len(), later.len()), (20, 20), "{label}");
                assert!(earlier.iter().zip(*later).all(|(a, b)| a <= b), "{label}");
            }
            let arrived: Vec<_> = seen.marks.iter().map(|mark| mark.at).collect();
            let mut ends = near.out_token.iter().zip(&arrived);
            assert!(ends.all(|(out, at)| out <= at), "{label}");
            // A write that waits for the connection is stamped where it left.
            assert!(near.in_body <= near.up_written.unwrap(), "{label}");
            assert!(near.up_written.unwrap() <= far.in_body, "{label}");
            assert!(near.up_end.unwrap() <= seen.end.unwrap(), "{label}");
            // The leg is warm from the second exchange on.
            let anew = turn == 0 || leg.0 == Transport::HttpCold;
            assert_eq!(near.up_connected_anew, anew, "{label}, turn {turn}");
        }
    });
}

/// The name under which the far sidecar books what comes by a leg.
fn name(leg: Leg) -> &'static str {
    match leg.0 {
        Transport::HttpCold | Transport::Http => "http",
        Transport::Http2 => "http2",
        Transport::Http3 => "http3",
        Transport::Ws => "ws",
        Transport::Quic => "quic",
        other => panic!("{other}"),
    }
}

#[test]
fn what_comes_out_is_what_the_backend_said_token_by_token() {
    for leg in LEGS {
        check(false, leg);
    }
}

#[test]
fn the_leg_can_be_encrypted_whatever_it_is() {
    for leg in LEGS {
        check(true, leg);
    }
}

/// The body of a whole answer, its chunks put together.
fn body_of(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let mut rest = body;
    let mut whole = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    whole
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nx-own: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn whatever_else_http_asks_travels_too() {
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#;
    let get = "GET /v1/models?a=b HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".to_owned();
    let head = get.replace("GET", "HEAD");
    let asked = [
        get,
        post("/v1/chat/completions", chat),
        post(
            "/v1/chat/completions",
            &chat.replace("\"stream\":true", "\"stream\":false"),
        ),
        post(
            "/v1/completions",
            r#"{"prompt":"x","max_tokens":3,"stream":true}"#,
        ),
        post("/v1/responses", r#"{"input":"x","max_output_tokens":3}"#),
        post(
            "/v1/responses",
            r#"{"input":"x","max_output_tokens":3,"stream":true,"background":true}"#,
        ),
        post("/v1/responses", "no json"),
        post("/v1/nothing", "{}"),
        "DELETE /v1/responses/resp_1 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            .to_owned(),
        head,
    ];
    let backend = ScriptedBackend::start(script("ttft=0,gap=0")).unwrap();
    let expected: Vec<_> = asked
        .iter()
        .map(|request| run(raw(backend.address(), request.as_bytes())))
        .collect();
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=0,gap=0");
        run(async {
            for (request, expected) in asked.iter().zip(&expected) {
                let answer = raw(pair.near.addresses.listen, request.as_bytes()).await;
                let label = format!("{} {}: {request}", leg.0, leg.1);
                assert_eq!(answer[9..12], expected[9..12], "{label}");
                if !request.starts_with("HEAD") {
                    assert_eq!(body_of(&answer), body_of(expected), "{label}");
                }
                let kind = |answer: &str| {
                    let mut lines = answer.lines();
                    lines.find_map(|line| Some(line.strip_prefix("content-type: ")?.to_owned()))
                };
                assert_eq!(kind(&answer), kind(expected), "{label}");
            }
            let requests = pair.far.backend.requests();
            assert_eq!(requests[0].path, "/v1/models?a=b");
            assert_eq!(requests[1].header("x-own"), Some("1"));
            assert_eq!(requests[1].body, chat.as_bytes());
        });
    }
}

#[test]
fn an_upstreams_refusal_keeps_its_status_on_every_leg() {
    for leg in LEGS {
        let pair = Pair::start(leg, "status=429");
        run(async {
            for _ in 0..2 {
                let answer = raw(
                    pair.near.addresses.listen,
                    post("/v1/responses", &create("x", 3)).as_bytes(),
                )
                .await;
                let label = format!("{} {}: {answer}", leg.0, leg.1);
                assert!(
                    answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
                    "{label}"
                );
                let body: Value = serde_json::from_str(&body_of(&answer)).unwrap();
                assert_eq!(body["error"]["message"], "as the script says", "{label}");
            }
        });
    }
}

#[test]
fn only_what_is_new_travels_where_the_far_sidecar_keeps_the_state() {
    for leg in LEGS {
        for state_at in [StateAt::Proxy, StateAt::Upstream] {
            let pair = Pair::between(leg, Stack::start("gap=0ms"), false, |options| {
                ProxyOptions {
                    state_at,
                    ..options
                }
            });
            run(async {
                let label = format!("{} {} {state_at:?}", leg.0, leg.1);
                let first = pair.ask(trace(1), &create("one", 4)).await.unwrap();
                let done: Value = serde_json::from_slice(&first.terminal).unwrap();
                let mut next: Value = serde_json::from_str(&create("two", 4)).unwrap();
                next["previous_response_id"] = done["response"]["id"].clone();
                let second = pair.ask(trace(2), &next.to_string()).await.unwrap();
                assert_eq!(second.outcome, Some(Outcome::Complete), "{label}");
                let asked = pair.far.backend.take_requests().pop().unwrap();
                let asked: Value = serde_json::from_slice(&asked.body).unwrap();
                assert_eq!(asked.get("previous_response_id"), None, "{label}");
                assert_eq!(asked["input"].as_array().unwrap().len(), 3, "{label}");
            });
        }
    }
}

#[test]
fn an_unknown_response_is_refused_as_over_http() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "gap=0ms");
    run(async {
        let mut body: Value = serde_json::from_str(&create("two", 4)).unwrap();
        body["previous_response_id"] = json!("resp_no");
        let answer = raw(
            pair.near.addresses.listen,
            post("/v1/responses", &body.to_string()).as_bytes(),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("previous_response_not_found"), "{answer}");
    });
}

#[test]
fn one_connection_carries_exchanges_side_by_side() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=20ms,gap=1ms");
        run(async {
            // Warm first: what is dialled at once is dialled by each.
            pair.ask(trace(100), &create("x", 2)).await.unwrap();
            let traces: Vec<_> = (0..8).map(|number| trace(200 + number)).collect();
            let body = create("x", 10);
            let asked = traces.iter().map(|&trace| pair.ask(trace, &body));
            for seen in futures_util::future::join_all(asked).await {
                assert_eq!(seen.unwrap().marks.len(), 10);
            }
            let mut anew = 0;
            for trace in traces {
                let record = pair.near.record(trace).await;
                assert_eq!(record.outcome, Outcome::Complete);
                anew += usize::from(record.up_connected_anew);
            }
            let expected = match leg.0 {
                Transport::HttpCold => 8,
                // One exchange at a time on each.
                Transport::Http | Transport::Ws => 7,
                _ => 0,
            };
            assert_eq!(anew, expected, "{} {}", leg.0, leg.1);
        });
    }
}

#[test]
fn a_websocket_of_one_client_carries_nothing_of_anothers() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "gap=0ms");
    let key = |whom: &str| [("authorization".to_owned(), format!("Bearer {whom}"))];
    run(async {
        for (number, whom) in ["me", "you", "me", "you"].into_iter().enumerate() {
            let trace = trace(number as u128);
            pair.ask_with(trace, &create("x", 3), &key(whom))
                .await
                .unwrap();
            let record = pair.near.record(trace).await;
            assert_eq!(record.up_connected_anew, number < 2, "{number}");
            let asked = pair.far.backend.take_requests().pop().unwrap();
            assert_eq!(
                asked.header("authorization"),
                Some(&*format!("Bearer {whom}"))
            );
            assert_eq!(asked.trace, Some(trace));
        }
    });
}

#[test]
fn a_websocket_is_shared_by_requests_that_differ_only_in_what_tells_of_each() {
    let leg = (Transport::Ws, Encoding::Events);
    let pair = Pair::start(leg, "gap=0ms");
    let asked = |number: u128, tenant: &str| {
        let of_each = ["x-request-id", "user-agent", "x-stainless-retry-count"];
        let mut fields: Vec<_> = of_each
            .iter()
            .map(|name| (name.to_string(), number.to_string()))
            .collect();
        fields.push(("x-tenant".to_owned(), tenant.to_owned()));
        fields
    };
    run(async {
        for (number, tenant, anew) in [(0, "a", true), (1, "a", false), (2, "b", true)] {
            let trace = trace(number);
            let fields = asked(number, tenant);
            pair.ask_with(trace, &create("x", 3), &fields)
                .await
                .unwrap();
            let record = pair.near.record(trace).await;
            assert_eq!(record.up_connected_anew, anew, "{number}");
            let asked = pair.far.backend.take_requests().pop().unwrap();
            assert_eq!(asked.header("x-tenant"), Some(tenant));
            assert_eq!(asked.header("x-request-id"), None);
            assert_eq!(asked.trace, Some(trace));
            // Said by the request that opened the WebSocket.
            let opener = if number == 2 { "2" } else { "0" };
            assert_eq!(asked.header("user-agent"), Some(opener));
        }
    });
}
