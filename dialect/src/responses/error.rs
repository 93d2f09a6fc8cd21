//! The `error` event of the Responses API over WebSocket.

use serde::Serialize;

/// The server is about to end, and takes no further create: clients make a new connection.
pub const SERVER_SHUTTING_DOWN: &str = "server_shutting_down";

/// An `error` event: `{"type":"error","status":400,"error":{"type","code","message","param"}}`, with `stream_id` where
/// it belongs to a lane. Clients of the WebSocket mode read it only because `status` is there.
#[derive(Clone, Copy, Debug)]
pub struct ErrorEvent<'a> {
    /// The HTTP status that the same fault has over HTTP.
    pub status: u16,
    /// The error's type: `invalid_request_error`, `server_error`, ...
    pub kind: &'a str,
    /// The error's code, which programs test: `previous_response_not_found`, ...
    pub code: Option<&'a str>,
    /// What went wrong and what to do.
    pub message: &'a str,
    /// The request's member that is at fault.
    pub param: Option<&'a str>,
    /// The lane that the event belongs to.
    pub stream_id: Option<&'a str>,
}

impl ErrorEvent<'_> {
    /// The event's JSON.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Event<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            stream_id: Option<&'a str>,
            status: u16,
            error: Body<'a>,
        }

        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            code: Option<&'a str>,
            message: &'a str,
            param: Option<&'a str>,
        }

        let mut out = Vec::new();
        let event = Event {
            kind: "error",
            stream_id: self.stream_id,
            status: self.status,
            error: Body {
                kind: self.kind,
                code: self.code,
                message: self.message,
                param: self.param,
            },
        };
        crate::json::write(&mut out, &event);
        out
    }
}

/// The JSON of an [`ErrorEvent`] that belongs to no lane.
pub fn error_event(
    status: u16,
    kind: &str,
    code: Option<&str>,
    message: &str,
    param: Option<&str>,
) -> Vec<u8> {
    ErrorEvent {
        status,
        kind,
        code,
        message,
        param,
        stream_id: None,
    }
    .to_json()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape() {
        let json = error_event(
            400,
            "invalid_request_error",
            Some("previous_response_not_found"),
            "no \"resp_1\"",
            Some("previous_response_id"),
        );
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","code":"previous_response_not_found","message":"no \"resp_1\"","param":"previous_response_id"}}"#
        );
    }
}
