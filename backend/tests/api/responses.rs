//! `/v1/responses`: whole, streamed, and turns that build on one another.

use serde_json::{Value, json};
use tokenlag_backend::ServerOptions;
use tokenlag_dialect::Limits;
use tokenlag_probes::Outcome;

use crate::harness::{check, with_server};

const PATH: &str = "/v1/responses";

fn ask(input: Value, more: Value) -> Value {
    let mut ask =
        json!({"input": input, "max_output_tokens": 20, "temperature": 0, "ignore_eos": true});
    ask.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    ask
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

fn cached(response: &Value) -> u64 {
    response["usage"]["input_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

#[test]
fn whole_and_streamed_say_the_same() {
    check(async |server| {
        let more = json!({"instructions": "Be brief.", "metadata": {"k": "v"}});
        let whole = server
            .client
            .post(PATH, &ask(json!("Tell me a story."), more.clone()))
            .await
            .ok();
        assert_eq!(whole["object"], "response");
        assert_eq!(whole["status"], "incomplete");
        assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(
            (&whole["metadata"], &whole["instructions"]),
            (&json!({"k": "v"}), &json!("Be brief."))
        );
        assert_eq!(whole["usage"]["output_tokens"], 20);

        let mut body = ask(
            json!([{"role": "user", "content": "Tell me a story."}]),
            more,
        );
        body["stream"] = json!(true);
        let streamed = server.client.stream(PATH, &body).await;
        assert_eq!(streamed.text("/delta"), text(&whole));
        assert_eq!(streamed.outcome, Some(Outcome::Complete));
        assert_eq!(streamed.usage.unwrap().output, 20);
        for (index, ((name, _), event)) in streamed.events.iter().zip(streamed.json()).enumerate() {
            assert_eq!(
                (&event["type"], &event["sequence_number"]),
                (&json!(name), &json!(index))
            );
        }
        let names: Vec<_> = streamed.events.iter().map(|(name, _)| &**name).collect();
        assert_eq!(
            names[..3],
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added"
            ]
        );
        assert_eq!(names.last(), Some(&"response.incomplete"));
    });
}

#[test]
fn a_turn_goes_on_from_a_response_and_finds_it_cached() {
    check(async |server| {
        let instructions = json!({"instructions": "Be brief."});
        let first = server
            .client
            .post(PATH, &ask(json!("Tell me a story."), instructions))
            .await
            .ok();
        let more = json!({"instructions": "Be brief.", "previous_response_id": first["id"]});
        let second = server
            .client
            .post(PATH, &ask(json!("And then?"), more.clone()))
            .await
            .ok();
        assert_eq!(second["previous_response_id"], first["id"]);

        // The second turn's prompt is the first's, its output, and what is new; all of the old is cached but for the
        // last token, which was never computed.
        let total = |response: &Value| response["usage"]["total_tokens"].as_u64().unwrap();
        assert!(second["usage"]["input_tokens"].as_u64().unwrap() > total(&first));
        assert!(
            cached(&second) >= total(&first) - 1,
            "{} of {}",
            cached(&second),
            total(&first)
        );

        // Branches: the same parent again gives the same answer.
        let again = server
            .client
            .post(PATH, &ask(json!("And then?"), more))
            .await
            .ok();
        assert_eq!(text(&again), text(&second));
        assert_ne!(again["id"], second["id"]);
    });
}

#[test]
fn a_turn_reads_the_same_as_the_whole_conversation() {
    check(async |server| {
        let first = server
            .client
            .post(PATH, &ask(json!("Tell me a story."), json!({})))
            .await
            .ok();
        let tool = json!({"type": "function_call_output", "call_id": "c", "output": "7"});
        let more = json!({"previous_response_id": first["id"]});
        let turn = server
            .client
            .post(PATH, &ask(json!([tool]), more))
            .await
            .ok();
        let conversation =
            json!([{"role": "user", "content": "Tell me a story."}, first["output"][0], tool]);
        let whole = server
            .client
            .post(PATH, &ask(conversation, json!({})))
            .await
            .ok();
        assert_eq!(text(&turn), text(&whole));
    });
}

#[test]
fn what_is_not_stored_cannot_be_named() {
    check(async |server| {
        let first = server
            .client
            .post(PATH, &ask(json!("Hi"), json!({"store": false})))
            .await
            .ok();
        for id in [first["id"].clone(), json!("resp_none")] {
            let more = json!({"previous_response_id": id});
            let refused = server.client.post(PATH, &ask(json!("And?"), more)).await;
            let error = &refused.json()["error"];
            assert_eq!(refused.status, 400);
            assert_eq!(error["code"], "previous_response_not_found");
            assert_eq!(error["param"], "previous_response_id");
        }
    });
}

#[test]
fn what_is_remembered_is_bounded() {
    let options = ServerOptions {
        memory: Limits {
            responses: 2,
            bytes: 1 << 20,
        },
        ..ServerOptions::default()
    };
    with_server(options, async |server| {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(
                server
                    .client
                    .post(PATH, &ask(json!("Hi"), json!({})))
                    .await
                    .ok()["id"]
                    .clone(),
            );
        }
        let go_on = async |id: &Value| {
            let more = json!({"previous_response_id": id, "store": false});
            server
                .client
                .post(PATH, &ask(json!("And?"), more))
                .await
                .status
        };
        assert_eq!(go_on(&ids[0]).await, 400);
        assert_eq!(go_on(&ids[1]).await, 200);
        assert_eq!(go_on(&ids[2]).await, 200);
    });
}

#[test]
fn a_stopped_answer_is_remembered_as_it_was_shown() {
    check(async |server| {
        let free = server
            .client
            .post(PATH, &ask(json!("Tell me a story."), json!({})))
            .await
            .ok();
        let stop: String = text(&free).chars().skip(9).take(3).collect();
        let stopped = server
            .client
            .post(PATH, &ask(json!("Tell me a story."), json!({"stop": stop})))
            .await
            .ok();
        assert_eq!(stopped["status"], "completed");
        let more = json!({"previous_response_id": stopped["id"]});
        let turn = server
            .client
            .post(PATH, &ask(json!("And?"), more))
            .await
            .ok();
        let conversation = json!([
            {"role": "user", "content": "Tell me a story."}, stopped["output"][0], {"role": "user", "content": "And?"},
        ]);
        let whole = server
            .client
            .post(PATH, &ask(conversation, json!({})))
            .await
            .ok();
        assert_eq!(
            turn["usage"]["input_tokens"],
            whole["usage"]["input_tokens"]
        );
        assert_eq!(text(&turn), text(&whole));
    });
}
