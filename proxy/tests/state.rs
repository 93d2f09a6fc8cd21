//! Conversations that the proxy remembers: every channel, one store, each client's own; and a little more for a WebSocket.

mod stack;

use serde_json::{Value, json};
use stack::{CHANNELS, Stack, create, exchange, get, run, trace};
use tokenlag_channel::Channel;
use tokenlag_probes::{Encoding, FailureKind, Outcome, Transport};
use tokenlag_proxy::{ProxyOptions, StateAt};
use tokenlag_scripted::{Script, ScriptedBackend};

type Way = (Transport, Encoding);

const WS: Way = (Transport::Ws, Encoding::Events);

/// All but the WebSocket, where a request that names an unknown response is refused.
fn http_like() -> impl Iterator<Item = Way> {
    CHANNELS.into_iter().filter(|way| way.0 != Transport::Ws)
}

fn stack(adjust: impl FnOnce(ProxyOptions) -> ProxyOptions) -> Stack {
    let backend = ScriptedBackend::start(Script::default().with("gap=0ms").unwrap()).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, adjust)
}

async fn turn(channel: &Channel, way: Way, body: &Value) -> (Value, Option<Outcome>) {
    turn_as(channel, way, body, &[]).await
}

async fn turn_as(
    channel: &Channel,
    way: Way,
    body: &Value,
    headers: &[(String, String)],
) -> (Value, Option<Outcome>) {
    let seen = exchange(channel, way, trace(5), &body.to_string(), headers)
        .await
        .unwrap();
    let last = if seen.terminal.is_empty() {
        &seen.body
    } else {
        &seen.terminal
    };
    (serde_json::from_slice(last).unwrap(), seen.outcome)
}

fn say(text: &str, previous: Option<&str>) -> Value {
    let mut body: Value = serde_json::from_str(&create(text, 4)).unwrap();
    if let Some(id) = previous {
        body["previous_response_id"] = json!(id);
    }
    body
}

/// A turn that the connection alone may remember.
fn say_once(text: &str, previous: Option<&str>) -> Value {
    let mut body = say(text, previous);
    body["store"] = json!(false);
    body
}

fn id(event: &Value) -> &str {
    event["response"]["id"].as_str().unwrap()
}

/// The texts of a request's input items.
fn texts(body: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap();
    assert!(body.get("previous_response_id").is_none(), "{body}");
    match &body["input"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items
            .iter()
            .map(|item| match &item["content"] {
                Value::String(text) => text.clone(),
                parts => parts[0]["text"].as_str().unwrap().to_owned(),
            })
            .collect(),
        other => panic!("{other}"),
    }
}

/// The body of the last request that came upstream.
fn last_asked(stack: &Stack) -> Vec<u8> {
    stack.backend.take_requests().pop().unwrap().body
}

#[test]
fn a_turn_sends_what_is_new_and_the_upstream_gets_it_all() {
    for way in CHANNELS {
        for say in [say, say_once] {
            if way.0 != Transport::Ws && say("x", None).get("store").is_some() {
                continue;
            }
            let stack = stack(|options| options);
            run(async {
                let channel = stack.channel(way.0);
                let (first, _) = turn(&channel, way, &say("one", None)).await;
                let answer = first["response"]["output"][0]["content"][0]["text"]
                    .as_str()
                    .unwrap();
                let (second, _) = turn(&channel, way, &say("two", Some(id(&first)))).await;
                let (_, outcome) = turn(&channel, way, &say("three", Some(id(&second)))).await;
                assert_eq!(outcome, Some(Outcome::Complete));
                // A branch from the first turn sees nothing of the second; a connection alone remembers its latest only.
                let stored = say("x", None).get("store").is_none();
                let (other, _) = turn(&channel, way, &say("other", Some(id(&first)))).await;
                if !stored {
                    assert_eq!(other["error"]["code"], "previous_response_not_found");
                    assert_eq!(stack.backend.requests().len(), 3);
                    return;
                }

                let asked: Vec<_> = stack
                    .backend
                    .requests()
                    .iter()
                    .map(|r| texts(&r.body))
                    .collect();
                assert_eq!(asked[0], ["one"]);
                assert_eq!(asked[1], ["one", answer, "two"]);
                assert_eq!(asked[2].len(), 5);
                assert_eq!(asked[2][..2], ["one", answer]);
                assert_eq!(asked[2][4], "three");
                assert_eq!(asked[3], ["one", answer, "other"]);
            });
        }
    }
}

#[test]
fn a_conversation_goes_on_over_another_channel() {
    let stack = stack(|options| options);
    run(async {
        let mut last = None;
        for (number, way) in CHANNELS.into_iter().enumerate() {
            let channel = stack.channel(way.0);
            let (done, outcome) = turn(&channel, way, &say("more", last.as_deref())).await;
            assert_eq!(outcome, Some(Outcome::Complete), "{} {}", way.0, way.1);
            assert_eq!(texts(&last_asked(&stack)).len(), 2 * number + 1);
            last = Some(id(&done).to_owned());
        }
    });
}

#[test]
fn what_names_nothing_known_passes_untouched() {
    for state_at in [StateAt::Proxy, StateAt::Upstream] {
        let stack = stack(|options| ProxyOptions {
            state_at,
            ..options
        });
        for way in http_like() {
            run(async {
                let channel = stack.channel(way.0);
                for body in [
                    r#"{ "model":"scripted",  "input":"x","stream":true, "z":1.50 }"#,
                    r#"{"input":"x","previous_response_id":null,"stream":true}"#,
                    r#"{"input":"x","previous_response_id" : "resp_no","stream":true,"background":false}"#,
                    r#"{"input":"say \"previous_response_id\"","stream":true}"#,
                ] {
                    exchange(&channel, way, trace(1), body, &[]).await.unwrap();
                    assert_eq!(String::from_utf8(last_asked(&stack)).unwrap(), body);
                }
            });
        }
    }
}

#[test]
fn a_known_response_changes_nothing_but_the_input() {
    let stack = stack(|options| options);
    for way in http_like() {
        run(async {
            let channel = stack.channel(way.0);
            let (first, _) = turn(&channel, way, &say("one", None)).await;
            let body = format!(
                r#"{{"z":1.50,"input":"two","previous_response_id":"{}","background":false,"stream":true,"client_metadata":{{"a":"b"}}}}"#,
                id(&first)
            );
            exchange(&channel, way, trace(1), &body, &[]).await.unwrap();
            let asked = String::from_utf8(last_asked(&stack)).unwrap();
            assert!(asked.starts_with(r#"{"z":1.50,"input":["#), "{asked}");
            let rest = r#"],"background":false,"stream":true,"client_metadata":{"a":"b"}}"#;
            assert!(asked.ends_with(rest), "{asked}");
        });
    }
}

#[test]
fn a_response_that_was_not_streamed_is_gone_on_from() {
    let stack = stack(|options| options);
    for way in http_like() {
        run(async {
            let channel = stack.channel(way.0);
            let mut whole = say("one", None);
            whole["stream"] = json!(false);
            let (response, _) = turn(&channel, way, &whole).await;
            let id = response["id"].as_str().unwrap();
            turn(&channel, way, &say("two", Some(id))).await;
            let asked = texts(&last_asked(&stack));
            assert_eq!((asked.len(), &*asked[0], &*asked[2]), (3, "one", "two"));
        });
    }
}

#[test]
fn nobody_goes_on_from_what_is_anothers_or_was_not_to_be_stored() {
    let stack = stack(|options| options);
    let as_whom = |whom: &str| [("authorization".to_owned(), format!("Bearer {whom}"))];
    for way in http_like() {
        run(async {
            let channel = stack.channel(way.0);
            let (mine, _) = turn_as(&channel, way, &say("one", None), &as_whom("me")).await;
            let next = say("two", Some(id(&mine)));
            turn_as(&channel, way, &next, &as_whom("you")).await;
            let asked = last_asked(&stack);
            assert_eq!(serde_json::from_slice::<Value>(&asked).unwrap(), next);
            turn_as(&channel, way, &next, &as_whom("me")).await;
            assert_eq!(texts(&last_asked(&stack)).len(), 3);

            let (unkept, _) = turn(&channel, way, &say_once("one", None)).await;
            let next = say("two", Some(id(&unkept)));
            turn(&channel, way, &next).await;
            let asked = last_asked(&stack);
            assert_eq!(serde_json::from_slice::<Value>(&asked).unwrap(), next);
        });
    }
}

#[test]
fn a_failed_or_cut_off_turn_is_not_kept() {
    let stack = stack(|options| options);
    for way in http_like() {
        run(async {
            let channel = stack.channel(way.0);
            let cut = Script::default().with("gap=0ms,truncate=2").unwrap();
            stack.backend.set_script(cut);
            let seen = exchange(&channel, way, trace(1), &create("x", 4), &[])
                .await
                .unwrap();
            assert_eq!(seen.outcome, None);
            stack.backend.set_script(Script::default());
            let (_, figures) = get(stack.addresses.admin, "/metrics").await;
            assert!(
                figures.contains("\ntokenlag_responses_kept 0\n"),
                "{figures}"
            );
        });
    }
}

#[test]
fn the_upstream_keeps_the_state_where_it_is_told_to() {
    for way in CHANNELS {
        let stack = stack(|options| ProxyOptions {
            state_at: StateAt::Upstream,
            ..options
        });
        run(async {
            let channel = stack.channel(way.0);
            let (first, _) = turn(&channel, way, &say("one", None)).await;
            turn(&channel, way, &say("two", Some(id(&first)))).await;
            let asked: Value = serde_json::from_slice(&last_asked(&stack)).unwrap();
            assert_eq!(asked["previous_response_id"], id(&first), "{}", way.0);
            assert_eq!(asked["input"], "two");
            let (_, figures) = get(stack.addresses.admin, "/metrics").await;
            assert!(
                figures.contains("\ntokenlag_responses_kept 0\n"),
                "{figures}"
            );
            let (_, config) = get(stack.addresses.admin, "/config").await;
            let config: Value = serde_json::from_str(&config).unwrap();
            assert_eq!(config["state_at"], "upstream");
        });
    }
}

#[test]
fn the_store_is_bounded_and_tells_what_it_forgot() {
    let stack = stack(|options| ProxyOptions {
        state_limits: tokenlag_dialect::Limits {
            responses: 2,
            bytes: 1 << 20,
        },
        ..options
    });
    run(async {
        let way = (Transport::Http, Encoding::Events);
        let channel = stack.channel(way.0);
        let (first, _) = turn(&channel, way, &say("one", None)).await;
        for _ in 0..3 {
            turn(&channel, way, &say("other", None)).await;
        }
        let (_, figures) = get(stack.addresses.admin, "/metrics").await;
        assert!(
            figures.contains("\ntokenlag_responses_kept 2\n"),
            "{figures}"
        );
        assert!(
            figures.contains("\ntokenlag_responses_evicted_total 2\n"),
            "{figures}"
        );
        let bytes = figures
            .lines()
            .find_map(|line| line.strip_prefix("tokenlag_responses_kept_bytes "));
        assert!(bytes.unwrap().parse::<u64>().unwrap() > 100, "{figures}");
        let next = say("two", Some(id(&first)));
        turn(&channel, way, &next).await;
        let asked = last_asked(&stack);
        assert_eq!(serde_json::from_slice::<Value>(&asked).unwrap(), next);
        let (_, config) = get(stack.addresses.admin, "/config").await;
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["state_at"], "proxy");
        assert_eq!(config["state_responses"], 2);
        assert_eq!(config["state_bytes"], 1 << 20);
    });
}

#[test]
fn a_client_that_is_quick_finds_its_last_turn_on_whichever_thread_it_comes() {
    let stack = stack(|options| ProxyOptions {
        threads: 3,
        ..options
    });
    stack
        .backend
        .set_script(Script::default().with("ttft=0ms,gap=0ms").unwrap());
    run(async {
        let way = (Transport::HttpCold, Encoding::Events);
        let channel = stack.channel(way.0);
        let mut last = None;
        for number in 0..40 {
            let (done, _) = turn(&channel, way, &say("more", last.as_deref())).await;
            assert_eq!(texts(&last_asked(&stack)).len(), 2 * number + 1);
            last = Some(id(&done).to_owned());
        }
    });
}

#[test]
fn an_unknown_response_is_an_error_on_a_websocket_and_the_connection_lives_on() {
    let stack = stack(|options| options);
    run(async {
        let channel = stack.channel(Transport::Ws);
        let (error, _) = turn(&channel, WS, &say("two", Some("resp_no"))).await;
        assert_eq!(
            error["error"]["code"], "previous_response_not_found",
            "{error}"
        );
        let (_, outcome) = turn(&channel, WS, &say("one", None)).await;
        assert_eq!(outcome, Some(Outcome::Complete));
        assert_eq!(channel.counters().connections_opened, 1);
        assert_eq!(
            stack.backend.requests().len(),
            1,
            "the upstream saw the good one only"
        );
    });
}

#[test]
fn what_one_websocket_alone_knows_another_does_not() {
    let stack = stack(|options| options);
    run(async {
        let channel = stack.channel(Transport::Ws);
        let (first, _) = turn(&channel, WS, &say_once("one", None)).await;
        let other = stack.channel(Transport::Ws);
        let (error, _) = turn(&other, WS, &say("two", Some(id(&first)))).await;
        assert_eq!(
            error["error"]["code"], "previous_response_not_found",
            "{error}"
        );
        // What goes on from it and is to be stored brings all that was before.
        let (second, _) = turn(&channel, WS, &say("two", Some(id(&first)))).await;
        turn(&other, WS, &say("three", Some(id(&second)))).await;
        assert_eq!(texts(&last_asked(&stack)).len(), 5);
    });
}

#[test]
fn a_warm_up_answers_without_the_upstream_and_can_be_built_on() {
    let stack = stack(|options| options);
    run(async {
        let channel = stack.channel(Transport::Ws);
        let mut warm_up = say("instructions of the session", None);
        warm_up["generate"] = json!(false);
        let (warm, outcome) = turn(&channel, WS, &warm_up).await;
        assert_eq!(outcome, Some(Outcome::Complete));
        assert_eq!(warm["response"]["output"], json!([]));
        assert!(stack.backend.requests().is_empty());
        turn(&channel, WS, &say("go", Some(id(&warm)))).await;
        let asked = texts(&stack.backend.requests()[0].body);
        assert_eq!(asked, ["instructions of the session", "go"]);
    });
}

#[test]
fn a_failed_turn_forgets_its_parent() {
    let stack = stack(|options| options);
    run(async {
        let channel = stack.channel(Transport::Ws);
        let (first, _) = turn(&channel, WS, &say_once("one", None)).await;
        let failing = Script::default().with("status=429").unwrap();
        stack.backend.set_script(failing);
        let (error, outcome) = turn(&channel, WS, &say_once("two", Some(id(&first)))).await;
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["status"], 429, "{error}");
        assert_eq!(outcome, Some(Outcome::Failed(FailureKind::ClientError)));
        stack.backend.set_script(Script::default());
        let (error, _) = turn(&channel, WS, &say_once("again", Some(id(&first)))).await;
        assert_eq!(
            error["error"]["code"], "previous_response_not_found",
            "{error}"
        );
    });
}
