//! Conversations that the proxy remembers for a connection: WebSocket and QUIC.

mod stack;

use serde_json::{Value, json};
use stack::{Stack, create, exchange, run, trace};
use tokenlag_channel::Channel;
use tokenlag_probes::{Encoding, FailureKind, Outcome, Transport};

const WAYS: [(Transport, Encoding); 2] = [
    (Transport::Ws, Encoding::Events),
    (Transport::Quic, Encoding::Events),
];

type Way = (Transport, Encoding);

async fn turn(channel: &Channel, way: Way, body: &Value) -> (Value, Option<Outcome>) {
    let seen = exchange(channel, way, trace(5), &body.to_string(), &[])
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

#[test]
fn a_turn_sends_what_is_new_and_the_upstream_gets_it_all() {
    for way in WAYS {
        let stack = Stack::start("gap=0ms");
        run(async {
            let channel = stack.channel(way.0);
            let (first, _) = turn(&channel, way, &say("one", None)).await;
            let id = first["response"]["id"].as_str().unwrap();
            let answer = first["response"]["output"][0]["content"][0]["text"]
                .as_str()
                .unwrap();
            let (second, _) = turn(&channel, way, &say("two", Some(id))).await;
            let next = second["response"]["id"].as_str().unwrap();
            let (_, outcome) = turn(&channel, way, &say("three", Some(next))).await;
            assert_eq!(outcome, Some(Outcome::Complete));
            // A branch from the first turn sees nothing of the second.
            turn(&channel, way, &say("other", Some(id))).await;

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

#[test]
fn an_unknown_response_is_an_error_and_the_connection_lives_on() {
    for way in WAYS {
        let stack = Stack::start("gap=0ms");
        run(async {
            let channel = stack.channel(way.0);
            let (error, _) = turn(&channel, way, &say("two", Some("resp_no"))).await;
            assert_eq!(
                error["error"]["code"], "previous_response_not_found",
                "{error}"
            );
            let (_, outcome) = turn(&channel, way, &say("one", None)).await;
            assert_eq!(outcome, Some(Outcome::Complete));
            assert_eq!(channel.counters().connections_opened, 1);
            assert_eq!(
                stack.backend.requests().len(),
                1,
                "the upstream saw the good one only"
            );
        });
    }
}

#[test]
fn what_one_connection_knows_another_does_not() {
    let stack = Stack::start("gap=0ms");
    for way in WAYS {
        run(async {
            let channel = stack.channel(way.0);
            let (first, _) = turn(&channel, way, &say("one", None)).await;
            let id = first["response"]["id"].as_str().unwrap();
            let mut other = stack.channel(way.0);
            let (error, _) = turn(&mut other, way, &say("two", Some(id))).await;
            assert_eq!(
                error["error"]["code"], "previous_response_not_found",
                "{error}"
            );
        });
    }
}

#[test]
fn a_warm_up_answers_without_the_upstream_and_can_be_built_on() {
    let stack = Stack::start("gap=0ms");
    let way = WAYS[0];
    run(async {
        let channel = stack.channel(way.0);
        let mut warm_up = say("instructions of the session", None);
        warm_up["generate"] = json!(false);
        let (warm, outcome) = turn(&channel, way, &warm_up).await;
        assert_eq!(outcome, Some(Outcome::Complete));
        assert_eq!(warm["response"]["output"], json!([]));
        assert!(stack.backend.requests().is_empty());
        let id = warm["response"]["id"].as_str().unwrap();
        turn(&channel, way, &say("go", Some(id))).await;
        let asked = texts(&stack.backend.requests()[0].body);
        assert_eq!(asked, ["instructions of the session", "go"]);
    });
}

#[test]
fn a_failed_turn_forgets_its_parent() {
    let way = WAYS[0];
    let stack = Stack::start("gap=0ms");
    run(async {
        let channel = stack.channel(way.0);
        let (first, _) = turn(&channel, way, &say("one", None)).await;
        let id = first["response"]["id"].as_str().unwrap();
        let failing = tokenlag_scripted::Script::default()
            .with("status=429")
            .unwrap();
        stack.backend.set_script(failing);
        let (error, outcome) = turn(&channel, way, &say("two", Some(id))).await;
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["status"], 429, "{error}");
        assert_eq!(outcome, Some(Outcome::Failed(FailureKind::ClientError)));
        stack
            .backend
            .set_script(tokenlag_scripted::Script::default());
        let (error, _) = turn(&channel, way, &say("again", Some(id))).await;
        assert_eq!(
            error["error"]["code"], "previous_response_not_found",
            "{error}"
        );
    });
}
