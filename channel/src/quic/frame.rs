//! Frames of `tokenlag/1`: what they carry, how they are written, and how they are read from any split of the bytes.

use bytes::{Buf, Bytes, BytesMut};
use tokenlag_probes::Encoding;

use super::varint;
use crate::http::render::{check_field, is_field_value, is_target, is_token};
use crate::{Ask, ChannelError, Message};

/// The longest payload that is taken.
pub const MAX_PAYLOAD: u64 = 64 * 1024 * 1024;

/// The most header fields of a request or response.
const MAX_FIELDS: u64 = 128;

/// How the client wants the reply's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyForm {
    /// As its bytes, untouched ([`Frame::Data`]).
    Bytes,
    /// A server-sent event stream as its events ([`Frame::Event`]), any other body as its bytes.
    Events,
    /// As `Events`, and text deltas as [`Frame::Token`].
    Compact,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client: what is asked. The body follows in [`Frame::Data`], up to the end of the stream.
    Request {
        /// How the reply's body is wanted.
        form: ReplyForm,
        /// HTTP method.
        method: String,
        /// Path and query.
        target: String,
        /// Header fields.
        fields: Vec<(String, Bytes)>,
    },
    /// Server: the reply's head.
    Response {
        /// Whether the body comes as events; otherwise as bytes.
        events: bool,
        /// HTTP status.
        status: u16,
        /// Header fields.
        fields: Vec<(String, Bytes)>,
    },
    /// Both: bytes of a body.
    Data(Bytes),
    /// Server: an event's data, where the event has no name or its name is the data's `type`.
    Event(Bytes),
    /// Server: an event whose name the data does not tell.
    NamedEvent {
        /// The event's name.
        name: String,
        /// Its data.
        data: Bytes,
    },
    /// Server: what the text deltas that follow have in common.
    TokenContext(TokenContext),
    /// Server: a text delta; its `sequence_number` is one more than that of the delta before it in this context.
    Token(Bytes),
    /// Server: the reply is whole. A stream that ends without it was cut off.
    End,
}

/// What the text deltas of one output item have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenContext {
    /// The output item.
    pub item_id: String,
    /// Which output item of the response, from 0.
    pub output_index: u32,
    /// Which content part of the item, from 0.
    pub content_index: u32,
    /// The `sequence_number` of the next token.
    pub sequence_number: u64,
    /// Each delta has an empty `logprobs` array.
    pub logprobs: bool,
}

/// Frames that break the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that version 1 does not have.
    #[error("frame type {0:#04x} is unknown to tokenlag/1")]
    UnknownType(u8),
    /// A payload beyond the limit.
    #[error("a frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(u64),
    /// A payload that ends too early, is too long, or holds what it may not.
    #[error("the {frame} frame is malformed: {what}")]
    Malformed {
        /// Which frame.
        frame: &'static str,
        /// What was wrong with it.
        what: &'static str,
    },
}

mod kind {
    pub(super) const REQUEST: u8 = 0x01;
    pub(super) const DATA: u8 = 0x02;
    pub(super) const RESPONSE: u8 = 0x03;
    pub(super) const EVENT: u8 = 0x04;
    pub(super) const NAMED_EVENT: u8 = 0x05;
    pub(super) const TOKEN_CONTEXT: u8 = 0x06;
    pub(super) const TOKEN: u8 = 0x07;
    pub(super) const END: u8 = 0x08;
}

impl Frame {
    /// Appends the frame: type (1 byte), payload length (varint), payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data(bytes) => push(out, kind::DATA, bytes),
            Self::Event(data) => push(out, kind::EVENT, data),
            Self::Token(text) => push(out, kind::TOKEN, text),
            Self::End => push(out, kind::END, &[]),
            Self::Request {
                form,
                method,
                target,
                fields,
            } => {
                let mut payload = vec![*form as u8];
                push_bytes(&mut payload, method.as_bytes());
                push_bytes(&mut payload, target.as_bytes());
                push_fields(&mut payload, fields);
                push(out, kind::REQUEST, &payload);
            }
            Self::Response {
                events,
                status,
                fields,
            } => {
                let mut payload = vec![u8::from(*events)];
                varint::push(&mut payload, u64::from(*status));
                push_fields(&mut payload, fields);
                push(out, kind::RESPONSE, &payload);
            }
            Self::NamedEvent { name, data } => {
                let mut payload = Vec::with_capacity(name.len() + data.len() + 8);
                push_bytes(&mut payload, name.as_bytes());
                payload.extend_from_slice(data);
                push(out, kind::NAMED_EVENT, &payload);
            }
            Self::TokenContext(context) => {
                let mut payload = vec![u8::from(context.logprobs)];
                push_bytes(&mut payload, context.item_id.as_bytes());
                varint::push(&mut payload, u64::from(context.output_index));
                varint::push(&mut payload, u64::from(context.content_index));
                varint::push(&mut payload, context.sequence_number.min(varint::MAX));
                push(out, kind::TOKEN_CONTEXT, &payload);
            }
        }
    }

    fn parse(kind: u8, payload: Bytes) -> Result<Self, FrameError> {
        match kind {
            kind::DATA => Ok(Self::Data(payload)),
            kind::EVENT => Ok(Self::Event(payload)),
            kind::TOKEN => Ok(Self::Token(payload)),
            kind::END => Reader::new("END", &payload).ends(Self::End),
            kind::REQUEST => {
                let mut reader = Reader::new("REQUEST", &payload);
                let form = match reader.byte()? {
                    0 => ReplyForm::Bytes,
                    1 => ReplyForm::Events,
                    2 => ReplyForm::Compact,
                    _ => return Err(reader.malformed("the form is none of 0, 1, 2")),
                };
                let method = reader.text()?;
                let target = reader.text()?;
                // They may go on in an HTTP/1.1 head, where a space or a line end would begin another request.
                if !is_token(method.as_bytes()) || !is_target(target.as_bytes()) {
                    return Err(reader.malformed("the method or target is none that HTTP has"));
                }
                let fields = reader.fields()?;
                reader.ends(Self::Request {
                    form,
                    method,
                    target,
                    fields,
                })
            }
            kind::RESPONSE => {
                let mut reader = Reader::new("RESPONSE", &payload);
                let events = reader.flag()?;
                let status = u16::try_from(reader.integer()?)
                    .ok()
                    .filter(|status| (100..1000).contains(status))
                    .ok_or(reader.malformed("the status is not within 100 to 999"))?;
                let fields = reader.fields()?;
                reader.ends(Self::Response {
                    events,
                    status,
                    fields,
                })
            }
            kind::NAMED_EVENT => {
                let mut reader = Reader::new("NAMED_EVENT", &payload);
                let name = reader.text()?;
                Ok(Self::NamedEvent {
                    name,
                    data: payload.slice_ref(reader.rest),
                })
            }
            kind::TOKEN_CONTEXT => {
                let mut reader = Reader::new("TOKEN_CONTEXT", &payload);
                let context = TokenContext {
                    logprobs: reader.flag()?,
                    item_id: reader.text()?,
                    output_index: reader.index()?,
                    content_index: reader.index()?,
                    sequence_number: reader.integer()?,
                };
                reader.ends(Self::TokenContext(context))
            }
            unknown => Err(FrameError::UnknownType(unknown)),
        }
    }
}

/// Takes the next whole frame off the front of `inbox`; `None` while it is not whole.
///
/// # Errors
/// Bytes that are no frame of version 1; the stream cannot go on.
pub fn take(inbox: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(&kind) = inbox.first() else {
        return Ok(None);
    };
    if !(kind::REQUEST..=kind::END).contains(&kind) {
        return Err(FrameError::UnknownType(kind));
    }
    let Some((length, width)) = varint::peek(&inbox[1..]) else {
        return Ok(None);
    };
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let length = length as usize;
    if inbox.len() - 1 - width < length {
        return Ok(None);
    }
    let mut payload = inbox.split_to(1 + width + length).freeze();
    payload.advance(1 + width);
    Frame::parse(kind, payload).map(Some)
}

/// The length of the payload of the frame at the front of `inbox`, as soon as it is known.
pub(crate) fn announced(inbox: &[u8]) -> Option<u64> {
    let (length, _) = varint::peek(inbox.get(1..)?)?;
    Some(length)
}

/// Appends an event whose data tells its name, as [`Frame::Event`] does.
pub(crate) fn write_event(data: &[u8], out: &mut Vec<u8>) {
    push(out, kind::EVENT, data);
}

/// Appends a token, as [`Frame::Token`] does.
pub(crate) fn write_token(text: &[u8], out: &mut Vec<u8>) {
    push(out, kind::TOKEN, text);
}

/// Appends bytes of a body, as [`Frame::Data`] does.
pub(crate) fn write_data(bytes: &[u8], out: &mut Vec<u8>) {
    push(out, kind::DATA, bytes);
}

/// Renders a create request and its body.
pub(crate) fn render_request(ask: &Ask<'_>) -> Result<Vec<u8>, ChannelError> {
    let mut fields = vec![
        (
            "content-type".to_owned(),
            Bytes::from_static(b"application/json"),
        ),
        ("traceparent".to_owned(), ask.trace.traceparent().into()),
    ];
    for (name, value) in ask.headers {
        check_field(name, value)?;
        fields.push((name.clone(), value.clone().into()));
    }
    let mut wire = Vec::with_capacity(256 + ask.body.len());
    Frame::Request {
        form: match ask.encoding {
            Encoding::Events => ReplyForm::Events,
            Encoding::Compact => ReplyForm::Compact,
        },
        method: "POST".to_owned(),
        target: ask.path.to_owned(),
        fields,
    }
    .write(&mut wire);
    push(&mut wire, kind::DATA, ask.body);
    Ok(wire)
}

/// Renders any HTTP request and its body.
pub(crate) fn render_message(message: &Message<'_>) -> Result<Vec<u8>, ChannelError> {
    let bad = |what: &str| ChannelError::Request(what.to_owned());
    if !is_token(message.method.as_bytes()) || !is_target(message.target.as_bytes()) {
        return Err(bad("its method or target has characters that HTTP forbids"));
    }
    if message.fields.len() as u64 > MAX_FIELDS {
        return Err(bad("it has more fields than tokenlag/1 carries"));
    }
    let mut fields = Vec::with_capacity(message.fields.len());
    for (name, value) in message.fields {
        if !is_token(name) || !is_field_value(value) {
            return Err(bad("a header has characters that HTTP forbids"));
        }
        fields.push((String::from_utf8_lossy(name).into_owned(), value.clone()));
    }
    let mut wire = Vec::with_capacity(1024 + message.body.len());
    Frame::Request {
        form: message.form,
        method: message.method.to_owned(),
        target: message.target.to_owned(),
        fields,
    }
    .write(&mut wire);
    if !message.body.is_empty() {
        push(&mut wire, kind::DATA, message.body);
    }
    Ok(wire)
}

fn push(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    push_bytes(out, payload);
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::push(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_fields(out: &mut Vec<u8>, fields: &[(String, Bytes)]) {
    varint::push(out, fields.len() as u64);
    for (name, value) in fields {
        push_bytes(out, name.as_bytes());
        push_bytes(out, value);
    }
}

/// Takes values off the front of a payload.
struct Reader<'a> {
    frame: &'static str,
    payload: &'a Bytes,
    /// What was not taken yet.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(frame: &'static str, payload: &'a Bytes) -> Self {
        Self {
            frame,
            payload,
            rest: payload,
        }
    }

    fn malformed(&self, what: &'static str) -> FrameError {
        FrameError::Malformed {
            frame: self.frame,
            what,
        }
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let early = self.malformed("it ends too early");
        let (&byte, rest) = self.rest.split_first().ok_or(early)?;
        self.rest = rest;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, FrameError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a flag is neither 0 nor 1")),
        }
    }

    fn integer(&mut self) -> Result<u64, FrameError> {
        let early = self.malformed("it ends too early");
        let (value, width) = varint::peek(self.rest).ok_or(early)?;
        self.rest = &self.rest[width..];
        Ok(value)
    }

    fn index(&mut self) -> Result<u32, FrameError> {
        u32::try_from(self.integer()?).map_err(|_| self.malformed("an index is beyond 32 bits"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], FrameError> {
        let length = self.integer()?;
        if length > self.rest.len() as u64 {
            return Err(self.malformed("it ends too early"));
        }
        let (bytes, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn fields(&mut self) -> Result<Vec<(String, Bytes)>, FrameError> {
        let count = self.integer()?;
        if count > MAX_FIELDS {
            return Err(self.malformed("it has more than 128 header fields"));
        }
        let mut fields = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (name, value) = (self.text()?, self.bytes()?);
            if !is_token(name.as_bytes()) || !is_field_value(value) {
                return Err(self.malformed("a header field has characters that HTTP forbids"));
            }
            fields.push((name, self.payload.slice_ref(value)));
        }
        Ok(fields)
    }

    fn ends(self, frame: Frame) -> Result<Frame, FrameError> {
        if self.rest.is_empty() {
            Ok(frame)
        } else {
            Err(self.malformed("it goes on after its end"))
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
