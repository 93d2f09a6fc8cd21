//! A chat's stream as a response: the same deltas, counts and ends, in events that agree with each other.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokenlag_dialect::chat::DONE;
use tokenlag_dialect::responses::{Completed, Create, FromChat, ResponseHead, to_chat};
use tokenlag_dialect::{Decoder, Dialect, Framing, SseSplitter, Terminal};
use tokenlag_probes::{DeltaKind, FailureKind, Outcome, Stamp, Usage};

/// What one stream became.
struct Translated {
    events: Vec<Value>,
    bytes: Vec<Vec<u8>>,
    outcome: Outcome,
    translator: FromChat,
}

fn head() -> ResponseHead {
    ResponseHead {
        id: "resp_1".into(),
        model: "m".into(),
        ..ResponseHead::default()
    }
}

fn translate<'a>(translator: FromChat, chat: impl IntoIterator<Item = &'a [u8]>) -> Translated {
    let mut translator = translator;
    let mut bytes = Vec::new();
    let mut sink = |name: &str, event: &[u8]| {
        let value: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(value["type"], name);
        bytes.push(event.to_vec());
    };
    translator.start(&mut sink);
    for data in chat {
        translator.event(data, &mut sink);
    }
    let outcome = translator.end(&mut sink);
    assert_eq!(translator.outcome(), Some(outcome));
    let events: Vec<Value> = bytes
        .iter()
        .map(|event| serde_json::from_slice(event).unwrap())
        .collect();
    well_formed(&events);
    Translated {
        events,
        bytes,
        outcome,
        translator,
    }
}

/// The kinds and counts that a decoder reads in a stream of messages.
fn read<'a>(
    dialect: Dialect,
    events: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<DeltaKind>, Option<Usage>, Option<Terminal>) {
    let mut decoder = Decoder::new(dialect, Framing::Messages);
    let mut marks = Vec::new();
    for event in events {
        decoder
            .feed(Stamp::default(), 0, event, &mut marks)
            .unwrap();
    }
    let kinds = marks.iter().map(|mark| mark.kind).collect();
    (kinds, decoder.usage(), decoder.terminal().copied())
}

/// The data of a stream's events.
fn split(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    SseSplitter::new(1 << 20)
        .feed(stream, &mut |event| events.push(event.data.to_vec()))
        .unwrap();
    events
}

/// Numbers count up; an item is announced once, gets its deltas, is closed with their sum, and stands so in the terminal
/// event, in its place.
fn well_formed(events: &[Value]) {
    let mut pieces: HashMap<u64, String> = HashMap::new();
    let mut announced: Vec<Value> = Vec::new();
    let mut done: HashMap<u64, Value> = HashMap::new();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        let name = event["type"].as_str().unwrap();
        let Some(index) = event["output_index"].as_u64() else {
            continue;
        };
        if name == "response.output_item.added" {
            assert_eq!(index as usize, announced.len());
            assert_eq!(event["item"]["status"], "in_progress");
            announced.push(event["item"]["id"].clone());
            pieces.insert(index, String::new());
            continue;
        }
        assert!(!done.contains_key(&index), "{name} after its item's end");
        if name == "response.output_item.done" {
            assert_eq!(event["item"]["id"], announced[index as usize]);
            assert_eq!(text_of(&event["item"]), pieces[&index]);
            done.insert(index, event["item"].clone());
            continue;
        }
        assert_eq!(event["item_id"], announced[index as usize], "{name}");
        if name.ends_with(".delta") {
            let piece = event["delta"].as_str().unwrap();
            assert!(!piece.is_empty());
            pieces.get_mut(&index).unwrap().push_str(piece);
        } else if let Some(text) = event
            .get("text")
            .or(event.get("arguments"))
            .or(event.get("refusal"))
        {
            assert_eq!(text, &pieces[&index], "{name}");
        }
    }
    let terminal = &events.last().unwrap()["response"];
    let output = terminal["output"].as_array().unwrap();
    assert_eq!(output.len(), announced.len());
    for (index, item) in (0u64..).zip(output) {
        assert_eq!(item, &done[&index]);
    }
}

fn text_of(item: &Value) -> &str {
    let part = &item["content"][0];
    part["text"]
        .as_str()
        .or(part["refusal"].as_str())
        .or(item["arguments"].as_str())
        .unwrap()
}

const FIXTURES: [&[u8]; 3] = [
    include_bytes!("fixtures/chat.sse"),
    include_bytes!("fixtures/llama-server-chat.sse"),
    include_bytes!("fixtures/vllm-chat.sse"),
];

#[test]
fn recorded_chats_keep_their_deltas_and_counts() {
    for stream in FIXTURES {
        let chat = split(stream);
        let chat = || chat.iter().map(Vec::as_slice);
        let translated = translate(FromChat::new(head()), chat());
        let (kinds, usage, terminal) =
            read(Dialect::Responses, translated.bytes.iter().map(|e| &**e));
        let (want_kinds, want_usage, _) = read(Dialect::Chat, chat());
        assert_eq!(kinds, want_kinds);
        assert_eq!(usage, want_usage);
        assert_eq!(terminal, Some(Terminal::Completed));
        assert_eq!(translated.outcome, Outcome::Complete);
        assert_eq!(translated.translator.unreadable(), 0);
    }
}

#[test]
fn items_of_a_chat_with_all_kinds() {
    let chat = split(FIXTURES[1]);
    let translated = translate(FromChat::new(head()), chat.iter().map(Vec::as_slice));
    let names: Vec<&str> = translated
        .events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let response = &translated.events.last().unwrap()["response"];
    assert_eq!(
        response["output"],
        json!([
            {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": [],
                "content": [{"type": "reasoning_text", "text": "So then"}]},
            {"type": "message", "id": "msg_1_1", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi é"}]},
            {"type": "function_call", "id": "fc_1_2", "status": "completed", "call_id": "Zk1", "name": "f", "arguments": "{}"},
        ])
    );
    assert_eq!(
        response["usage"],
        json!({
            "input_tokens": 237, "input_tokens_details": {"cached_tokens": 236},
            "output_tokens": 6, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 243,
        })
    );
}

/// One chunk's data around a choice.
fn chunk(choice: Value) -> Vec<u8> {
    json!({"choices": [choice]}).to_string().into_bytes()
}

fn delta(delta: Value) -> Vec<u8> {
    chunk(json!({"index": 0, "delta": delta}))
}

fn run(chat: &[Vec<u8>]) -> Translated {
    translate(FromChat::new(head()), chat.iter().map(Vec::as_slice))
}

#[test]
fn every_end() {
    let text = delta(json!({"content": "a"}));
    let reason = |reason: &str| chunk(json!({"index": 0, "delta": {}, "finish_reason": reason}));
    let done = DONE.to_vec();
    let error = |error: Value| json!({"error": error}).to_string().into_bytes();
    let complete = Outcome::Complete;
    for (end, name, outcome, members) in [
        (
            vec![reason("stop"), done.clone()],
            "completed",
            complete,
            json!({}),
        ),
        // Some servers end without the last event, and some without the reason.
        (vec![reason("tool_calls")], "completed", complete, json!({})),
        (vec![done.clone()], "completed", complete, json!({})),
        (
            vec![reason("length"), done.clone()],
            "incomplete",
            complete,
            json!({"incomplete_details": {"reason": "max_output_tokens"}}),
        ),
        (
            vec![reason("content_filter"), done.clone()],
            "incomplete",
            complete,
            json!({"incomplete_details": {"reason": "content_filter"}}),
        ),
        (
            vec![
                error(json!({"message": "boom", "type": "server_error", "code": 500})),
                done.clone(),
            ],
            "failed",
            Outcome::Failed(FailureKind::ServerError),
            json!({"error": {"code": "server_error", "message": "boom"}}),
        ),
        (
            vec![error(
                json!({"message": "long", "code": "context_length_exceeded", "status": 400}),
            )],
            "failed",
            Outcome::Failed(FailureKind::ClientError),
            json!({"error": {"code": "context_length_exceeded", "message": "long"}}),
        ),
        (
            vec![error(json!("plain"))],
            "failed",
            Outcome::Failed(FailureKind::Model),
            json!({"error": {"code": "server_error", "message": "plain"}}),
        ),
        (
            vec![],
            "failed",
            Outcome::Truncated,
            json!({"error": {"code": "upstream_lost", "message": "the upstream's reply ended before its terminal event"}}),
        ),
    ] {
        let mut chat = vec![text.clone()];
        chat.extend(end);
        let translated = run(&chat);
        let last = translated.events.last().unwrap();
        assert_eq!(last["type"], format!("response.{name}"));
        assert_eq!(last["response"]["status"], name);
        assert_eq!(translated.outcome, outcome);
        for (member, value) in members.as_object().unwrap() {
            assert_eq!(&last["response"][member], value);
        }
        let whole = name == "completed";
        assert_eq!(
            last["response"]["output"][0]["status"],
            if whole { "completed" } else { "incomplete" }
        );
        assert_eq!(
            translated.translator.completed().is_some(),
            name != "failed"
        );
    }
}

#[test]
fn a_failure_before_any_output_has_none() {
    let translated = run(&[]);
    let names: Vec<&Value> = translated.events.iter().map(|e| &e["type"]).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.failed"
        ]
    );
    let translated = run(&[DONE.to_vec()]);
    assert_eq!(
        translated.events.last().unwrap()["response"]["output"][0]["content"][0]["text"],
        ""
    );
}

#[test]
fn the_whole_response_is_that_of_the_terminal_event() {
    for stream in FIXTURES {
        let chat = split(stream);
        let translated = translate(FromChat::new(head()), chat.iter().map(Vec::as_slice));
        let completed = translated.translator.completed().unwrap();
        let parsed = Completed::parse(translated.bytes.last().unwrap()).unwrap();
        assert_eq!(completed.id, parsed.id);
        assert_eq!(completed.usage, parsed.usage);
        let items = |completed: &Completed| -> Vec<String> {
            completed
                .output
                .iter()
                .map(|item| item.get().to_owned())
                .collect()
        };
        assert_eq!(items(&completed), items(&parsed));
        let whole: Value = serde_json::from_slice(&translated.translator.into_response()).unwrap();
        assert_eq!(whole, translated.events.last().unwrap()["response"]);
    }
    let cut: Value = serde_json::from_slice(&FromChat::new(head()).into_response()).unwrap();
    assert_eq!(cut["status"], "failed");
}

#[test]
fn a_reply_that_was_not_streamed() {
    let body = json!({
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "hi", "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
    });
    let translated = run(&[body.to_string().into_bytes()]);
    let response = &translated.events.last().unwrap()["response"];
    let kinds: Vec<&Value> = response["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["type"])
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(
        response["usage"]["output_tokens_details"]["reasoning_tokens"],
        4
    );
    assert_eq!(translated.outcome, Outcome::Complete);
}

/// The calls that these `tool_calls` arrays become: id, name, arguments.
fn calls(deltas: &[Value]) -> Vec<(String, String, String)> {
    let chat: Vec<Vec<u8>> = deltas
        .iter()
        .map(|calls| delta(json!({ "tool_calls": calls })))
        .chain([DONE.to_vec()])
        .collect();
    let translated = run(&chat);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    translated.events.last().unwrap()["response"]["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                text(&item["call_id"]),
                text(&item["name"]),
                text(&item["arguments"]),
            )
        })
        .collect()
}

#[test]
fn calls_as_different_servers_write_them() {
    let begin = |index: u32, id: &str, name: &str| json!([{"index": index, "id": id, "function": {"name": name, "arguments": ""}}]);
    let more = |index: u32, text: &str| json!([{"index": index, "function": {"arguments": text}}]);
    let call = |id: &str, name: &str, text: &str| (id.to_owned(), name.to_owned(), text.to_owned());
    // By turns.
    assert_eq!(
        calls(&[
            begin(0, "a", "f"),
            begin(1, "b", "g"),
            more(0, "1"),
            more(1, "2"),
            more(0, "3")
        ]),
        [call("a", "f", "13"), call("b", "g", "2")]
    );
    // The id in each piece, with its name, with null, or under another id.
    assert_eq!(
        calls(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}]),
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "2"}}]),
            json!([{"index": 0, "id": "a", "function": {"name": null, "arguments": "2"}}]),
            json!([{"index": 0, "id": "other", "function": {"arguments": "3"}}]),
        ]),
        [call("a", "f", "1223")]
    );
    // Whole calls without an index, or all with index 0.
    for index in [json!(null), json!(0)] {
        assert_eq!(
            calls(&[
                json!([{"index": index, "id": "a", "function": {"name": "f", "arguments": "1"}}]),
                json!([{"index": index, "id": "b", "function": {"name": "f", "arguments": {"x": 2}}}]),
            ]),
            [call("a", "f", "1"), call("b", "f", "{\"x\":2}")]
        );
    }
    // No id at all, and a name in pieces.
    assert_eq!(
        calls(&[
            json!([{"index": 0, "function": {"name": "get_"}}, {"index": 1, "function": {"name": "g"}}]),
            json!([{"index": 0, "function": {"name": "time", "arguments": "{"}}]),
        ]),
        [call("call_1_0", "get_time", "{"), call("call_1_1", "g", "")]
    );
}

#[test]
fn what_cannot_be_read_is_passed_by() {
    let translated = run(&[
        b"not json".to_vec(),
        b"[1]".to_vec(),
        b"{\"choices\":7}".to_vec(),
        Vec::new(),
        chunk(json!({"index": 1, "delta": {"content": "another choice"}})),
        json!({"error": null, "choices": []})
            .to_string()
            .into_bytes(),
        delta(json!({"content": [{"type": "text", "text": "a"}], "refusal": "no"})),
        DONE.to_vec(),
        delta(json!({"content": "late"})),
    ]);
    assert_eq!(translated.translator.unreadable(), 3);
    let output = &translated.events.last().unwrap()["response"]["output"];
    assert_eq!((text_of(&output[0]), text_of(&output[1])), ("a", "no"));
    assert_eq!(output.as_array().unwrap().len(), 2);
}

#[test]
fn a_reply_beyond_the_limit_fails() {
    let text = delta(json!({"content": "x".repeat(400)}));
    let many: Vec<Value> = (0..9)
        .map(|index| json!({"index": index, "id": "c", "function": {"name": "f"}}))
        .collect();
    for chat in [
        vec![text.clone(), text.clone(), text],
        vec![delta(json!({ "tool_calls": many }))],
    ] {
        let translated = translate(
            FromChat::with_limit(head(), 1500),
            chat.iter().map(Vec::as_slice),
        );
        assert_eq!(translated.outcome, Outcome::Failed(FailureKind::Protocol));
        let error = &translated.events.last().unwrap()["response"]["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("1500 bytes"), "{message}");
    }
}

#[test]
fn the_output_goes_back_as_history() {
    let chat = split(FIXTURES[0]);
    let translated = translate(FromChat::new(head()), chat.iter().map(Vec::as_slice));
    let completed = translated.translator.completed().unwrap();
    let create =
        br#"{"input":[{"type":"function_call_output","call_id":"call_w1","output":"rain"}]}"#;
    let create = Create::parse(create).unwrap();
    let history = completed.output.iter().map(|item| -> &RawValue { item });
    let body: Value = serde_json::from_slice(&to_chat(&create, history).unwrap()).unwrap();
    assert_eq!(
        body["messages"],
        json!([
            {"role": "assistant", "content": "Let me look: \"🌦\"\n", "tool_calls": [
                {"id": "call_w1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}},
                {"id": "call_t2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ]},
            {"role": "tool", "content": "rain", "tool_call_id": "call_w1"},
        ])
    );
}

#[test]
fn a_head_says_what_the_create_asked() {
    let create = br#"{"model":"m","input":"a","instructions":"Be brief.","temperature":0.5,"top_p":1,"max_output_tokens":9,"previous_response_id":"resp_0","metadata":{"a":"b"}}"#;
    let create = Create::parse(create).unwrap();
    let head = ResponseHead::of_create(&create, "resp_1".into(), 7);
    let response: Value = serde_json::from_slice(&FromChat::new(head).into_response()).unwrap();
    for (name, value) in [
        ("id", json!("resp_1")),
        ("created_at", json!(7)),
        ("model", json!("m")),
        ("instructions", json!("Be brief.")),
        ("temperature", json!(0.5)),
        ("top_p", json!(1.0)),
        ("max_output_tokens", json!(9)),
        ("previous_response_id", json!("resp_0")),
        ("metadata", json!({"a": "b"})),
        ("store", json!(true)),
    ] {
        assert_eq!(response[name], value, "{name}");
    }
}

/// A delta of a chat as servers write them, and odd ones.
fn any_delta() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![Just(String::new()), "\\PC{1,6}", "[\"\\\\\n]{1,3}"];
    let call = (0..3u32, prop::option::of("[a-c]"), prop::option::of("[f-g]"), text()).prop_map(
        |(index, id, name, arguments)| json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}}),
    );
    prop_oneof![
        text().prop_map(|text| json!({"content": text})),
        text().prop_map(|text| json!({"reasoning_content": text, "reasoning": text})),
        text().prop_map(|text| json!({"reasoning": text, "content": text})),
        text().prop_map(|text| json!({"refusal": text, "content": null})),
        prop::collection::vec(call, 0..3).prop_map(|calls| json!({"tool_calls": calls})),
        text().prop_map(|text| json!({"function_call": {"name": "f", "arguments": text}})),
        Just(json!({"role": "assistant", "content": null})),
    ]
}

proptest! {
    /// Whatever a chat says, its deltas and the response's are the same in number, kind and order.
    #[test]
    fn deltas_map_one_to_one(
        deltas in prop::collection::vec(any_delta(), 0..20),
        end in prop::option::of(prop_oneof![Just("stop"), Just("length"), Just("tool_calls")]),
        done in any::<bool>(),
    ) {
        let mut chat: Vec<Vec<u8>> = deltas.into_iter().map(delta).collect();
        if let Some(reason) = end {
            chat.push(chunk(json!({"index": 0, "delta": {}, "finish_reason": reason})));
        }
        if done {
            let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}});
            chat.push(usage.to_string().into_bytes());
            chat.push(DONE.to_vec());
        }
        let translated = run(&chat);
        let (kinds, usage, terminal) = read(Dialect::Responses, translated.bytes.iter().map(|event| &**event));
        let (want, want_usage, _) = read(Dialect::Chat, chat.iter().map(Vec::as_slice));
        prop_assert_eq!(kinds, want);
        prop_assert_eq!(usage, want_usage);
        let whole = done || end.is_some();
        prop_assert_eq!(translated.outcome == Outcome::Complete, whole);
        prop_assert_eq!(terminal == Some(Terminal::Failed(FailureKind::Model)), !whole);
    }
}
