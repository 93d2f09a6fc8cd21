//! `/v1/chat/completions`: whole and streamed.

use serde_json::{Value, json};
use tokenlag_probes::Outcome;

use crate::harness::check;

const PATH: &str = "/v1/chat/completions";

fn ask(more: Value) -> Value {
    let mut ask = json!({
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Tell me a story."}]}],
        "max_completion_tokens": 30, "temperature": 0, "ignore_eos": true,
    });
    ask.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    ask
}

#[test]
fn whole_and_streamed_say_the_same() {
    check(async |server| {
        let whole = server.client.post(PATH, &ask(json!({}))).await.ok();
        let message = &whole["choices"][0]["message"];
        assert_eq!(
            (&whole["object"], &message["role"]),
            (&json!("chat.completion"), &json!("assistant"))
        );
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-"));
        assert_eq!(whole["usage"]["completion_tokens"], 30);

        let options = json!({"stream": true, "stream_options": {"include_usage": true}});
        let streamed = server.client.stream(PATH, &ask(options)).await;
        assert_eq!(
            streamed.text("/choices/0/delta/content"),
            message["content"].as_str().unwrap()
        );
        assert_eq!(streamed.outcome, Some(Outcome::Complete));
        assert_eq!(
            streamed.usage.unwrap().input,
            whole["usage"]["prompt_tokens"].as_u64().unwrap()
        );

        let events = streamed.json();
        assert_eq!(
            events[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": ""})
        );
        assert_eq!(events[1]["usage"], Value::Null);
        let [.., finish, usage, done] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(finish["choices"][0]["finish_reason"], "length");
        assert_eq!(
            (&usage["choices"], &usage["timings"]["predicted_n"]),
            (&json!([]), &json!(30))
        );
        assert_eq!(done, &Value::Null);
    });
}

#[test]
fn the_role_comes_before_the_first_token() {
    check(async |server| {
        let long = "word ".repeat(1_500);
        let body = ask(json!({"stream": true, "messages": [{"role": "user", "content": long}]}));
        let mut stream = server.client.open(PATH, &body).await;
        let first = String::from_utf8(stream.next().await.unwrap()).unwrap();
        assert!(first.contains(r#""role":"assistant""#), "{first}");
        assert!(
            !first.contains(r#"{"content""#),
            "the prompt cannot be read yet: {first}"
        );
        // Between head and token lies the reading of the prompt: the role is alone in its read.
        assert_eq!(
            server
                .metric("tokenlag_backend_generated_tokens_total")
                .await,
            0
        );
        stream.rest().await;
    });
}

#[test]
fn a_limit_is_kept_even_where_none_is_named() {
    check(async |server| {
        let body = json!({"messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true});
        let reply = server.client.post(PATH, &body).await.ok();
        assert_eq!(reply["usage"]["completion_tokens"], 256);
    });
}
