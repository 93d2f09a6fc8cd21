//! Requests for chat completions and completions, as a server reads them.

use proptest::prelude::*;
use tokenlag_dialect::chat::ChatRequest;
use tokenlag_dialect::completions::{CompletionRequest, Prompt};
use tokenlag_dialect::message::Message;
use tokenlag_dialect::responses::{Create, Params};

fn message(role: &str, text: &str) -> Message {
    Message {
        role: role.into(),
        text: text.into(),
    }
}

#[test]
fn chat_messages_of_every_shape() {
    let request = ChatRequest::parse(
        br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":7,"max_completion_tokens":8,"stop":["x"],"tools":[{}],
        "messages":[
            {"role":"system","content":"Be \"brief\""},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"input_text","text":"b"}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"c","content":"7"},
            {"role":"assistant"}
        ]}"#,
    )
    .unwrap();
    assert_eq!(
        request.messages,
        [
            message("system", "Be \"brief\""),
            message("user", "ab"),
            message("assistant", "f({})"),
            message("tool", "7"),
            message("assistant", ""),
        ]
    );
    assert_eq!(
        (request.max_tokens, request.stream, request.include_usage),
        (Some(8), true, true)
    );
    assert_eq!(request.generation.stop, ["x"]);
}

#[test]
fn chat_requests_that_cannot_be_served() {
    let check = |json: &str, param: Option<&str>, word: &str| {
        let error = ChatRequest::parse(json.as_bytes()).unwrap_err();
        assert_eq!(error.param, param, "{json}: {error}");
        assert!(error.to_string().contains(word), "{json}: {error}");
    };
    check("{}", Some("messages"), "at least one");
    check(r#"{"messages":[]}"#, Some("messages"), "at least one");
    check(r#"{"messages":[{"content":"a"}]}"#, None, "role");
    check(
        r#"{"messages":[{"role":"user","content":7}]}"#,
        Some("messages"),
        "string",
    );
    check(
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
        Some("messages"),
        "image_url",
    );
    check(
        r#"{"messages":[{"role":"user"}],"max_tokens":0}"#,
        Some("max_tokens"),
        "at least 1",
    );
    check(
        r#"{"messages":[{"role":"user"}],"max_tokens":-1}"#,
        None,
        "line 1 column",
    );
    check(
        r#"{"messages":[{"role":"user"}],"n":3}"#,
        Some("n"),
        "one choice",
    );
    check("{\n\"messages\": oops}", None, "line 2 column");
}

#[test]
fn prompts_of_every_shape() {
    let prompt = |json: &str| {
        let body = format!(r#"{{"prompt":{json}}}"#);
        CompletionRequest::parse(body.as_bytes()).map(|request| request.prompt)
    };
    assert_eq!(prompt(r#""a\n""#), Ok(Prompt::Text("a\n".into())));
    assert_eq!(prompt(r#"["a"]"#), Ok(Prompt::Text("a".into())));
    assert_eq!(prompt("[1,2]"), Ok(Prompt::Tokens(vec![1, 2])));
    assert_eq!(prompt("[[1,2]]"), Ok(Prompt::Tokens(vec![1, 2])));
    assert_eq!(prompt("[]"), Ok(Prompt::Tokens(vec![])));
    assert_eq!(prompt(r#"["a","b"]"#).unwrap_err().param, Some("prompt"));
    assert_eq!(prompt("null").unwrap_err().param, Some("prompt"));
    assert!(
        prompt("7")
            .unwrap_err()
            .to_string()
            .contains("array of token ids")
    );
}

#[test]
fn completions_that_cannot_be_served() {
    for (json, param) in [
        (r#"{"prompt":"a","echo":true}"#, "echo"),
        (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
        (r#"{"prompt":"a","best_of":2}"#, "best_of"),
        (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens"),
    ] {
        let error = CompletionRequest::parse(json.as_bytes()).unwrap_err();
        assert_eq!(error.param, Some(param), "{json}: {error}");
    }
    assert!(CompletionRequest::parse(br#"{"prompt":"a","echo":false,"suffix":null}"#).is_ok());
}

proptest! {
    /// Any JSON is answered with a request or with a fault that says something, and never with a panic.
    #[test]
    fn nothing_breaks_the_readers(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("{".to_owned()), Just("}".to_owned()), Just("[".to_owned()), Just("]".to_owned()),
                Just("\"input\":".to_owned()), Just("\"messages\":".to_owned()), Just("\"prompt\":".to_owned()),
                Just("\"role\":\"user\"".to_owned()), Just("\"content\":\"\\ud83d\"".to_owned()), Just(",".to_owned()),
                Just("null".to_owned()), Just("-1e9".to_owned()), "\\PC{0,4}",
            ],
            0..12,
        ),
    ) {
        let body = pieces.concat();
        let body = body.as_bytes();
        let faults = [
            ChatRequest::parse(body).err(),
            CompletionRequest::parse(body).err(),
            Params::parse(body).err(),
            Create::parse(body).and_then(|create| create.input_items()).err(),
        ];
        for fault in faults.into_iter().flatten() {
            prop_assert!(fault.to_string().len() > 10, "{}", fault);
        }
    }
}
