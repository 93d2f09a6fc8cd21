//! Whose fault an error event tells: the client's, the server's or the model's.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::FailureKind;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    status_code: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

/// The kind of failure of an error event (any dialect) or a `response.failed`: by the first HTTP status found in
/// `status`, `status_code` or a numeric `code`, in the event, its `error` or its `response`; without one, the model's.
pub(crate) fn failure_kind(json: &[u8]) -> FailureKind {
    let status = std::str::from_utf8(json)
        .ok()
        .and_then(|text| status_in(text, 0));
    match status {
        Some(400..=499) => FailureKind::ClientError,
        Some(500..=599) => FailureKind::ServerError,
        _ => FailureKind::Model,
    }
}

fn status_in(json: &str, depth: u8) -> Option<u16> {
    // The event, its response, that response's error: no deeper.
    if depth > 2 {
        return None;
    }
    let event: Event<'_> = serde_json::from_str(json).ok()?;
    [event.status, event.status_code, event.code]
        .into_iter()
        .flatten()
        .find_map(|raw| {
            let number: u16 = raw.get().trim_matches('"').parse().ok()?;
            (400..600).contains(&number).then_some(number)
        })
        .or_else(|| {
            [event.error, event.response]
                .into_iter()
                .flatten()
                .find_map(|raw| status_in(raw.get(), depth + 1))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_decides() {
        use FailureKind::{ClientError, Model, ServerError};
        for (json, kind) in [
            (
                r#"{"type":"error","status":400,"error":{"code":"x"}}"#,
                ClientError,
            ),
            (r#"{"type":"error","status_code":503}"#, ServerError),
            (
                r#"{"error":{"message":"m","type":"server_error","code":500}}"#,
                ServerError,
            ),
            (r#"{"error":{"message":"m","code":"429"}}"#, ClientError),
            (
                r#"{"type":"error","code":"server_error","message":"m"}"#,
                Model,
            ),
            (
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}"#,
                Model,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":502}}}"#,
                ServerError,
            ),
            (r#"{"error":"plain text"}"#, Model),
            (r#"{"error":{"code":7}}"#, Model),
        ] {
            assert_eq!(failure_kind(json.as_bytes()), kind, "{json}");
        }
    }
}
