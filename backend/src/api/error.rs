//! Errors as OpenAI's clients read them: a status, and `{"error":{"message","type","param","code"}}`.

use hyper::{Response, StatusCode, header};
use serde::Serialize;
use tokenlag_dialect::BadRequest;

use super::answer::ShutDown;
use super::body::Body;
use crate::engine::Refusal;

/// A request that gets no answer.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
    /// The methods that a path has, where the request's is none of them.
    allow: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            allow: None,
        }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    pub(super) fn param(self, param: &'static str) -> Self {
        Self {
            param: Some(param),
            ..self
        }
    }

    pub(super) fn wrong_method(allow: &'static str) -> Self {
        let message = format!("this path takes {allow} only");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed")
        }
    }

    /// The engine's refusal of a job whose prompt came from the member `param`.
    pub(super) fn refused(refusal: &Refusal, param: &'static str) -> Self {
        let error = |status| Self::new(status, refusal.to_string());
        match refusal {
            Refusal::ContextExceeded { .. } => error(StatusCode::BAD_REQUEST)
                .param(param)
                .code("context_length_exceeded"),
            Refusal::EmptyPrompt => error(StatusCode::BAD_REQUEST).param(param),
            Refusal::QueueFull => error(StatusCode::SERVICE_UNAVAILABLE).code("queue_full"),
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Inner<'a>,
        }

        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }

        let kind = if self.status.is_server_error() {
            "server_error"
        } else {
            "invalid_request_error"
        };
        let mut response = Body::json(&Envelope {
            error: Inner {
                message: &self.message,
                r#type: kind,
                param: self.param,
                code: self.code,
            },
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, header::HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<BadRequest> for ApiError {
    fn from(bad: BadRequest) -> Self {
        Self {
            param: bad.param,
            code: bad.code,
            ..Self::new(StatusCode::BAD_REQUEST, bad.message)
        }
    }
}

impl From<ShutDown> for ApiError {
    fn from(_: ShutDown) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server shuts down; send the request again",
        )
        .code("shutting_down")
    }
}
