//! A create that was refused on a WebSocket, as HTTP has it.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_channel::Chunk;
use tokenlag_dialect::Fields;
use tokenlag_probes::Stamp;

use crate::inlet::Inlet;

/// A create that was refused: over HTTP it has a status.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The error's code.
    pub(crate) code: Option<String>,
    /// The error object, as HTTP has it.
    pub(crate) body: Vec<u8>,
}

impl Refusal {
    /// Reads the first message that answers a create.
    pub(crate) fn of(message: &Chunk) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event {
            r#type: String,
            status: u16,
            error: Box<RawValue>,
        }

        #[derive(Deserialize)]
        struct Told {
            code: Option<String>,
        }

        let event: Event = serde_json::from_slice(&message.bytes).ok()?;
        if event.r#type != "error" || !(400..600).contains(&event.status) {
            return None;
        }
        let told: Option<Told> = serde_json::from_str(event.error.get()).ok();
        let mut body = Fields::default();
        body.set("error", event.error);
        Some(Self {
            status: event.status,
            code: told.and_then(|told| told.code),
            body: body.to_vec(),
        })
    }

    /// The reply that it is, read at `at`.
    pub(crate) fn into_inlet(self, at: Stamp) -> Inlet {
        let chunk = Chunk {
            at,
            ordinal: 0,
            bytes: self.body.into(),
        };
        Inlet::whole(self.status, chunk)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_refusal_has_its_status_and_its_words() {
        let message = |json: &'static str| Chunk {
            at: Stamp::default(),
            ordinal: 0,
            bytes: Bytes::from_static(json.as_bytes()),
        };
        let refused = Refusal::of(&message(
            r#"{"type":"error","status":429,"error":{"code":"slow","message":"x"}}"#,
        ));
        let refused = refused.unwrap();
        assert_eq!(
            (refused.status, refused.code.as_deref()),
            (429, Some("slow"))
        );
        assert_eq!(refused.body, br#"{"error":{"code":"slow","message":"x"}}"#);
        for other in [
            r#"{"type":"error","error":{}}"#,
            r#"{"type":"error","status":200,"error":{}}"#,
            r#"{"type":"response.created","response":{"id":"r"}}"#,
        ] {
            assert!(Refusal::of(&message(other)).is_none(), "{other}");
        }
    }
}
