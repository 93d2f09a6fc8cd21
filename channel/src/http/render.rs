//! Heads of HTTP/1.1 messages as they are written, and what may stand in them.

use crate::{Ask, ChannelError, Message};

/// Renders the head and body of an HTTP create request; `cold` asks the server to close after it.
pub(crate) fn render_request(ask: &Ask<'_>, cold: bool) -> Result<Vec<u8>, ChannelError> {
    let mut wire = Vec::with_capacity(512 + ask.body.len());
    start_request(&mut wire, "POST", ask.path, ask.authority);
    push_field(&mut wire, b"content-type", b"application/json");
    push_field(&mut wire, b"accept", b"text/event-stream");
    push_field(&mut wire, b"traceparent", &ask.trace.traceparent_bytes());
    for (name, value) in ask.headers {
        check_field(name, value)?;
        push_field(&mut wire, name.as_bytes(), value.as_bytes());
    }
    if cold {
        push_field(&mut wire, b"connection", b"close");
    }
    push_length(&mut wire, ask.body.len());
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(ask.body);
    Ok(wire)
}

/// Renders any HTTP request; `cold` asks the server to close after it.
pub(crate) fn render_message(message: &Message<'_>, cold: bool) -> Result<Vec<u8>, ChannelError> {
    if !is_token(message.method.as_bytes()) || !is_target(message.target.as_bytes()) {
        let what = "its method or target has characters that HTTP forbids";
        return Err(ChannelError::Request(what.to_owned()));
    }
    let mut wire = Vec::with_capacity(1024 + message.body.len());
    start_request(&mut wire, message.method, message.target, message.authority);
    for (name, value) in message.fields {
        check_bytes(name, value)?;
        push_field(&mut wire, name, value);
    }
    if cold {
        push_field(&mut wire, b"connection", b"close");
    }
    if let Some(length) = message.content_length() {
        push_length(&mut wire, length);
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(message.body);
    Ok(wire)
}

/// Writes a request line and its `Host`.
pub fn start_request(out: &mut Vec<u8>, method: &str, target: &str, authority: &str) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_field(out, b"host", authority.as_bytes());
}

/// Writes a status line.
pub fn start_response(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    // A status has three digits: heads with others are not read.
    out.extend([100, 10, 1].map(|place| b'0' + (status / place % 10) as u8));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the field that tells a body's length.
fn push_length(out: &mut Vec<u8>, length: usize) {
    // As many digits as the largest number has.
    let mut digits = [0; 20];
    let (mut start, mut left) = (digits.len(), length);
    while left > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    push_field(out, b"content-length", &digits[start..]);
}

/// Writes one field line.
pub fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Refuses a field that would break the head it is written into.
pub(crate) fn check_field(name: &str, value: &str) -> Result<(), ChannelError> {
    check_bytes(name.as_bytes(), value.as_bytes())
}

fn check_bytes(name: &[u8], value: &[u8]) -> Result<(), ChannelError> {
    if is_token(name) && is_field_value(value) {
        Ok(())
    } else {
        Err(ChannelError::Request(format!(
            "the header '{}' has characters that HTTP forbids",
            name.escape_ascii()
        )))
    }
}

/// Whether the bytes can be a method or a field's name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| IN_TOKEN[usize::from(byte)])
}

/// Which bytes a token may have (RFC 9110, section 5.6.2): every name of every request is looked up here.
const IN_TOKEN: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        allowed[others[at] as usize] = true;
        at += 1;
    }
    allowed
};

/// Whether the bytes can be a field's value: no control characters, so that they cannot end the line.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    // All of them are looked at, since that is done many at a time.
    bytes.iter().fold(true, |good, &b| {
        good & ((b == b'\t') | ((b >= b' ') & (b != 0x7f)))
    })
}

/// Whether the bytes can be a request's target: visible ASCII, so that they cannot end the request line.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

/// The reason phrase that goes with a status where no other is known; empty for a status without one.
pub fn reason(status: u16) -> &'static str {
    ::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}
