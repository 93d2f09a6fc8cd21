//! Heads of HTTP/1.1 messages: parsed by httparse, framed by the rules of RFC 9112.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::headers::is_same;

pub use super::headers::{Headers, is_hop_by_hop};

/// The longest head that is read. Beyond it a request gets 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// The most header fields that a head may have.
const MAX_FIELDS: usize = 128;

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// All until the connection's end (responses only).
    UntilClose,
}

/// A request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Cow<'static, str>,
    /// The request target, as it came.
    pub target: String,
    /// Minor version: 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub version: u8,
    /// The fields.
    pub headers: Headers,
}

/// A response's head.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: Cow<'static, str>,
    /// Minor version.
    pub version: u8,
    /// The fields.
    pub headers: Headers,
}

/// A head that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("not an HTTP/1.1 message: {0}")]
    Syntax(String),
    /// Too long, or too many fields.
    #[error("the head is longer than {MAX_HEAD} bytes or has more than {MAX_FIELDS} fields")]
    TooLarge,
    /// The fields that delimit the body contradict each other: the way requests are smuggled (RFC 9112, section 11.2).
    #[error("the body's length is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding '{0}' is not supported; only 'chunked' is")]
    Coding(String),
}

impl RequestHead {
    /// Takes a head off the front of `inbox`; `None` while it is not whole.
    ///
    /// # Errors
    /// A head that is malformed or too long; the connection cannot go on.
    pub fn take(inbox: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(inbox, &mut fields);
        let Some(length) = whole(status, inbox.len())? else {
            return Ok(None);
        };
        // The parser takes a bare LF for a line's end; peers that do not can be played off against it.
        let text = &inbox[..length];
        if has_bare_lf(text) {
            let what = "a line of the head ends without CR";
            return Err(HeadError::Syntax(what.to_owned()));
        }
        let head = Self {
            method: usual(parsed.method.unwrap_or_default(), &["POST", "GET"]),
            target: parsed.path.unwrap_or_default().to_owned(),
            version: parsed.version.unwrap_or(1),
            headers: Headers::of(text, parsed.headers),
        };
        inbox.advance(length);
        Ok(Some(head))
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// How the body is delimited (RFC 9112, section 6.3). Stricter than for a response: whatever two readers could take
    /// in two ways is refused.
    ///
    /// # Errors
    /// Contradicting, repeated or unsupported fields; a request of HTTP/1.1 without exactly one `Host` (section 3.2).
    pub fn framing(&self) -> Result<Framing, HeadError> {
        if self.headers.count("content-length") > 1 {
            return Err(HeadError::Ambiguous("Content-Length is there twice"));
        }
        let coded = self.headers.count("transfer-encoding") > 0;
        if coded && self.version == 0 {
            let what = "HTTP/1.0 knows no Transfer-Encoding";
            return Err(HeadError::Ambiguous(what));
        }
        match self.headers.count("host") {
            1 => {}
            0 if self.version == 0 => {}
            0 => return Err(HeadError::Syntax("there is no Host".to_owned())),
            _ => return Err(HeadError::Syntax("Host is there twice".to_owned())),
        }
        not_taken_off(&self.headers)?;
        Ok(declared(&self.headers)?.unwrap_or(Framing::Empty))
    }

    /// Whether the client wants the connection kept.
    pub fn keep_alive(&self) -> bool {
        self.version == 1 && !self.headers.has_token("connection", "close")
    }

    /// Whether the request asks for a WebSocket (RFC 6455, section 4.2.1).
    pub fn wants_websocket(&self) -> bool {
        self.method == "GET"
            && self.headers.has_token("upgrade", "websocket")
            && self.headers.has_token("connection", "upgrade")
    }
}

impl ResponseHead {
    /// Takes a head off the front of `inbox`; `None` while it is not whole.
    ///
    /// # Errors
    /// A head that is malformed or too long.
    pub fn take(inbox: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            inbox,
            &mut fields,
        );
        let Some(length) = whole(status, inbox.len())? else {
            return Ok(None);
        };
        let head = Self {
            status: parsed.code.unwrap_or_default(),
            reason: usual(parsed.reason.unwrap_or_default(), &["OK"]),
            version: parsed.version.unwrap_or(1),
            headers: Headers::of(&inbox[..length], parsed.headers),
        };
        inbox.advance(length);
        Ok(Some(head))
    }

    /// How the body is delimited (RFC 9112, section 6.3), given the request's method.
    ///
    /// # Errors
    /// Contradicting or unsupported fields.
    pub fn framing(&self, method: &str) -> Result<Framing, HeadError> {
        let bodyless = method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304);
        if bodyless {
            return Ok(Framing::Empty);
        }
        not_taken_off(&self.headers)?;
        Ok(declared(&self.headers)?.unwrap_or(Framing::UntilClose))
    }

    /// Whether the server will keep the connection.
    pub fn keep_alive(&self) -> bool {
        match self.version {
            1 => !self.headers.has_token("connection", "close"),
            _ => self.headers.has_token("connection", "keep-alive"),
        }
    }

    /// The body is of this media type (`text/event-stream`), whatever its parameters.
    pub fn is_of_type(&self, media_type: &str) -> bool {
        self.headers.first("content-type").is_some_and(|value| {
            let end = memchr(b';', value).unwrap_or(value.len());
            let media = value[..end].trim_ascii();
            is_same(media, media_type.as_bytes())
        })
    }
}

/// Refuses a `Connection` that names what delimits a message: an intermediary would take it off, and the body would be read
/// as another message by whoever is next (RFC 9110, section 7.6.1).
fn not_taken_off(headers: &Headers) -> Result<(), HeadError> {
    let names = ["content-length", "transfer-encoding", "host"];
    let is_named = headers.count("connection") > 0
        && names
            .iter()
            .any(|name| headers.has_token("connection", name));
    match is_named {
        true => Err(HeadError::Ambiguous(
            "Connection names a field that delimits the message",
        )),
        false => Ok(()),
    }
}

/// Text of a head, which needs no memory where it is one of those that nearly all heads have.
fn usual(text: &str, texts: &[&'static str]) -> Cow<'static, str> {
    match texts.iter().find(|&&usual| usual == text) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(text.to_owned()),
    }
}

/// Whether a line ends in LF alone. All bytes are looked at, since that is done many at a time.
fn has_bare_lf(head: &[u8]) -> bool {
    let behind = head.get(1..).unwrap_or_default();
    let pairs = head.iter().zip(behind);
    let bare = pairs.fold(false, |bare, (&before, &byte)| {
        bare | ((byte == b'\n') & (before != b'\r'))
    });
    bare || head.starts_with(b"\n")
}

fn whole(
    parsed: Result<httparse::Status<usize>, httparse::Error>,
    length: usize,
) -> Result<Option<usize>, HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => Ok(Some(head)),
        Ok(httparse::Status::Partial) if length <= MAX_HEAD => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(error) => Err(HeadError::Syntax(error.to_string())),
    }
}

/// The body's delimiter where the fields declare one.
fn declared(headers: &Headers) -> Result<Option<Framing>, HeadError> {
    let coding = headers.first("transfer-encoding");
    let length = content_length(headers)?;
    match (coding, length) {
        (Some(_), Some(_)) => Err(HeadError::Ambiguous(
            "both Transfer-Encoding and Content-Length are there",
        )),
        (Some(value), None) if value.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            match headers.count("transfer-encoding") {
                1 => Ok(Some(Framing::Chunked)),
                _ => Err(HeadError::Ambiguous("Transfer-Encoding is there twice")),
            }
        }
        (Some(value), None) => Err(HeadError::Coding(value.escape_ascii().to_string())),
        (None, Some(0)) => Ok(Some(Framing::Empty)),
        (None, Some(length)) => Ok(Some(Framing::Length(length))),
        (None, None) => Ok(None),
    }
}

fn content_length(headers: &Headers) -> Result<Option<u64>, HeadError> {
    let mut length = None;
    for value in headers.values("content-length") {
        let parsed = number(value).ok_or(HeadError::Ambiguous("Content-Length is no number"))?;
        if length.is_some_and(|earlier| earlier != parsed) {
            return Err(HeadError::Ambiguous(
                "Content-Length is there twice, with two values",
            ));
        }
        length = Some(parsed);
    }
    Ok(length)
}

/// Digits, and nothing but digits.
fn number(text: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    };
    match text {
        [] => None,
        _ => text.iter().try_fold(0, add),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
