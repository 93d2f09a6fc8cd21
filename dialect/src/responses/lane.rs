//! The lane that an event of a WebSocket names: for a client that shares the connection among its exchanges.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;

use super::bad_request::CONNECTION_LIMIT_REACHED;
use super::error::SERVER_SHUTTING_DOWN;
use super::request::message_type;
use crate::fields::{Fields, NotAnObject};
use crate::json::Text;
use crate::scan::{Leaves, Scanner};

/// The longest name that a lane can have, in bytes.
const LONGEST: usize = 256;

/// The lane that an event names (`stream_id`); `None` is the default lane, or the connection itself.
///
/// Where the member comes last, as tokenlag writes it, what comes before it is not looked at: whoever the event is for will
/// read it, and find out there whether it is JSON.
///
/// # Errors
///
/// The event is not a JSON object.
pub fn event_lane(event: &[u8]) -> Result<Option<Cow<'_, str>>, NotAnObject> {
    match last_member(event) {
        Some(name) => Ok(Some(Cow::Borrowed(name))),
        None => any_member(event),
    }
}

/// Whether an event is the last of its response.
pub fn ends_response(event: &[u8]) -> bool {
    matches!(
        message_type(event).as_deref(),
        Some("response.completed" | "response.incomplete" | "response.failed" | "error")
    )
}

/// Whether an event refuses a create since the whole connection takes no more, whichever lane it names: its age, or the server's
/// end.
pub fn ends_connection(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        error: Code<'a>,
    }

    #[derive(Deserialize)]
    struct Code<'a> {
        #[serde(borrow)]
        code: Cow<'a, str>,
    }

    // Nearly no event has such a member: the others are not parsed.
    memmem::find(event, br#""error""#).is_some()
        && message_type(event).as_deref() == Some("error")
        && serde_json::from_slice(event).is_ok_and(|refusal: Refusal<'_>| {
            [CONNECTION_LIMIT_REACHED, SERVER_SHUTTING_DOWN].contains(&&*refusal.error.code)
        })
}

/// The name, where the event ends with it. Within an object that ends here nothing else can: a quote inside a string would
/// have a backslash before it, and an object inside this one another brace after it.
fn last_member(event: &[u8]) -> Option<&str> {
    let inner = event.strip_suffix(b"\"}")?;
    let near = inner.len().saturating_sub(LONGEST + 1);
    let quote = near + inner[near..].iter().rposition(|&byte| byte == b'"')?;
    let (before, name) = (&inner[..quote], &inner[quote + 1..]);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let is_name = !name.is_empty() && name.iter().all(is_plain);
    let is_member = before.starts_with(b"{") && before.ends_with(b",\"stream_id\":");
    std::str::from_utf8(name)
        .ok()
        .filter(|_| is_name && is_member)
}

/// The name, wherever it stands; the last where there are several.
fn any_member(event: &[u8]) -> Result<Option<Cow<'_, str>>, NotAnObject> {
    let mut named = None;
    let walked = Scanner::whole(event, &mut Leaves::default(), |scanner, key| {
        let value = scanner.value()?;
        if key == b"stream_id" {
            named = Some(value);
        }
        Ok(())
    });
    if walked.is_err() {
        // Its words say what is wrong.
        Fields::parse(event)?;
    }
    Ok(match named {
        None | Some(b"null") => None,
        Some(value) => Some(match serde_json::from_slice::<Text<'_>>(value) {
            Ok(text) => text.0,
            // No lane is called so, and whoever asked finds that out.
            Err(_) => String::from_utf8_lossy(value),
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::responses::write_with_stream_id;

    #[track_caller]
    fn check(event: &str, lane: Option<&str>) {
        let found = event_lane(event.as_bytes()).unwrap();
        assert_eq!(found.as_deref(), lane, "{event}");
    }

    #[test]
    fn a_lane_is_found_wherever_it_stands() {
        check(r#"{"type":"x","stream_id":"a.b-C_1"}"#, Some("a.b-C_1"));
        check(r#"{"stream_id":"a","type":"x"}"#, Some("a"));
        check(r#"{"stream_id":"a"}"#, Some("a"));
        check("{\"type\":\"x\" , \"stream_id\" : \"a\" }\n", Some("a"));
        check(r#"{"type":"x","stream_id":"a\u002eb"}"#, Some("a.b"));
        check(r#"{"stream_id":"a","type":"x","stream_id":"b"}"#, Some("b"));
        check(r#"{"type":"x"}"#, None);
        check(r#"{"type":"x","stream_id":null}"#, None);
        check(r#"{"type":"x","stream_id":7}"#, Some("7"));
        check(r#"{"type":"x","stream_id":""}"#, Some(""));
    }

    #[test]
    fn what_only_looks_like_a_lane_is_none() {
        check(r#"{"delta":",\"stream_id\":\"a\""}"#, None);
        check(r#"{"delta":",\"stream_id\":\"a"}"#, None);
        check(r#"{"response":{"id":"r","stream_id":"a"}}"#, None);
        check(r#"{"my_stream_id":"a"}"#, None);
        let error = event_lane(b"[1]").unwrap_err();
        assert!(error.to_string().contains("not a JSON object"), "{error}");
        assert!(event_lane(b"").is_err());
        assert!(event_lane(b"[1,\"stream_id\":\"a\"}").is_err());
    }

    #[test]
    fn the_last_event_of_a_response() {
        for (kind, last) in [
            ("response.completed", true),
            ("response.incomplete", true),
            ("response.failed", true),
            ("error", true),
            ("response.output_text.delta", false),
        ] {
            let event = json!({"stream_id": "a", "type": kind}).to_string();
            assert_eq!(ends_response(event.as_bytes()), last, "{kind}");
        }
        assert!(!ends_response(b"{}") && !ends_response(b"error"));
    }

    #[test]
    fn refusals_that_are_the_connections() {
        for (code, is_the_connections) in [
            (json!("websocket_connection_limit_reached"), true),
            (json!("server_shutting_down"), true),
            (json!("websocket_stream_limit_reached"), false),
            (json!(null), false),
        ] {
            let event = json!({"type": "error", "stream_id": "a", "error": {"code": code}});
            let told = ends_connection(event.to_string().as_bytes());
            assert_eq!(told, is_the_connections, "{event}");
        }
        let other = json!({"type": "response.failed", "error": {"code": "server_shutting_down"}});
        assert!(!ends_connection(other.to_string().as_bytes()));
    }

    /// A member's value that is or holds what could be taken for a lane.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            Just(json!(7)),
            Just(json!({"stream_id": "inner"})),
            Just(json!([{"stream_id": "inner"}])),
            Just(json!(",\"stream_id\":\"quoted\"}")),
            Just(json!("\\")),
            "[a-z\"\\\\{},:é]{0,12}".prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_reader_of_the_whole(
            members in prop::collection::vec(("[a-z_]{1,9}|stream_id", value()), 0..6),
            lane in prop::option::of("[A-Za-z0-9_.-]{1,40}"),
        ) {
            let object: Map<String, Value> = members.into_iter().collect();
            let mut event = Value::Object(object).to_string().into_bytes();
            if let Some(lane) = &lane {
                let whole = event.clone();
                event.clear();
                write_with_stream_id(&mut event, &whole, lane);
            }
            let read: Value = serde_json::from_slice(&event).unwrap();
            let expected = match &read["stream_id"] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let found = event_lane(&event).unwrap().map(Cow::into_owned);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = event_lane(&bytes);
            let _ = ends_response(&bytes);
            let _ = ends_connection(&bytes);
        }
    }
}
