//! What the proxy tells a client in events of its own.

use tokenlag_channel::ws::Text;
use tokenlag_dialect::Fields;
use tokenlag_dialect::responses::error::SERVER_SHUTTING_DOWN;
use tokenlag_dialect::responses::{ErrorEvent, write_with_stream_id};

use crate::failure::Failure;

/// The most of an upstream's error that is passed on.
pub(super) const ERROR_BODY: usize = 64 * 1024;

/// An event as a message of a lane. `None` where it is not UTF-8, which no text message can carry.
pub(super) fn in_lane(event: &[u8], lane: Option<&str>) -> Option<Text> {
    let bytes = match lane {
        None => event.to_vec(),
        Some(lane) => {
            let mut out = Vec::with_capacity(event.len() + lane.len() + 16);
            write_with_stream_id(&mut out, event, lane);
            out
        }
    };
    String::from_utf8(bytes).ok().map(Text::from)
}

/// An event that was written here.
pub(super) fn ours(json: Vec<u8>) -> Text {
    String::from_utf8(json)
        .expect("JSON written from strings is UTF-8")
        .into()
}

/// A failure of the proxy or of its upstream.
pub(super) fn failed(failure: &Failure, lane: Option<&str>) -> Text {
    ours(
        ErrorEvent {
            status: failure.status,
            kind: failure.kind(),
            code: Some(failure.code),
            message: &failure.message,
            param: None,
            stream_id: lane,
        }
        .to_json(),
    )
}

/// A failure of the upstream that came after the reply's head.
pub(super) fn upstream_failed(code: &'static str, message: &str) -> Failure {
    Failure {
        status: 502,
        reason: "Bad Gateway",
        code,
        message: message.to_owned(),
    }
}

/// A create that came too late.
pub(super) fn shutting_down() -> Failure {
    Failure {
        status: 503,
        reason: "Service Unavailable",
        code: SERVER_SHUTTING_DOWN,
        message: "the proxy is shutting down and takes no further create: connect again".to_owned(),
    }
}

/// A create for which there is no memory.
pub(super) fn no_room() -> Failure {
    Failure {
        status: 503,
        reason: "Service Unavailable",
        code: "no_room",
        message: "too many requests are being served at once; try again later".to_owned(),
    }
}

/// What the upstream answered instead of a stream.
pub(super) fn refusal(status: u16, body: &[u8], lane: Option<&str>) -> Text {
    #[derive(serde::Deserialize)]
    struct Told {
        message: Option<String>,
        r#type: Option<String>,
        code: Option<String>,
        param: Option<String>,
    }
    // An upstream that answers a stream's request with something else, yet without an error, is at fault itself.
    let status = if status < 400 { 502 } else { status };
    let told = Fields::parse(body)
        .ok()
        .and_then(|fields| serde_json::from_str::<Told>(fields.get("error")?.get()).ok());
    let text;
    let (kind, code, message, param) = match &told {
        Some(told) => (
            told.r#type.as_deref(),
            told.code.as_deref(),
            told.message.as_deref(),
            told.param.as_deref(),
        ),
        None => {
            text = String::from_utf8_lossy(body);
            (None, None, Some(&*text), None)
        }
    };
    let usual = if status >= 500 {
        "server_error"
    } else {
        "invalid_request_error"
    };
    ours(
        ErrorEvent {
            status,
            kind: kind.unwrap_or(usual),
            code,
            message: message.unwrap_or("the upstream gave no reason"),
            param,
            stream_id: lane,
        }
        .to_json(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_error_keeps_its_words() {
        let body = br#"{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded","param":null}}"#;
        assert_eq!(
            refusal(429, body, Some("a")).as_str(),
            r#"{"type":"error","stream_id":"a","status":429,"error":{"type":"tokens","code":"rate_limit_exceeded","message":"slow down","param":null}}"#
        );
        assert_eq!(
            refusal(200, b"<html>", None).as_str(),
            r#"{"type":"error","status":502,"error":{"type":"server_error","code":null,"message":"<html>","param":null}}"#
        );
    }

    #[test]
    fn an_event_says_its_lane_last() {
        let event = br#"{"type":"x"}"#;
        assert_eq!(in_lane(event, None).unwrap().as_str(), r#"{"type":"x"}"#);
        assert_eq!(
            in_lane(event, Some("a.b")).unwrap().as_str(),
            r#"{"type":"x","stream_id":"a.b"}"#
        );
        assert!(in_lane(b"\"\xff\"", None).is_none());
    }
}
