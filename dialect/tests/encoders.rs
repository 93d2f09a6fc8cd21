//! What the encoders write, the decoder reads back: deltas, ends and counts, through both framings.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenlag_dialect::chat::{ChatEncoder, DONE};
use tokenlag_dialect::completions::CompletionEncoder;
use tokenlag_dialect::generation::FinishReason;
use tokenlag_dialect::responses::{Completed, Finish, ResponseEncoder, ResponseHead};
use tokenlag_dialect::usage::Timings;
use tokenlag_dialect::{Decoder, Dialect, Framing, Terminal, write_event};
use tokenlag_probes::{Stamp, Usage};

const USAGE: Usage = Usage {
    input: 12,
    cached_input: Some(8),
    output: 3,
};

const TIMINGS: Timings = Timings {
    cache_n: 8,
    prompt_n: 4,
    prompt_ms: 2.0,
    predicted_n: 3,
    predicted_ms: 6.0,
};

/// The events of a stream, by name where they have one.
type Events = Vec<(Option<String>, Vec<u8>)>;

/// Sends the events through both framings; each must give that many deltas, that end and that usage.
fn check(
    dialect: Dialect,
    events: &Events,
    deltas: usize,
    terminal: Terminal,
    usage: Option<Usage>,
) {
    let mut sse = Vec::new();
    for (name, data) in events {
        write_event(&mut sse, name.as_deref(), data);
    }
    let messages: Vec<&[u8]> = events.iter().map(|(_, data)| &data[..]).collect();
    for (framing, chunks) in [
        (Framing::Sse, sse.chunks(13).collect()),
        (Framing::Messages, messages),
    ] {
        let mut decoder = Decoder::new(dialect, framing);
        let mut marks = Vec::new();
        for chunk in chunks {
            decoder
                .feed(Stamp::from_nanos(1), 0, chunk, &mut marks)
                .unwrap();
        }
        assert_eq!(marks.len(), deltas, "{framing:?}");
        assert_eq!(decoder.terminal(), Some(&terminal), "{framing:?}");
        assert_eq!(decoder.usage(), usage, "{framing:?}");
        assert_eq!(decoder.unreadable(), 0, "{framing:?}");
    }
}

fn chunk(write: impl FnOnce(&mut Vec<u8>)) -> (Option<String>, Vec<u8>) {
    let mut out = Vec::new();
    write(&mut out);
    (None, out)
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

fn response(texts: &[&str], finish: Finish) -> Events {
    let mut events = Events::new();
    let mut sink = |name: &str, data: &[u8]| events.push((Some(name.to_owned()), data.to_vec()));
    let mut encoder = ResponseEncoder::new(ResponseHead {
        id: "resp_1".into(),
        model: "m".into(),
        created_at: 5,
        store: true,
        ..ResponseHead::default()
    });
    encoder.start(&mut sink);
    for text in texts {
        encoder.delta(text, &mut sink);
    }
    encoder.finish(finish, Some(USAGE), &mut sink);
    events
}

#[test]
fn a_response_stream_has_every_event_in_order() {
    let events = response(&["Hel", "lo\n"], Finish::Completed);
    let names: Vec<_> = events
        .iter()
        .map(|(name, _)| name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (index, (name, data)) in events.iter().enumerate() {
        let event = value(data);
        assert_eq!(event["type"], name.as_deref().unwrap());
        assert_eq!(event["sequence_number"], index);
    }
    assert_eq!(value(&events[0].1)["response"]["status"], "in_progress");
    let item = json!({
        "id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello\n"}],
    });
    assert_eq!(value(&events[8].1)["item"], item);
    let last = &value(&events[9].1)["response"];
    assert_eq!(
        (&last["status"], &last["output"][0]),
        (&json!("completed"), &item)
    );
    assert_eq!(last["usage"]["total_tokens"], 15);

    let completed = Completed::parse(&events[9].1).unwrap();
    assert_eq!(
        (&*completed.id, completed.output.len(), completed.usage),
        ("resp_1", 1, Some(USAGE))
    );
    check(
        Dialect::Responses,
        &events,
        2,
        Terminal::Completed,
        Some(USAGE),
    );
}

#[test]
fn responses_that_end_otherwise() {
    let events = response(&["a"], Finish::MaxOutputTokens);
    let last = value(&events.last().unwrap().1);
    assert_eq!(
        last["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    check(
        Dialect::Responses,
        &events,
        1,
        Terminal::Incomplete,
        Some(USAGE),
    );

    let failed = Finish::Failed {
        code: "server_error".into(),
        message: "out of luck".into(),
    };
    let events = response(&[], failed);
    let last = value(&events.last().unwrap().1);
    assert_eq!(last["response"]["error"]["code"], "server_error");
    let terminal = Terminal::Failed(tokenlag_probes::FailureKind::Model);
    check(Dialect::Responses, &events, 0, terminal, Some(USAGE));
}

#[test]
fn a_warm_up_has_no_output() {
    let mut encoder = ResponseEncoder::new(ResponseHead::default());
    let mut events = Events::new();
    let mut sink = |name: &str, data: &[u8]| events.push((Some(name.to_owned()), data.to_vec()));
    encoder.start(&mut sink);
    encoder.finish_without_output(Finish::Completed, None, &mut sink);
    assert_eq!(events.len(), 3);
    assert_eq!(value(&events[2].1)["response"]["output"], json!([]));
    check(Dialect::Responses, &events, 0, Terminal::Completed, None);
}

#[test]
fn chat_chunks() {
    let encoder = ChatEncoder::new("chatcmpl-1", "m", 5, true);
    let events = vec![
        chunk(|out| encoder.role(out)),
        chunk(|out| encoder.content(out, "a\"b")),
        chunk(|out| encoder.finish(out, FinishReason::Length, None)),
        chunk(|out| encoder.usage(out, USAGE, Some(&TIMINGS))),
        (None, DONE.to_vec()),
    ];
    assert_eq!(
        value(&events[0].1),
        json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m",
            "system_fingerprint": concat!("tokenlag-", env!("CARGO_PKG_VERSION")),
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}],
            "usage": null,
        })
    );
    assert_eq!(
        value(&events[1].1)["choices"][0]["delta"],
        json!({"content": "a\"b"})
    );
    assert_eq!(value(&events[2].1)["choices"][0]["finish_reason"], "length");
    let last = value(&events[3].1);
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &json!(3))
    );
    assert_eq!(last["timings"]["predicted_per_second"], 500.0);
    check(Dialect::Chat, &events, 1, Terminal::Done, Some(USAGE));
}

#[test]
fn completion_chunks() {
    let encoder = CompletionEncoder::new("cmpl-1", "m", 5, false);
    let events = vec![
        chunk(|out| encoder.text(out, " a")),
        chunk(|out| encoder.text(out, "b")),
        chunk(|out| encoder.finish(out, FinishReason::Stop, Some(&TIMINGS))),
        (None, DONE.to_vec()),
    ];
    assert_eq!(
        value(&events[0].1)["choices"],
        json!([{"index": 0, "text": " a", "logprobs": null, "finish_reason": null}])
    );
    assert!(value(&events[0].1).get("usage").is_none());
    assert_eq!(value(&events[2].1)["timings"]["cache_n"], 8);
    check(Dialect::Completions, &events, 2, Terminal::Done, None);
}

#[test]
fn whole_replies() {
    let mut out = Vec::new();
    ChatEncoder::new("c", "m", 5, false).whole(
        &mut out,
        "hi",
        FinishReason::Stop,
        USAGE,
        Some(&TIMINGS),
    );
    let whole = value(&out);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": "hi", "refusal": null})
    );
    assert_eq!(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 8);

    out.clear();
    CompletionEncoder::new("c", "m", 5, true).whole(
        &mut out,
        "hi",
        FinishReason::Stop,
        USAGE,
        None,
    );
    let whole = value(&out);
    assert_eq!(
        whole["choices"][0],
        json!({"index": 0, "text": "hi", "logprobs": null, "finish_reason": "stop"})
    );
    assert_eq!(whole["usage"]["total_tokens"], 15);

    let mut encoder = ResponseEncoder::new(ResponseHead::default());
    encoder.delta("hi", &mut |_, _| ());
    let whole = value(&encoder.whole(&Finish::Completed, Some(USAGE)));
    assert_eq!(whole["output"][0]["content"][0]["text"], "hi");
    assert_eq!(
        value(encoder.output()[0].get().as_bytes()),
        whole["output"][0]
    );
}

proptest! {
    #[test]
    fn any_text_survives(texts in prop::collection::vec("\\PC{0,12}|[\n\r\"\\\\]{1,4}", 0..8)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let deltas = texts.iter().filter(|text| !text.is_empty()).count();

        let events = response(&texts, Finish::Completed);
        let last = value(&events.last().unwrap().1);
        prop_assert_eq!(last["response"]["output"][0]["content"][0]["text"].as_str().unwrap(), texts.concat());
        check(Dialect::Responses, &events, deltas, Terminal::Completed, Some(USAGE));

        let encoder = ChatEncoder::new("c", "m\"", 5, false);
        let mut events: Events = texts.iter().map(|text| chunk(|out| encoder.content(out, text))).collect();
        events.push((None, DONE.to_vec()));
        let joined: String = events[..texts.len()]
            .iter()
            .map(|(_, data)| value(data)["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
            .collect();
        prop_assert_eq!(joined, texts.concat());
        check(Dialect::Chat, &events, deltas, Terminal::Done, None);
    }
}
