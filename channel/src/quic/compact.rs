//! The compact encoding: from events to token frames and back, losing nothing.

use bytes::Bytes;
use tokenlag_dialect::responses::TextDelta;

use super::frame::{self, Frame, TokenContext};

/// Turns events into frames: a text delta becomes a token, everything else stays an event.
#[derive(Debug, Default)]
pub struct Compactor {
    context: Option<TokenContext>,
}

impl Compactor {
    /// Appends the frames that stand for an event's data.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) {
        match TextDelta::parse(data) {
            Some(delta) => self.write_delta(&delta, out),
            None => frame::write_event(data, out),
        }
    }

    fn write_delta(&mut self, delta: &TextDelta<'_>, out: &mut Vec<u8>) {
        let known = self.context.as_ref().is_some_and(|context| {
            context.item_id == delta.item_id
                && context.output_index == delta.output_index
                && context.content_index == delta.content_index
                && context.sequence_number == delta.sequence_number
                && context.logprobs == delta.logprobs
        });
        if !known {
            let context = TokenContext {
                item_id: delta.item_id.clone().into_owned(),
                output_index: delta.output_index,
                content_index: delta.content_index,
                sequence_number: delta.sequence_number,
                logprobs: delta.logprobs,
            };
            Frame::TokenContext(context.clone()).write(out);
            self.context = Some(context);
        }
        frame::write_token(delta.delta.as_bytes(), out);
        if let Some(context) = &mut self.context {
            context.sequence_number += 1;
        }
    }
}

/// Turns frames back into the events that they stand for.
#[derive(Debug, Default)]
pub struct Expander {
    context: Option<TokenContext>,
}

/// A token came before any context, or its text is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// No context yet.
    #[error("a TOKEN frame came before any TOKEN_CONTEXT")]
    NoContext,
    /// The text is not UTF-8.
    #[error("a TOKEN frame's text is not UTF-8")]
    NotUtf8,
}

impl Expander {
    /// The common values of the tokens that follow.
    pub fn set_context(&mut self, context: TokenContext) {
        self.context = Some(context);
    }

    /// The event that a token stands for: the same members and values, as JSON.
    ///
    /// # Errors
    /// A token without context, or that is no text.
    pub fn expand(&mut self, text: &[u8]) -> Result<Bytes, ExpandError> {
        let context = self.context.as_mut().ok_or(ExpandError::NoContext)?;
        let delta = std::str::from_utf8(text).map_err(|_| ExpandError::NotUtf8)?;
        let mut json = Vec::with_capacity(160 + text.len());
        TextDelta {
            item_id: context.item_id.as_str().into(),
            output_index: context.output_index,
            content_index: context.content_index,
            sequence_number: context.sequence_number,
            delta: delta.into(),
            logprobs: context.logprobs,
        }
        .write(&mut json);
        context.sequence_number += 1;
        Ok(json.into())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::quic::frame;

    fn round_trip(events: &[Value]) -> (Vec<Value>, usize) {
        let mut compactor = Compactor::default();
        let mut wire = Vec::new();
        for event in events {
            compactor.write(event.to_string().as_bytes(), &mut wire);
        }
        let length = wire.len();
        let mut inbox = BytesMut::from(&wire[..]);
        let mut expander = Expander::default();
        let mut got = Vec::new();
        while let Some(frame) = frame::take(&mut inbox).unwrap() {
            match frame {
                Frame::TokenContext(context) => expander.set_context(context),
                Frame::Token(text) => {
                    got.push(serde_json::from_slice(&expander.expand(&text).unwrap()).unwrap());
                }
                Frame::Event(data) => got.push(serde_json::from_slice(&data).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        (got, length)
    }

    fn delta(item: &str, sequence: u64, text: &str) -> Value {
        json!({"type": "response.output_text.delta", "item_id": item, "output_index": 0,
               "content_index": 0, "sequence_number": sequence, "delta": text})
    }

    #[test]
    fn a_run_of_deltas_shares_one_context() {
        let events: Vec<_> = (4..104).map(|n| delta("msg_1", n, " tok")).collect();
        let (got, length) = round_trip(&events);
        assert_eq!(got, events);
        assert!(length < 100 * 6 + 32, "{length}");
    }

    /// What is around a token inside the stream: the claim of docs/quic-channel.md.
    #[test]
    fn a_token_costs_at_most_16_bytes_beside_its_text_where_an_event_costs_over_100() {
        let item = "msg_68f0c2a1b2c3819f8e7d6c5b4a392817";
        for length in [1, 4, 16, 63, 64, 1000] {
            let text = "t".repeat(length);
            let mut compactor = Compactor::default();
            let (mut compact, mut events) = (Vec::new(), Vec::new());
            for number in 0..20 {
                let data = delta(item, 4 + number, &text).to_string();
                let before = compact.len();
                compactor.write(data.as_bytes(), &mut compact);
                let around = compact.len() - before - length;
                assert!(number == 0 || around <= 3, "{around} around {length}");
                Frame::Event(Bytes::from(data)).write(&mut events);
            }
            let around = |bytes: usize| (bytes - 20 * length) as f64 / 20.0;
            // What the first token had to say of all others is counted here.
            assert!(around(compact.len()) <= 16.0, "{length}");
            assert!(around(events.len()) > 100.0, "{length}");
        }
    }

    #[test]
    fn what_a_token_cannot_say_stays_an_event() {
        let mut padded = delta("msg_1", 5, "a");
        padded["obfuscation"] = json!("xxxx");
        let mut scored = delta("msg_1", 6, "b");
        scored["logprobs"] = json!([{"token": "b", "logprob": -0.1}]);
        let events = [
            delta("msg_1", 4, "x"),
            padded,
            scored,
            delta("msg_1", 7, "y"),
        ];
        assert_eq!(round_trip(&events).0, events);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(items in prop::collection::vec(("[ab]", 0u64..4, ".{0,8}"), 0..30)) {
            let events: Vec<_> = items.iter().map(|(item, n, text)| delta(item, *n, text)).collect();
            prop_assert_eq!(round_trip(&events).0, events);
        }
    }

    #[test]
    fn a_token_without_context_is_an_error() {
        assert_eq!(
            Expander::default().expand(b"a"),
            Err(ExpandError::NoContext)
        );
    }
}
