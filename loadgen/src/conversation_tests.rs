//! What each turn sends, in every dialect and state.

use serde_json::Map;

use super::*;
use crate::asking::Asking;

fn asking(dialect: Dialect) -> Asking {
    Asking {
        dialect,
        model: "m".to_owned(),
        tool_calls: false,
        seed: 3,
        ignore_eos: true,
        store: false,
        extra: Map::new(),
    }
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

const TERMINAL: &[u8] = br#"{"type":"response.completed","response":{"id":"resp_1","output":[{"type":"reasoning"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"hello"}]}]}}"#;

#[test]
fn full_resends_every_item_and_incremental_names_the_response() {
    let form = Form::of(asking(Dialect::Responses));
    let said = Said {
        terminal: TERMINAL,
        bytes: b"",
    };
    let mut full = Conversation::new(&form, State::Full);
    full.advance("one", &said);
    let body = parsed(&full.body("two", 8));
    let input = body["input"].as_array().unwrap();
    assert_eq!(input.len(), 4);
    assert_eq!(input[1], serde_json::json!({"type": "reasoning"}));
    assert_eq!(input[2]["content"][0]["text"], "hello");
    assert_eq!(input[3]["content"][0]["text"], "two");
    assert_eq!(body["max_output_tokens"], 8);
    assert_eq!(body.get("previous_response_id"), None);

    let mut incremental = Conversation::new(&form, State::Incremental);
    incremental.advance("one", &said);
    let body = parsed(&incremental.body("two", 8));
    assert_eq!(body["input"].as_array().unwrap().len(), 1);
    assert_eq!(body["previous_response_id"], "resp_1");
}

#[test]
fn a_tools_result_follows_its_call_in_either_state() {
    let form = Form::of(Asking {
        tool_calls: true,
        ..asking(Dialect::Responses)
    });
    let said = Said {
        terminal: TERMINAL,
        bytes: b"",
    };
    for (state, earlier) in [(State::Full, 3), (State::Incremental, 0)] {
        let mut conversation = Conversation::new(&form, state);
        let first = parsed(&conversation.body("task", 8));
        assert_eq!(first["input"][0]["type"], "message", "{state}");
        conversation.advance("task", &said);
        let body = parsed(&conversation.body("fn main() {}", 9));
        assert_eq!(body["max_output_tokens"], 9);
        let items = body["input"].as_array().unwrap();
        assert_eq!(items.len(), earlier + 2, "{state}");
        let (call, output) = (&items[earlier], &items[earlier + 1]);
        assert_eq!(call["type"], "function_call");
        assert!(call["arguments"].as_str().unwrap().contains("part_01"));
        assert_eq!(output["type"], "function_call_output");
        assert_eq!(output["call_id"], call["call_id"]);
        assert_eq!(output["output"], "fn main() {}");
        conversation.advance("fn main() {}", &said);
        let next = parsed(&conversation.body("more", 8));
        let last = next["input"].as_array().unwrap().last().unwrap();
        assert_eq!(last["call_id"], "call_02", "{state}");
    }
}

#[test]
fn every_row_of_a_run_asks_alike_for_storage() {
    for store in [false, true] {
        let form = Form::of(Asking {
            store,
            ..asking(Dialect::Responses)
        });
        for state in [State::Full, State::Incremental] {
            let body = parsed(&Conversation::new(&form, state).body("x", 8));
            assert_eq!(body["store"], store, "{state}");
        }
    }
}

#[test]
fn chat_and_completions_carry_what_was_said() {
    let chat = Form::of(asking(Dialect::Chat));
    let mut conversation = Conversation::new(&chat, State::Full);
    let said = Said {
        terminal: b"[DONE]",
        bytes: b"data: {\"choices\":[{\"delta\":{\"content\":\"he\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"y\"}}]}\n\ndata: [DONE]\n\n",
    };
    conversation.advance("one", &said);
    let body = parsed(&conversation.body("two", 8));
    assert_eq!(body["messages"][1]["content"], "hey");
    assert_eq!(body["messages"][2]["content"], "two");
    assert_eq!(body["stream_options"]["include_usage"], true);

    let completions = Form::of(asking(Dialect::Completions));
    let mut conversation = Conversation::new(&completions, State::Full);
    let said = Said {
        terminal: b"[DONE]",
        bytes: b"data: {\"choices\":[{\"text\":\"hey\"}]}\n\n",
    };
    conversation.advance("one ", &said);
    assert_eq!(
        parsed(&conversation.body("two", 8))["prompt"],
        "one hey\ntwo"
    );
}

#[test]
fn extra_members_replace_ours() {
    let mut asking = asking(Dialect::Responses);
    asking.extra.insert("temperature".to_owned(), 1.into());
    asking.extra.insert("top_k".to_owned(), 5.into());
    let form = Form::of(asking);
    let body = parsed(&Conversation::new(&form, State::Full).body("x", 8));
    assert_eq!(body["temperature"], 1);
    assert_eq!(body["top_k"], 5);
}
