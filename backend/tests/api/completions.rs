//! `/v1/completions`: whole, streamed, stopped, seeded.

use serde_json::{Value, json};
use tokenlag_probes::Outcome;

use crate::harness::check;

const PATH: &str = "/v1/completions";

fn ask(more: Value) -> Value {
    let mut ask = json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": true});
    ask.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    ask
}

fn text(reply: &Value) -> String {
    reply["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn whole_and_streamed_say_the_same() {
    check(async |server| {
        let whole = server.client.post(PATH, &ask(json!({}))).await.ok();
        assert_eq!(whole["object"], "text_completion");
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert_eq!(whole["usage"]["completion_tokens"], 40);
        let prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!(prompt > 1);
        assert_eq!(whole["timings"]["predicted_n"], 40);
        assert!(whole["timings"]["predicted_ms"].as_f64().unwrap() > 0.0);
        assert!(!text(&whole).is_empty());

        let streamed = server
            .client
            .stream(PATH, &ask(json!({"stream": true})))
            .await;
        assert_eq!(streamed.text("/choices/0/text"), text(&whole));
        assert_eq!(streamed.outcome, Some(Outcome::Complete));
        assert_eq!(streamed.usage, None);
        let events = streamed.json();
        let last = &events[events.len() - 2];
        assert_eq!(last["choices"][0]["finish_reason"], "length");
        assert_eq!(last["timings"]["predicted_n"], 40);

        let options = json!({"stream": true, "stream_options": {"include_usage": true}});
        let counted = server.client.stream(PATH, &ask(options)).await;
        let usage = counted.usage.unwrap();
        assert_eq!((usage.input, usage.output), (prompt, 40));
        // The same prompt came before: all of it but the token that the first logits need is cached.
        assert_eq!(usage.cached_input, Some(prompt - 1));
    });
}

#[test]
fn every_token_leaves_before_the_next_is_computed() {
    check(async |server| {
        let streamed = server
            .client
            .stream(PATH, &ask(json!({"stream": true, "max_tokens": 100})))
            .await;
        assert!(streamed.marks.len() > 80, "{} deltas", streamed.marks.len());
        for pair in streamed.marks.windows(2) {
            assert!(
                pair[0].chunk < pair[1].chunk,
                "two deltas came in one read: {pair:?}"
            );
        }
    });
}

#[test]
fn several_streams_take_turns() {
    check(async |server| {
        let body = ask(json!({"stream": true, "max_tokens": 60}));
        let streams = [0, 1, 2].map(|_| server.client.stream(PATH, &body));
        let [a, b, c] = streams;
        let (a, b, c) = tokio::join!(a, b, c);
        for streamed in [&a, &b, &c] {
            assert_eq!(streamed.text("/choices/0/text"), a.text("/choices/0/text"));
            // One delta a read on each: no stream waits for another to end.
            let reads: std::collections::BTreeSet<_> =
                streamed.marks.iter().map(|mark| mark.chunk).collect();
            assert_eq!(reads.len(), streamed.marks.len());
        }
    });
}

#[test]
fn stop_strings_cut_the_text_and_are_not_shown() {
    check(async |server| {
        let free = text(&server.client.post(PATH, &ask(json!({}))).await.ok());
        // Pieces from the middle of what the model says, across tokens.
        let characters: Vec<char> = free.chars().collect();
        for (from, length) in [(8, 1), (10, 5), (15, 9)] {
            let stop: String = characters[from..from + length].iter().collect();
            let want = &free[..free.find(&stop).unwrap()];
            let body = ask(json!({"stop": ["never said by it", stop]}));
            let whole = server.client.post(PATH, &body).await.ok();
            assert_eq!(text(&whole), want, "stopped at {stop:?}");
            assert_eq!(whole["choices"][0]["finish_reason"], "stop");
            assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() < 40);

            let body = ask(json!({"stop": stop, "stream": true}));
            let streamed = server.client.stream(PATH, &body).await;
            assert_eq!(
                streamed.text("/choices/0/text"),
                want,
                "stopped at {stop:?}"
            );
        }
        server.until("tokenlag_backend_jobs_active", 0).await;
    });
}

#[test]
fn what_was_held_back_for_a_stop_string_comes_at_the_end() {
    check(async |server| {
        let free = text(
            &server
                .client
                .post(PATH, &ask(json!({"max_tokens": 7})))
                .await
                .ok(),
        );
        let stop = format!("{} and never this", free.chars().last().unwrap());
        let body = ask(json!({"max_tokens": 7, "stop": stop, "stream": true}));
        let streamed = server.client.stream(PATH, &body).await;
        assert_eq!(streamed.text("/choices/0/text"), free);
    });
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    check(async |server| {
        let sample = async |seed: Value| {
            let body = ask(json!({"temperature": 1.0, "seed": seed}));
            text(&server.client.post(PATH, &body).await.ok())
        };
        let seven = sample(json!(7)).await;
        assert_eq!(seven, sample(json!(7)).await);
        assert_ne!(seven, sample(json!(8)).await);
        assert_ne!(sample(Value::Null).await, sample(Value::Null).await);
    });
}

#[test]
fn token_ids_are_a_prompt_and_sixteen_tokens_the_default() {
    check(async |server| {
        let body = json!({"prompt": [5, 6, 7], "ignore_eos": true});
        let reply = server.client.post(PATH, &body).await.ok();
        assert_eq!(reply["usage"]["prompt_tokens"], 3);
        assert_eq!(reply["usage"]["completion_tokens"], 16);
    });
}
