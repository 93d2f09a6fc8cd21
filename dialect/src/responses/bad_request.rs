//! Requests that cannot be served, and the codes by which clients of the WebSocket mode tell them apart.

use super::error::ErrorEvent;
use crate::fields::NotAnObject;

/// `previous_response_id` names no response that is known here: clients send the whole conversation instead.
pub const PREVIOUS_RESPONSE_NOT_FOUND: &str = "previous_response_not_found";
/// `stream_id` is not 1 to 256 characters of `A-Z a-z 0-9 _ . -`.
pub const INVALID_STREAM_ID: &str = "invalid_stream_id";
/// The connection has as many lanes, or as many responses under way, as it may.
pub const STREAM_LIMIT_REACHED: &str = "websocket_stream_limit_reached";
/// The connection is as old as it may get: clients make a new one.
pub const CONNECTION_LIMIT_REACHED: &str = "websocket_connection_limit_reached";

/// The request cannot be served as it is. Status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// What is wrong and what to send instead.
    pub message: String,
    /// The member at fault.
    pub param: Option<&'static str>,
    /// The error's code, for programs.
    pub code: Option<&'static str>,
}

impl BadRequest {
    /// A fault of one member.
    pub fn param(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: Some(param),
            code: None,
        }
    }

    /// The response to go on from is not known (any more).
    pub fn previous_response_not_found(id: &str) -> Self {
        Self {
            message: format!("Previous response with id '{id}' not found."),
            param: Some("previous_response_id"),
            code: Some(PREVIOUS_RESPONSE_NOT_FOUND),
        }
    }

    /// The lane has a name that none can have.
    pub fn invalid_stream_id() -> Self {
        Self {
            message: "stream_id must be 1 to 256 characters of A-Z a-z 0-9 _ . -".into(),
            param: Some("stream_id"),
            code: Some(INVALID_STREAM_ID),
        }
    }

    /// The connection has all the lanes that it may have.
    pub fn lane_limit_reached(lanes: usize) -> Self {
        Self {
            message: format!(
                "this connection has {lanes} lanes, as many as it may: use one of them, or another connection"
            ),
            param: Some("stream_id"),
            code: Some(STREAM_LIMIT_REACHED),
        }
    }

    /// The connection has all the responses under way that it may have.
    pub fn active_limit_reached(responses: usize) -> Self {
        Self {
            message: format!(
                "this connection has {responses} responses under way, as many as it may: wait for one of them, or use another connection"
            ),
            param: None,
            code: Some(STREAM_LIMIT_REACHED),
        }
    }

    /// The connection is as old as it may get.
    pub fn connection_limit_reached(minutes: u64) -> Self {
        Self {
            message: format!(
                "this connection is {minutes} minutes old, as old as it may get: make a new one to go on"
            ),
            param: None,
            code: Some(CONNECTION_LIMIT_REACHED),
        }
    }

    /// The JSON of the `error` event that tells it, in the lane `stream_id`.
    pub fn to_event(&self, stream_id: Option<&str>) -> Vec<u8> {
        ErrorEvent {
            status: 400,
            kind: "invalid_request_error",
            code: self.code,
            message: &self.message,
            param: self.param,
            stream_id,
        }
        .to_json()
    }
}

impl From<NotAnObject> for BadRequest {
    fn from(error: NotAnObject) -> Self {
        Self {
            message: format!("the request must be a JSON object: {}", error.reason),
            param: None,
            code: Some("invalid_json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_shape_that_clients_read() {
        for (bad, code, param) in [
            (
                BadRequest::previous_response_not_found("resp_1"),
                "previous_response_not_found",
                Some("previous_response_id"),
            ),
            (
                BadRequest::invalid_stream_id(),
                "invalid_stream_id",
                Some("stream_id"),
            ),
            (
                BadRequest::lane_limit_reached(32),
                "websocket_stream_limit_reached",
                Some("stream_id"),
            ),
            (
                BadRequest::active_limit_reached(16),
                "websocket_stream_limit_reached",
                None,
            ),
            (
                BadRequest::connection_limit_reached(60),
                "websocket_connection_limit_reached",
                None,
            ),
        ] {
            let event: serde_json::Value = serde_json::from_slice(&bad.to_event(None)).unwrap();
            let want = serde_json::json!({
                "type": "error",
                "status": 400,
                "error": {"type": "invalid_request_error", "code": code, "message": bad.message, "param": param},
            });
            assert_eq!(event, want);
            let in_lane: serde_json::Value =
                serde_json::from_slice(&bad.to_event(Some("main"))).unwrap();
            assert_eq!(in_lane["stream_id"], "main");
        }
    }
}
