//! Creates of the Responses API: read, turned into an upstream's body, turned into a WebSocket message.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokenlag_dialect::BadRequest;
use tokenlag_dialect::responses::{
    Create, TextDelta, create_message, message_type, write_with_stream_id,
};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_message_of_a_real_client_is_read() {
    let message = br#"{"type":"response.create","stream_id":"main.1","model":"m","instructions":"...","previous_response_id":"resp_1","input":[],"tools":[],"store":false,"stream":true,"generate":false,"client_metadata":{"x-codex-ws-stream-request-start-ms":"17","ws_request_header_traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01"}}"#;
    let create = Create::parse(message).unwrap();
    assert_eq!(create.stream_id.as_deref(), Some("main.1"));
    assert_eq!(create.previous_response_id.as_deref(), Some("resp_1"));
    assert_eq!(create.model.as_deref(), Some("m"));
    assert_eq!(
        (create.generate, create.stream, create.store),
        (false, true, Some(false))
    );
    assert!(create.traceparent.unwrap().starts_with("00-4bf9"));
    assert_eq!(message_type(message).as_deref(), Some("response.create"));

    let bare = Create::parse(br#"{"previous_response_id":null,"client_metadata":null}"#).unwrap();
    assert_eq!(
        (bare.generate, bare.stream, bare.store),
        (true, false, None)
    );
    assert!(bare.previous_response_id.is_none() && bare.traceparent.is_none());
    assert!(bare.input_items().unwrap().is_empty());
}

#[test]
fn faults_name_their_member() {
    let check = |json: &str, param: Option<&str>, code: Option<&str>| {
        let error: BadRequest = Create::parse(json.as_bytes()).unwrap_err();
        assert_eq!((error.param, error.code), (param, code), "{json}: {error}");
        let event: Value = serde_json::from_slice(&error.to_event(Some("s"))).unwrap();
        assert_eq!(
            (&event["status"], &event["stream_id"]),
            (&json!(400), &json!("s"))
        );
        assert_eq!(event["error"]["param"], json!(param));
    };
    check(
        r#"{"previous_response_id":7}"#,
        Some("previous_response_id"),
        None,
    );
    check(r#"{"generate":"no"}"#, Some("generate"), None);
    check(r#"{"type":"session.update"}"#, Some("type"), None);
    check("[]", None, Some("invalid_json"));
    check("{\"a\":", None, Some("invalid_json"));
    for id in ["", "a b", "é", &"x".repeat(257)] {
        check(
            &json!({ "stream_id": id }).to_string(),
            Some("stream_id"),
            Some("invalid_stream_id"),
        );
    }
}

#[test]
fn input_as_items() {
    let items = |json: &str| -> Result<Vec<String>, BadRequest> {
        let create = Create::parse(json.as_bytes())?;
        Ok(create
            .input_items()?
            .iter()
            .map(|item| item.get().to_owned())
            .collect())
    };
    assert_eq!(
        items(r#"{"input":"a\"b"}"#).unwrap(),
        [r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"a\"b"}]}"#]
    );
    assert_eq!(
        items(r#"{"input":[ {"a" : 1.0}, "x" ]}"#).unwrap(),
        [r#"{"a" : 1.0}"#, r#""x""#]
    );
    assert_eq!(items(r#"{"input":[]}"#).unwrap().len(), 0);
    assert_eq!(items(r#"{"input":7}"#).unwrap_err().param, Some("input"));
}

#[test]
fn an_upstream_gets_the_whole_conversation_and_nothing_of_the_connection() {
    let message = br#"{"type":"response.create","stream_id":"s","model":"m","previous_response_id":"resp_1","x_new":{"b":[1.0,2e3]},"input":[ {"q":2} ],"generate":true,"background":false,"client_metadata":{"k":"v"},"store":false,"stream":false}"#;
    let create = Create::parse(message).unwrap();
    let history = [raw(r#"{"q":1}"#), raw(r#"{"a": 1}"#)];
    let body = create.upstream_body(history.iter().map(|item| &**item));
    assert_eq!(
        text(body),
        r#"{"model":"m","x_new":{"b":[1.0,2e3]},"input":[{"q":1},{"a": 1},{"q":2}],"store":false,"stream":true}"#
    );
}

#[test]
fn input_of_every_shape_joins_its_history() {
    let history = [raw(r#"{"q":1}"#)];
    for (input, with, without) in [
        (
            r#""hi""#,
            r#"[{"q":1},{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}]"#,
            r#""hi""#,
        ),
        ("[]", r#"[{"q":1}]"#, "[]"),
        ("[ ]", r#"[{"q":1}]"#, "[ ]"),
        ("null", r#"[{"q":1}]"#, "null"),
        (r#"[1,[2]]"#, r#"[{"q":1},1,[2]]"#, "[1,[2]]"),
    ] {
        let json = format!(r#"{{"input":{input}}}"#);
        let create = Create::parse(json.as_bytes()).unwrap();
        let body = create.upstream_body(history.iter().map(|item| &**item));
        assert_eq!(text(body), format!(r#"{{"input":{with},"stream":true}}"#));
        let body = create.upstream_body(std::iter::empty());
        assert_eq!(
            text(body),
            format!(r#"{{"input":{without},"stream":true}}"#)
        );
    }
}

#[test]
fn a_body_becomes_a_message_and_reads_back() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01";
    let message = create_message(
        br#"{"model":"m","client_metadata":{"k":"v"},"input":"a"}"#,
        traceparent,
    )
    .unwrap();
    assert_eq!(
        text(message.clone()),
        format!(
            r#"{{"type":"response.create","model":"m","client_metadata":{{"k":"v","ws_request_header_traceparent":"{traceparent}"}},"input":"a"}}"#
        )
    );
    assert_eq!(
        Create::parse(&message).unwrap().traceparent.as_deref(),
        Some(traceparent)
    );
    assert!(create_message(b"nothing", traceparent).is_err());
}

#[test]
fn events_echo_their_lane() {
    let tagged = |event: &str| {
        let mut out = Vec::new();
        write_with_stream_id(&mut out, event.as_bytes(), "a");
        text(out)
    };
    assert_eq!(tagged(r#"{"type":"x"}"#), r#"{"type":"x","stream_id":"a"}"#);
    assert_eq!(
        tagged("{\"type\":\"x\"}\n"),
        r#"{"type":"x","stream_id":"a"}"#
    );
    assert_eq!(tagged("{ }"), r#"{ "stream_id":"a"}"#);
    assert_eq!(tagged("[DONE]"), "[DONE]");
}

/// An event that the compact form carries must come back with the same members and values.
fn check_compact(event: &str) {
    let delta = TextDelta::parse(event.as_bytes()).unwrap_or_else(|| panic!("refused: {event}"));
    let mut out = Vec::new();
    delta.write(&mut out);
    let back: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(back, serde_json::from_str::<Value>(event).unwrap());
}

#[test]
fn compact_deltas_lose_nothing() {
    check_compact(
        r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":1,"delta":"é\u00e9\"\n","sequence_number":4,"logprobs":[]}"#,
    );
    check_compact(
        r#"{"delta":"","sequence_number":18446744073709551615,"type":"response.output_text.delta","item_id":"","output_index":4294967295,"content_index":0}"#,
    );

    let event = json!({
        "type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0,
        "delta": "a", "sequence_number": 1,
    });
    let with = |name: &str, value: Value| {
        let mut event = event.clone();
        event[name] = value;
        event.to_string()
    };
    for other in [
        with("obfuscation", json!("x")),
        with("stream_id", json!("main")),
        with("logprobs", json!([{"token": "a"}])),
        with("logprobs", json!(null)),
        with("type", json!("response.refusal.delta")),
        with("output_index", json!(-1)),
        with("delta", json!(null)),
        r#"["response.output_text.delta","m",0,0,1,"a",[]]"#.into(),
        "[DONE]".into(),
    ] {
        assert_eq!(TextDelta::parse(other.as_bytes()), None, "{other}");
    }
}
