//! What the next turn needs of a finished response: its id, its output items, its usage.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenlag_probes::Usage;

use crate::usage::read_usage;

/// A response that ended well (`response.completed`), or as far as it was allowed to go (`response.incomplete`).
#[derive(Clone, Debug)]
pub struct Completed {
    /// The response's id, which a later `previous_response_id` names.
    pub id: String,
    /// Its output items as raw text.
    pub output: Vec<Box<RawValue>>,
    /// Its token counts, where it has them.
    pub usage: Option<Usage>,
}

impl Completed {
    /// Reads a terminal event. `None` where it is of another type (`response.failed`, `error`) or names no response.
    pub fn parse(terminal_event: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(rename = "type")]
            kind: String,
            #[serde(borrow)]
            response: Response<'a>,
        }

        #[derive(Deserialize)]
        struct Response<'a> {
            id: String,
            #[serde(default)]
            output: Vec<Box<RawValue>>,
            #[serde(borrow)]
            usage: Option<&'a RawValue>,
        }

        let event: Event<'_> = serde_json::from_slice(terminal_event).ok()?;
        if !matches!(&*event.kind, "response.completed" | "response.incomplete") {
            return None;
        }
        Some(Self {
            id: event.response.id,
            output: event.response.output,
            usage: event
                .response
                .usage
                .and_then(|usage| read_usage(usage.get().as_bytes())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_items_are_kept_as_they_came() {
        let event = br#"{"type":"response.completed","response":{"id":"resp_1","object":"response","output":[{"type":"message", "x":1.0},{"type":"function_call"}],"usage":{"input_tokens":3,"output_tokens":2}}}"#;
        let completed = Completed::parse(event).unwrap();
        assert_eq!(completed.id, "resp_1");
        let output: Vec<_> = completed.output.iter().map(|item| item.get()).collect();
        assert_eq!(
            output,
            [
                r#"{"type":"message", "x":1.0}"#,
                r#"{"type":"function_call"}"#
            ]
        );
        assert_eq!(completed.usage.unwrap().output, 2);
    }

    #[test]
    fn other_endings_complete_nothing() {
        for event in [
            r#"{"type":"response.failed","response":{"id":"resp_1"}}"#,
            r#"{"type":"error","status":400}"#,
            r#"{"type":"response.completed","response":{}}"#,
            "[DONE]",
        ] {
            assert!(Completed::parse(event.as_bytes()).is_none(), "{event}");
        }
        let bare = br#"{"type":"response.incomplete","response":{"id":"r","usage":null}}"#;
        assert!(Completed::parse(bare).unwrap().output.is_empty());
    }
}
