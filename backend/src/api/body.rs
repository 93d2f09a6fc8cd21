//! Bodies: a request's read up to a limit, a reply's given whole or as a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;

use super::error::ApiError;

/// The largest request body, in bytes.
pub(super) const BODY_LIMIT: usize = 64 << 20;

/// Reads a request's body.
pub(super) async fn read(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let body = request.into_body();
    // A length that is stated is refused before the body is sent.
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            let message = format!("the request's body could not be read: {error}");
            Err(ApiError::new(StatusCode::BAD_REQUEST, message))
        }
    }
}

fn too_large() -> ApiError {
    let limit = BODY_LIMIT >> 20;
    let message = format!("the request's body is larger than {limit} MiB; send less at once");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
}

/// A source of bytes that are written as they come.
pub(crate) trait EventSource {
    /// The next bytes; `None` at the end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// A reply's body.
pub(crate) enum Body {
    Whole(Full<Bytes>),
    Events(Box<dyn EventSource>),
}

impl Body {
    /// A reply of status 200 with this value as JSON.
    pub(super) fn json(value: &impl Serialize) -> Response<Self> {
        // Only types of this crate come here, and none has a key that is no string.
        let json = serde_json::to_vec(value).unwrap_or_default();
        Self::bytes("application/json", json)
    }

    /// A reply of status 200.
    pub(super) fn bytes(content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Self> {
        Self::of(content_type, Self::Whole(Full::new(bytes.into())))
    }

    /// A stream of server-sent events, of status 200.
    pub(super) fn events(source: impl EventSource + 'static) -> Response<Self> {
        let mut response = Self::of("text/event-stream", Self::Events(Box::new(source)));
        let no_cache = HeaderValue::from_static("no-cache");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_cache);
        response
    }

    fn of(content_type: &'static str, body: Self) -> Response<Self> {
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static(content_type);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        response
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Events(source) => source
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
