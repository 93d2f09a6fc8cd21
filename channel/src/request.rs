//! A request, rendered for its channel before the clock starts.

use ::http::uri::Scheme;
use bytes::Bytes;
use tokenlag_dialect::{Fields, NotAnObject, responses};
use tokenlag_probes::{Encoding, TraceId, Transport};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::ChannelError;
use crate::http::render::{check_field, render_message, render_request};
use crate::quic::frame::{self, ReplyForm};

/// What an exchange asks, in the API's own terms.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Path, as in `/v1/responses`.
    pub path: &'a str,
    /// The `Host` to name.
    pub authority: &'a str,
    /// Further headers: authorization, and what the user gave.
    pub headers: &'a [(String, String)],
    /// The JSON body of a create request, as HTTP would carry it.
    pub body: &'a [u8],
    /// The exchange's name, which travels with it.
    pub trace: TraceId,
    /// How tokens shall be written back (`quic` only; elsewhere always events).
    pub encoding: Encoding,
}

/// Any HTTP request, as an intermediary passes it on.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The `Host` to name.
    pub authority: &'a str,
    /// Fields in their order, without `Host`, `Content-Length` and those that concern one connection only.
    pub fields: &'a [(Bytes, Bytes)],
    /// The body.
    pub body: &'a Bytes,
    /// How the reply's body is wanted (`quic` only; elsewhere it comes as the channel has it).
    pub form: ReplyForm,
}

/// The bytes that carry one request on one channel. Making them costs no measured time.
#[derive(Clone, Debug)]
pub struct Request(pub(crate) Rendered);

/// What a channel takes.
#[derive(Clone, Debug)]
pub(crate) enum Rendered {
    /// Bytes for a stream.
    Stream(Bytes),
    /// A WebSocket message, known to be UTF-8.
    Message(Utf8Bytes),
    /// The same with the name of its lane in it.
    InLane { lane: String, text: Utf8Bytes },
    /// Fields and a body, for a channel that compresses fields with what its connection remembers.
    Fields(Box<::http::Request<Bytes>>),
}

impl Request {
    /// Renders `ask` for `transport`.
    ///
    /// # Errors
    /// [`ChannelError::Request`] where a header cannot be written on the wire, or the body is no JSON object
    /// on a channel that must add members to it.
    pub fn render(transport: Transport, ask: &Ask<'_>) -> Result<Self, ChannelError> {
        let rendered = match transport.dialled() {
            Transport::Direct | Transport::Http => {
                Rendered::Stream(render_request(ask, false)?.into())
            }
            Transport::HttpCold => Rendered::Stream(render_request(ask, true)?.into()),
            Transport::Ws => {
                let message = responses::create_message(ask.body, &ask.trace.traceparent())
                    .map_err(|error| ChannelError::Request(error.to_string()))?;
                Rendered::Message(text(message)?)
            }
            Transport::Quic => Rendered::Stream(frame::render_request(ask)?.into()),
            Transport::Http2 | Transport::Http3 => {
                Rendered::Fields(Box::new(fields(ask, scheme(transport))?))
            }
            other => {
                let what = format!("{other} cannot be dialled");
                return Err(ChannelError::Request(what));
            }
        };
        Ok(Self(rendered))
    }

    /// Renders any request for `transport`. On `ws` it must be a create of the Responses API: its body becomes the message,
    /// with the traceparent inside, and the other fields are left to the connection's opening.
    ///
    /// # Errors
    /// [`ChannelError::Request`] where it cannot be written on the wire, or the body is no JSON object on a channel that
    /// must add members to it.
    pub fn pass_on(transport: Transport, message: &Message<'_>) -> Result<Self, ChannelError> {
        let rendered = match transport.dialled() {
            Transport::Direct | Transport::Http => {
                Rendered::Stream(render_message(message, false)?.into())
            }
            Transport::HttpCold => Rendered::Stream(render_message(message, true)?.into()),
            Transport::Ws => Rendered::Message(text(message.create()?)?),
            Transport::Quic => Rendered::Stream(frame::render_message(message)?.into()),
            Transport::Http2 | Transport::Http3 => {
                Rendered::Fields(Box::new(message.to_request(scheme(transport))?))
            }
            other => {
                let what = format!("{other} cannot be dialled");
                return Err(ChannelError::Request(what));
            }
        };
        Ok(Self(rendered))
    }

    /// Bytes of the request, before the transport's own framing.
    #[expect(clippy::len_without_is_empty, reason = "a request is never empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Rendered::Stream(bytes) => bytes.len(),
            Rendered::Message(text) | Rendered::InLane { text, .. } => text.len(),
            Rendered::Fields(request) => request.body().len(),
        }
    }

    /// The bytes, for a channel that is a stream.
    pub(crate) fn stream(&self) -> Result<&Bytes, ChannelError> {
        match &self.0 {
            Rendered::Stream(bytes) => Ok(bytes),
            _ => Err(rendered_for_another()),
        }
    }

    /// Fields and body, for a channel that encodes them itself.
    pub(crate) fn fields(&self) -> Result<&::http::Request<Bytes>, ChannelError> {
        match &self.0 {
            Rendered::Fields(request) => Ok(request),
            _ => Err(rendered_for_another()),
        }
    }

    /// Writes the name of its lane into it.
    pub(crate) fn put_into_lane(&mut self, name: &str) -> Result<(), ChannelError> {
        let text = self.in_lane(name)?;
        let lane = name.to_owned();
        self.0 = Rendered::InLane { lane, text };
        Ok(())
    }

    /// The text with the name of its lane in it.
    pub(crate) fn in_lane(&self, name: &str) -> Result<Utf8Bytes, ChannelError> {
        let whole = match &self.0 {
            Rendered::InLane { lane, text } if lane == name => return Ok(text.clone()),
            // Of several members of one name the last is read.
            Rendered::InLane { text, .. } => text,
            _ => self.message()?,
        };
        let mut message = Vec::with_capacity(whole.len() + name.len() + 16);
        responses::write_with_stream_id(&mut message, whole.as_bytes(), name);
        text(message)
    }

    /// The text, for a channel of messages.
    pub(crate) fn message(&self) -> Result<&Utf8Bytes, ChannelError> {
        match &self.0 {
            Rendered::Message(text) => Ok(text),
            _ => Err(rendered_for_another()),
        }
    }
}

/// The scheme that a request for `transport` most likely needs. HTTP/2's client sets another where it dialled TLS.
fn scheme(transport: Transport) -> Scheme {
    match transport.dialled() {
        Transport::Http2 => Scheme::HTTP,
        _ => Scheme::HTTPS,
    }
}

/// A create request as HTTP/2 and HTTP/3 take it.
fn fields(ask: &Ask<'_>, scheme: Scheme) -> Result<::http::Request<Bytes>, ChannelError> {
    let uri = ::http::Uri::builder()
        .scheme(scheme)
        .authority(ask.authority)
        .path_and_query(ask.path)
        .build()
        .map_err(|error| ChannelError::Request(error.to_string()))?;
    let mut request = ::http::Request::post(uri)
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .header("traceparent", ask.trace.traceparent())
        .header("content-length", ask.body.len());
    for (name, value) in ask.headers {
        check_field(name, value)?;
        request = request.header(name, value);
    }
    request
        .body(Bytes::copy_from_slice(ask.body))
        .map_err(|error| ChannelError::Request(error.to_string()))
}

impl Message<'_> {
    /// The first field of that name, where its value is text.
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }

    /// The `Content-Length` that the request needs: a request without a body has none unless its method expects one (RFC
    /// 9110, section 8.6).
    pub(crate) fn content_length(&self) -> Option<usize> {
        let expected = !matches!(self.method, "GET" | "HEAD" | "OPTIONS");
        (expected || !self.body.is_empty()).then_some(self.body.len())
    }

    /// As a WebSocket message of the Responses API.
    fn create(&self) -> Result<Vec<u8>, ChannelError> {
        let no_object = |error: NotAnObject| ChannelError::Request(error.to_string());
        if let Some(traceparent) = self.field("traceparent") {
            return responses::create_message(self.body, traceparent).map_err(no_object);
        }
        let mut fields = Fields::parse(self.body).map_err(no_object)?;
        let kind = serde_json::value::to_raw_value("response.create")
            .map_err(|error| ChannelError::Request(error.to_string()))?;
        fields.set_first("type", kind);
        Ok(fields.to_vec())
    }

    /// As HTTP/2 and HTTP/3 take it.
    fn to_request(&self, scheme: Scheme) -> Result<::http::Request<Bytes>, ChannelError> {
        let bad = |error: ::http::Error| ChannelError::Request(error.to_string());
        let uri = ::http::Uri::builder()
            .scheme(scheme)
            .authority(self.authority)
            .path_and_query(self.target)
            .build()
            .map_err(bad)?;
        let mut request = ::http::Request::builder().method(self.method).uri(uri);
        for (name, value) in self.fields {
            request = request.header(&name[..], &value[..]);
        }
        if let Some(length) = self.content_length() {
            request = request.header("content-length", length);
        }
        request.body(self.body.clone()).map_err(bad)
    }
}

fn text(message: Vec<u8>) -> Result<Utf8Bytes, ChannelError> {
    let text = String::from_utf8(message)
        .map_err(|_| ChannelError::Request("the body is not UTF-8".to_owned()))?;
    Ok(text.into())
}

fn rendered_for_another() -> ChannelError {
    ChannelError::Request("it was rendered for another transport".to_owned())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
