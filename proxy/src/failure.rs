//! What a client is told when the proxy or its upstream could not serve it: OpenAI's error object.

use serde_json::json;
use tokenlag_channel::ChannelError;
use tokenlag_dialect::BadRequest;
use tokenlag_probes::FailureKind;

/// An answer of the proxy's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Failure {
    /// The upstream failed before it answered.
    pub(crate) fn of_upstream(error: &ChannelError) -> Self {
        let (status, reason, code) = match error.kind() {
            FailureKind::Timeout => (504, "Gateway Timeout", "upstream_timeout"),
            FailureKind::Connect => (502, "Bad Gateway", "upstream_unreachable"),
            FailureKind::Protocol => (502, "Bad Gateway", "upstream_protocol"),
            _ => (502, "Bad Gateway", "upstream_lost"),
        };
        Self {
            status,
            reason,
            code,
            message: format!("upstream: {error}"),
        }
    }

    /// The error's `type`, as OpenAI's API has it.
    pub(crate) fn kind(&self) -> &'static str {
        if self.status >= 500 {
            "server_error"
        } else {
            "invalid_request_error"
        }
    }

    /// The body of an HTTP answer.
    pub(crate) fn body(&self) -> Vec<u8> {
        let object = json!({"error": {
            "message": self.message, "type": self.kind(), "code": self.code, "param": null,
        }});
        object.to_string().into_bytes()
    }
}

/// An exchange without a reply of the upstream: what the client is told, and how it is counted.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) kind: FailureKind,
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        Self {
            failure: Failure::of_upstream(&error),
            kind: error.kind(),
        }
    }
}

impl From<BadRequest> for Failed {
    fn from(bad: BadRequest) -> Self {
        Self {
            failure: Failure {
                status: 400,
                reason: "Bad Request",
                code: bad.code.unwrap_or("bad_request"),
                message: bad.message,
            },
            kind: FailureKind::ClientError,
        }
    }
}
