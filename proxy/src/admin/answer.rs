//! Answers of the admin endpoint, and what they are written in.

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            reason: "OK",
            kind,
            body: body.into(),
        }
    }

    pub(crate) fn error(status: u16, reason: &'static str, message: &str) -> Self {
        Self {
            status,
            reason,
            kind: TEXT,
            body: format!("{message}\n").into_bytes(),
        }
    }
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const PEM: &str = "application/x-pem-file";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Appends a value as one line of JSON.
pub(super) fn push_line(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(&mut *out, value)
        .expect("records have string keys, and a Vec takes every byte");
    out.push(b'\n');
}
